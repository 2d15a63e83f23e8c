"""Stock SGLang servers as child processes, and their greedy answers compared token by token."""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import itertools
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import httpx

from pod_integrate.demo.processes import Child, free_port
from pod_integrate.demo.workload import Request, prompt_ids

START_SECONDS = 420.0
_REQUEST_SECONDS = 240.0
# What every server of a comparison runs with; only the backend and the variant's flags differ.
COMMON_FLAGS = (
    "--device cpu --dtype float32 --skip-server-warmup --mem-fraction-static 0.5 "
    "--max-total-tokens 20000 --random-seed 0 --log-level info"
).split()
MIXED_FLAGS = "--enable-mixed-chunk --chunked-prefill-size 64".split()


@dataclasses.dataclass(frozen=True)
class Server:
    """A running server."""

    url: str
    child: Child

    def answer(self, ids: list[int], new_tokens: int, **options: Any) -> dict[str, Any]:
        """One greedy answer of exactly `new_tokens` tokens; raises httpx.HTTPError."""
        body = {
            "input_ids": ids,
            "sampling_params": {
                "max_new_tokens": new_tokens,
                "temperature": 0,
                "ignore_eos": True,
            },
            **options,
        }
        response = httpx.post(f"{self.url}/generate", json=body, timeout=_REQUEST_SECONDS)
        response.raise_for_status()
        answer: dict[str, Any] = response.json()
        return answer

    def tokens(self, requests: Sequence[Request], *, vocab: int, seed: int) -> list[list[int]]:
        """Greedy tokens of all requests, sent at once, in the order of `requests`."""
        prompts = prompts_of(requests, vocab=vocab, seed=seed)
        with concurrent.futures.ThreadPoolExecutor(max_workers=len(prompts)) as pool:
            answers = pool.map(
                lambda pair: self.answer(pair[0], pair[1].answer_tokens)["output_ids"],
                zip(prompts, requests, strict=True),
            )
            return [[int(token) for token in ids] for ids in answers]

    def margin(self, ids: list[int]) -> float:
        """Log-probability of the best next token minus that of the second best."""
        answer = self.answer(ids, 1, return_logprob=True, top_logprobs_num=2)
        best, second = answer["meta_info"]["output_top_logprobs"][0][:2]
        return float(best[0]) - float(second[0])


class Mismatch(NamedTuple):
    """Where two answers part: request, position, both tokens, margin of the reference there."""

    request: int
    position: int
    reference: int
    candidate: int
    margin: float


def prompts_of(requests: Sequence[Request], *, vocab: int, seed: int) -> list[list[int]]:
    """Token ids of the prompts; the same arguments give the same prompts."""
    return [prompt_ids(r, i, vocab=vocab, scale=1.0, seed=seed) for i, r in enumerate(requests)]


@contextlib.contextmanager
def sglang_server(
    model: Path,
    *,
    backend: Sequence[str],
    log: Path,
    flags: Sequence[str] = (),
    env: Mapping[str, str] | None = None,
) -> Iterator[Server]:
    """Start one server on a free loopback port and stop it at the end.

    backend  flags that choose the attention backend, e.g. ["--attention-backend", "pod"]
    Not ready yet when entered: call `wait_ready`, so that servers can start side by side.
    """
    port = free_port(0)
    command = [sys.executable, "-m", "sglang.launch_server", "--model-path", str(model)]
    command += ["--host", "127.0.0.1", "--port", str(port), *COMMON_FLAGS, *backend, *flags]
    child = Child(f"sglang {' '.join(backend)}", command, log=log, env=env)
    try:
        yield Server(f"http://127.0.0.1:{port}", child)
    finally:
        child.stop(grace=5.0)


def wait_ready(*servers: Server) -> None:
    """Wait until all answer /health; raises StartError with the end of the log."""
    for server in servers:
        server.child.wait_ready(f"{server.url}/health", timeout=START_SECONDS)


def mismatches(
    reference: Server,
    requests: Sequence[Request],
    expected: Sequence[Sequence[int]],
    actual: Sequence[Sequence[int]],
    *,
    vocab: int,
    seed: int,
) -> list[Mismatch]:
    """First difference of every answer that differs, with the reference's margin there."""
    found = []
    prompts = prompts_of(requests, vocab=vocab, seed=seed)
    for index, (want, got) in enumerate(zip(expected, actual, strict=True)):
        if list(want) == list(got):
            continue
        pairs = enumerate(itertools.zip_longest(want, got, fillvalue=-1))
        position, (a, b) = next((i, pair) for i, pair in pairs if pair[0] != pair[1])
        margin = reference.margin([*prompts[index], *want[:position]])
        found.append(Mismatch(index, position, a, b, margin))
    return found
