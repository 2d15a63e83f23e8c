"""The serving part's engine process, over an engine that makes tokens without a model."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from benchmarks.gpu.engines import serving_scheduler
from benchmarks.gpu.engines.serving_run import Server, obey
from benchmarks.gpu.engines.serving_scheduler import Recorder

_TOKEN_SECONDS = 0.002


class Engine:
    """Answers a token every 2 ms to everybody, but while it is paused; keeps what it was told."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.tokenizer_manager = self
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.paused, self.aborted, self.running, self.fail = False, False, 0, False

    async def async_generate(self, **told: Any) -> AsyncIterator[dict[str, Any]]:
        return self._stream(told["sampling_params"]["max_new_tokens"])

    async def _stream(self, tokens: int) -> AsyncIterator[dict[str, Any]]:
        self.running += 1
        self.aborted = False
        try:
            for count in range(1, tokens + 1):
                while self.paused and not self.aborted:
                    await asyncio.sleep(0.001)
                await asyncio.sleep(_TOKEN_SECONDS)
                if self.aborted:
                    return
                if self.fail:
                    raise RuntimeError("no slots left")
                yield {"meta_info": {"completion_tokens": count}}
        finally:
            self.running -= 1

    async def pause_generation(self, told: Any) -> None:
        assert told.mode == "in_place"
        self.paused = True

    async def continue_generation(self, _: Any) -> None:
        self.paused = False

    def abort_request(self, *, abort_all: bool) -> None:
        self.aborted = abort_all

    def collective_rpc(self, name: str, **told: Any) -> None:
        self.calls.append((name, told))
        if name == "serving_steps":
            Path(told["path"]).write_text(json.dumps([[time.time(), 0.0, 1.0, [], 1, 9]]))


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    """SGLang's two messages are made without importing it."""
    import sys

    messages = SimpleNamespace(
        PauseGenerationReqInput=SimpleNamespace, ContinueGenerationReqInput=SimpleNamespace
    )
    monkeypatch.setitem(sys.modules, "sglang.srt.managers.io_struct", messages)
    found = Engine()
    yield found
    for task in asyncio.all_tasks(found.loop):
        task.cancel()
    found.loop.run_until_complete(asyncio.sleep(0.01))
    found.loop.close()


def server(engine: Engine, tmp_path: Path) -> Server:
    job = {
        "engine": {"chunked_prefill_size": 128}, "vocab": 256,
        "loads": {"one": {"lengths": [[20, 8], [30, 6]], "held": 4}},
    }  # fmt: skip
    return Server(engine, job, tmp_path)


def test_a_stretch_is_of_its_setting_and_nothing_runs_after_it(
    engine: Engine, tmp_path: Path
) -> None:
    served = server(engine, tmp_path)
    assert obey(served, "load one 4")["seconds"] < 10.0
    assert engine.paused
    found = obey(served, "window 1 64 2 3 0.04 20")
    settings = [told for name, told in engine.calls if name == "serving_set"]
    assert settings == [{"chunk": 128, "mixed": False}, {"chunk": 64, "mixed": True}]
    assert found["whole"] and engine.paused
    assert len(found["ttft_ms"]) >= 6 and found["itl_ms"] and found["steps"]
    assert engine.running >= 4


def test_nobody_waits_for_an_engine_that_is_paused(engine: Engine, tmp_path: Path) -> None:
    served = server(engine, tmp_path)
    obey(served, "load one 4")
    time.sleep(0.6)
    found = obey(served, "window 0 64 0 6 0 20")
    assert found["unix"][1] - found["unix"][0] < 0.5
    assert max(gap for gap, _ in found["itl_ms"]) < 300.0
    assert max(found["ttft_ms"]) < 300.0


def test_a_stretch_that_is_late_is_not_whole(engine: Engine, tmp_path: Path) -> None:
    served = server(engine, tmp_path)
    obey(served, "load one 4")
    assert not obey(served, "window 0 64 0 100000 1 0.1")["whole"]


def test_a_load_at_a_rate_begins_in_an_empty_engine(engine: Engine, tmp_path: Path) -> None:
    served = server(engine, tmp_path)
    obey(served, "load one 4")
    found = obey(served, "rate one 1 64 100 0.2 0.3")
    # About thirty arrivals, what came in the first fifth of a second left out; the load that was
    # under way before is gone.
    begin, end = found["unix"]
    assert served._feed is not None and len(found["ttft_ms"]) < len(served._feed._firsts)
    assert end - begin < 0.45
    assert 5 <= len(found["ttft_ms"]) <= 60
    assert max(found["ttft_ms"]) < 300.0


def test_a_request_that_fails_ends_the_order(engine: Engine, tmp_path: Path) -> None:
    served = server(engine, tmp_path)
    obey(served, "load one 4")
    engine.fail = True
    with pytest.raises(RuntimeError, match="no slots left"):
        obey(served, "window 0 64 0 6 0 20")
    with pytest.raises(ValueError, match="'dance' is none of"):
        obey(served, "dance")


def test_steps_without_requests_are_not_recorded() -> None:
    recorder = Recorder()
    lengths = SimpleNamespace(tolist=lambda: [5, 6])
    mode = SimpleNamespace(is_decode=lambda: True)
    batch = SimpleNamespace(rids=["a", "b"], seq_lens_cpu=lengths, forward_mode=mode)
    forward = recorder.around(lambda runner, batch: "logits")
    runner = SimpleNamespace(device="cpu")
    assert forward(runner, SimpleNamespace(rids=None)) == "logits"
    assert forward(runner, batch) == "logits"
    (step,) = recorder.take()
    assert step[1] == 0.0 and step[2] >= 0.0 and step[3:6] == [[], 2, 11]
    assert all(spent >= 0.0 for spent in step[6:]) and len(step) == 8
    assert recorder.take() == []


@pytest.mark.parametrize("alone", [False, True])
def test_a_scheduler_waits_for_its_gate_as_long_as_its_parent_lives(
    alone: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import contextlib
    import multiprocessing
    import sys

    gate = tmp_path / "gate"
    polls: list[int] = []

    def is_alive() -> bool:
        polls.append(len(polls))
        if len(polls) == 3:
            if alone:
                return False
            gate.touch()
        return True

    scheduler = SimpleNamespace(run_scheduler_process=lambda *args, **kwargs: (args, kwargs))
    monkeypatch.setitem(sys.modules, "sglang.srt.managers.scheduler", scheduler)
    monkeypatch.setattr(serving_scheduler, "recorded_scheduler", contextlib.nullcontext)
    monkeypatch.setattr(
        multiprocessing, "parent_process", lambda: SimpleNamespace(is_alive=is_alive)
    )
    found = serving_scheduler.run_scheduler(str(gate), 1, rank=2)
    assert polls == [0, 1, 2]
    assert found == (None if alone else ((1,), {"rank": 2}))
