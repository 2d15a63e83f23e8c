"""Real servers: stock SGLang on POD answers as stock SGLang does, whatever the tuner does."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from support.server import REQUESTS, Reference, stock_server
from support.tables import make_table
from support.waiting import until

from benchmarks.engines.sglang_server import VARIANTS, Answer, Server, sglang_server
from benchmarks.engines.sink import Mood, TraceSink
from pod_integrate.demo.llama import make_demo_model
from pod_integrate.replay.requests import Request
from pod_integrate.terms.config import PodConfig
from pod_integrate.terms.keys import Bucket, DeviceKey, Geometry
from pod_integrate.terms.table import ConfigTable
from pod_integrate.terms.trace import StepRecord, TraceMessage

pytestmark = [pytest.mark.server, pytest.mark.timeout(1800)]
# Tokens of a step, as VARIANTS["mixed"] limits them.
CHUNK = 64
# A server asks a tuner that failed in an earlier test again after a minute at most.
PATIENCE = 180.0


@dataclasses.dataclass
class Stage:
    """A server on POD beside its reference, and the tuner that it talks to."""

    reference: Reference
    pod: Server
    sink: TraceSink
    table: Path

    def check(self) -> list[Answer]:
        """Answers of the server on POD, after the claim that they equal the reference's."""
        return self.reference.check(self.pod)

    def check_uncached(self) -> list[Answer]:
        """As `check`, with nothing of an earlier run in the cache.

        Prompts found there would be prefilled by a token each, in other buckets than the first
        time.
        """
        httpx.post(f"{self.pod.url}/flush_cache", timeout=60).raise_for_status()
        return self.check()

    @contextlib.contextmanager
    def disturbed(self, *, table: bytes | None = None, mood: Mood = "good") -> Iterator[None]:
        """A tuner that serves `table` or is in `mood`, for as long as the context lasts."""
        good = self.sink.table
        self.sink.table = good if table is None else table
        self.sink.mood = mood
        try:
            yield
        finally:
            self.sink.table, self.sink.mood = good, "good"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_demo_model(tmp_path_factory.mktemp("model") / "llama", layers=4)


@pytest.fixture(scope="module")
def stage(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    folder = tmp_path_factory.mktemp("servers")
    with TraceSink() as sink, contextlib.ExitStack() as stack:
        table = folder / "table.json"
        env = {
            "POD_ATTN_TUNER_URL": sink.url,
            "POD_ATTN_TRACE_SAMPLE": "1",
            "POD_ATTN_POLL_SECONDS": "0.3",
            "POD_ATTN_TABLE": str(table),
        }
        variant = VARIANTS["mixed"]
        pod = stack.enter_context(
            sglang_server(
                model,
                variant._replace(flags=(*variant.flags, "--enable-metrics")),
                log=folder / "pod.log",
                env=env,
            )
        )
        reference = stack.enter_context(stock_server(model, folder, pod))
        yield Stage(reference, pod, sink, table)


def test_answers_equal_stock_and_hybrid_batches_served_them(stage: Stage) -> None:
    begin = time.time()
    answers = stage.check_uncached()
    # The first prefill, the first decode and the first hybrid step warm up and are not traced.
    counted = prompt_and_decode_tokens(REQUESTS, answers) - 3 * CHUNK

    def records() -> list[StepRecord]:
        return [record for record in stage.sink.records() if record.time >= begin]

    def tokens() -> int:
        return sum(sum(record.q_lens) for record in records())

    until(lambda: tokens() >= counted, PATIENCE, f"traces of {counted} tokens")
    # The overlap schedule may run one step more of a request before it learns that it is done.
    assert tokens() <= counted + 3 * CHUNK + len(REQUESTS)
    hybrid = [r for r in records() if Bucket.of(r.q_lens, r.kv_lens).is_hybrid]
    assert len(hybrid) > len(REQUESTS) / 4
    assert stage.sink.bad == []
    for record in records():
        assert record.layers == 4
        assert 0 < record.attention_us < record.step_us


def prompt_and_decode_tokens(requests: list[Request], answers: list[Answer]) -> int:
    """Tokens that went through the layers; an answer's last token never does."""
    pairs = zip(requests, answers, strict=True)
    return sum(r.prompt_tokens - a.cached + r.answer_tokens - 1 for r, a in pairs)


def test_start_is_announced_once(stage: Stage) -> None:
    lines = [line for line in stage.pod.child.log.read_text().splitlines() if "kernel cpu-" in line]
    (line,) = [line for line in lines if "default config" in line]
    assert stage.sink.url in line


def test_metrics_show_the_batches(stage: Stage) -> None:
    stage.check()
    text = httpx.get(f"{stage.pod.url}/metrics", timeout=60).text
    hybrid = [line for line in text.splitlines() if line.startswith("pod:batches_total")]
    assert any('kind="hybrid"' in line and float(line.split()[-1]) > 0 for line in hybrid)
    assert "pod:tuner_events_total" in text


def other_config(message: TraceMessage) -> PodConfig:
    """A config that differs from the server's default in every way it can on a CPU."""
    (default,) = (PodConfig.from_dict(c) for c in message.configs.values())
    return dataclasses.replace(
        default,
        decode=dataclasses.replace(default.decode, kv_rows=16),
        prefill=dataclasses.replace(default.prefill, q_rows=32, kv_rows=32, stages=1),
        ctas_per_sm=1,
        prefill_ctas=1,
        decode_ctas=2,
        decode_split_tokens=64,
        virtual_decode=2,
    )


def table_of_seen(stage: Stage, version: int, config: PodConfig) -> bytes:
    """A table with `config` for every bucket that the server has met."""
    message = stage.sink.last()
    assert message is not None
    table = make_table(
        config,
        {Bucket.of(r.q_lens, r.kv_lens) for r in stage.sink.records()},
        geometry=Geometry.parse(message.geometry),
        device=DeviceKey.parse(message.device),
        build=message.build,
        version=version,
    )
    return table.to_json()


@pytest.fixture(scope="module")
def tuned(stage: Stage) -> PodConfig:
    """The server runs table version 7, whose config this is, for buckets that it meets again."""
    begin = time.time()
    stage.check_uncached()

    def arrived() -> bool:
        return any(record.time >= begin for record in stage.sink.records())

    until(arrived, PATIENCE, "traces of a run that found nothing cached")
    message = stage.sink.last()
    assert message is not None
    config = other_config(message)
    stage.sink.table = table_of_seen(stage, 7, config)
    log = stage.pod.child.log
    until(lambda: "config table version 7 in use" in log.read_text(), PATIENCE, "table in use")
    return config


def test_new_table_is_used_without_restart(stage: Stage, tuned: PodConfig) -> None:
    begin = time.time()

    def used() -> bool:
        # A config's first steps warm up and are not traced.
        stage.check_uncached()
        records = [r for r in stage.sink.records() if r.time >= begin]
        return (tuned.short(), "exact") in {(r.config, r.source) for r in records}

    until(used, PATIENCE, "steps with the new config")
    message = stage.sink.last()
    assert message is not None and message.table_version == 7


def test_table_is_saved_for_a_restart_without_the_tuner(stage: Stage, tuned: PodConfig) -> None:
    assert ConfigTable.from_json(stage.table.read_bytes()).version == 7
    assert stage.table.read_bytes() == stage.sink.table


@pytest.mark.parametrize("table", [b"{nonsense", b"", b"[]"])
@pytest.mark.usefixtures("tuned")
def test_corrupt_table_changes_no_answer(stage: Stage, table: bytes) -> None:
    with stage.disturbed(table=table):
        asked = len(stage.sink.requests)
        until(lambda: len(stage.sink.requests) > asked + 1, PATIENCE, "the server asked again")
        stage.check()
        assert ConfigTable.from_json(stage.table.read_bytes()).version == 7


@pytest.mark.parametrize("mood", ["error", "hang"])
@pytest.mark.usefixtures("tuned")
def test_failing_tuner_changes_no_answer(stage: Stage, mood: Mood) -> None:
    with stage.disturbed(mood=mood):
        time.sleep(1.0)
        stage.check()
        assert stage.pod.child.running
