"""The load client counts tokens, times and failures of a streamed server exactly."""

import asyncio
import json
from collections.abc import Iterator

import pytest
from support.web import Quiet, serving

from pod_integrate.demo.load import LoadStats, run_load
from pod_integrate.replay.requests import Request


class _Server(Quiet):
    """Streams like SGLang's /generate: cumulative completion_tokens, then [DONE]."""

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        answer = body["sampling_params"]["max_new_tokens"]
        if answer == 13:
            self.send_error(500, "unlucky")
            return
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        for total in (*range(2, answer, 2), answer):
            self.wfile.write(
                f'data: {{"meta_info": {{"completion_tokens": {total}}}}}\n\n'.encode()
            )
        self.wfile.write(b"data: [DONE]\n\n")


@pytest.fixture
def server() -> Iterator[str]:
    with serving(_Server) as url:
        yield url


def _run(url: str, requests: list[Request]) -> LoadStats:
    return asyncio.run(run_load(url, requests, LoadStats(), vocab=256, scale=1.0, concurrency=4))


def test_tokens_and_gaps_are_counted(server: str) -> None:
    stats = _run(server, [Request(0.0, 10, 6), Request(0.01, 20, 5)])
    assert (stats.done, stats.failed, stats.sent) == (2, 0, 2)
    assert (stats.prompt_tokens, stats.answer_tokens) == (30, 11)
    assert len(stats.ttft) == 2
    # The first chunk brings two tokens at once: only what follows it has a gap.
    assert len(stats.tbt) == (6 - 2) + (5 - 2)
    assert stats.percentile("ttft", 50) is not None


def test_failed_request_is_counted_and_the_rest_go_on(server: str) -> None:
    stats = _run(server, [Request(0.0, 4, 13), Request(0.0, 4, 2)])
    assert (stats.done, stats.failed) == (1, 1)
    assert "500" in stats.last_error


def test_no_sample_means_no_percentile() -> None:
    assert LoadStats().percentile("tbt", 99) is None
