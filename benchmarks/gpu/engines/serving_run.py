"""An SGLang engine under a load that never ends, measured a stretch at a time; its own process.

It reads files of the job and of the answer, as turns_run does, imports what it needs in all of its
processes, and waits for the job's `gate` before it takes the device. Then an order a line:

  load NAME RUNNING             drop what is under way; send that load from now on, until so many
                                run, as far done as if it had gone on for ever
  window MIXED CHUNK SETTLE CYCLE SECONDS LIMIT
                                under that setting, leave out SETTLE prompts, then take what happens
                                until whole cycles of CYCLE prompts have their first token and
                                SECONDS are over; after LIMIT of them it ends with the last cycle
  rate NAME MIXED CHUNK PER_SECOND SETTLE SECONDS
                                that load in an empty server, arriving at a rate: what happens in
                                the SECONDS that follow on SETTLE

Between orders the engine is paused: nothing runs while another one is measured beside it.
"""

from __future__ import annotations

import functools
import itertools
import json
import math
import sys
import time
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any

from benchmarks.gpu.engines.serving_feed import Feed
from benchmarks.gpu.engines.sglang_run import awaited
from benchmarks.gpu.engines.turns_run import write_whole

# Requests that wait at the door, beyond those that the cache holds.
_WAITING = 8
_RAMP_SECONDS = 90.0


class Server:
    """An engine, its loop, and the load that it is under."""

    def __init__(self, engine: Any, job: dict[str, Any], folder: Path) -> None:
        self._engine, self._job, self._folder = engine, job, folder
        self._loop = engine.loop
        self._feed: Feed | None = None

    def load(self, name: str, running: int) -> dict[str, Any]:
        """Send a load's requests from now on; until `running` have their first token."""
        load = self._job["loads"][name]
        self._set(mixed=False, chunk=self._job["engine"]["chunked_prefill_size"])
        self._do(self._drop())
        outstanding = math.ceil(load["held"]) + _WAITING
        self._feed = Feed(self._engine, _requests(load, self._job, running), outstanding)
        began = time.time()
        self._do(self._stretch(0, running, 0.0, _RAMP_SECONDS))
        self._steps()
        return {"seconds": time.time() - began}

    def window(
        self, mixed: bool, chunk: int, settle: int, cycle: int, seconds: float, limit: float
    ) -> Any:
        """Steps and tokens of a stretch; whole False where less than half of it was in time."""
        assert self._feed is not None
        self._set(mixed=mixed, chunk=chunk)
        begin, end, whole = self._do(self._stretch(settle, cycle, seconds, limit))
        return {
            "unix": [begin, end], "whole": whole, "steps": self._steps(),
            **self._feed.between(begin, end),
        }  # fmt: skip

    def rate(
        self, name: str, mixed: bool, chunk: int, rate: float, settle: float, seconds: float
    ) -> Any:
        """What is answered of a load that arrives at `rate` requests per second.

        settle  seconds that are left out, since the server begins empty
        """
        load = self._job["loads"][name]
        self._set(mixed=mixed, chunk=chunk)
        self._do(self._drop())
        self._feed = Feed(self._engine, _requests(load, self._job, 0), 0)
        begin = time.time() + settle
        self._do(self._arrivals(rate, settle + seconds))
        end = time.time()
        return {"unix": [begin, end], "steps": self._steps(), **self._feed.between(begin, end)}

    def _do(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self._loop.run_until_complete(work)

    async def _stretch(
        self, settle: int, cycle: int, seconds: float, limit: float
    ) -> tuple[float, float, bool]:
        """Unix times of its begin and of its last whole cycle's end, and whether that is enough."""
        assert self._feed is not None
        await self._go()
        until = time.time() + limit
        await self._feed.more_first_tokens(settle, until)
        begin, ends = time.time(), []
        while await self._feed.more_first_tokens(cycle, until):
            ends.append(time.time())
            if ends[-1] - begin >= seconds:
                break
        end = ends[-1] if ends else time.time()
        await self._pause()
        return begin, end, bool(ends) and end - begin >= seconds / 2

    async def _arrivals(self, rate: float, seconds: float) -> None:
        assert self._feed is not None
        await self._go()
        await self._feed.arrive(rate, seconds)
        await self._pause()

    async def _drop(self) -> None:
        """Nothing is in the server afterwards."""
        if self._feed is None:
            return
        await self._go()
        await self._feed.stop()
        await self._pause()

    async def _pause(self) -> None:
        from sglang.srt.managers.io_struct import PauseGenerationReqInput

        await self._engine.tokenizer_manager.pause_generation(
            PauseGenerationReqInput(mode="in_place")
        )
        if self._feed is not None:
            self._feed.pause()

    async def _go(self) -> None:
        from sglang.srt.managers.io_struct import ContinueGenerationReqInput

        if self._feed is not None:
            self._feed.go()
        await self._engine.tokenizer_manager.continue_generation(ContinueGenerationReqInput())

    def _set(self, *, mixed: bool, chunk: int) -> None:
        self._engine.collective_rpc("serving_set", chunk=chunk, mixed=mixed)

    def _steps(self) -> list[Any]:
        path = self._folder / "steps.json"
        self._engine.collective_rpc("serving_steps", path=str(path))
        found: list[Any] = json.loads(path.read_text())
        return found


def _requests(load: dict[str, Any], job: dict[str, Any], first: int) -> Iterator[dict[str, Any]]:
    from benchmarks.gpu.engines.serving_loads import requests

    lengths = tuple((prompt, answer) for prompt, answer in load["lengths"])
    return requests(lengths, job["vocab"], first)


def obey(server: Server, line: str) -> dict[str, Any]:
    """Do one order; ValueError for one that is unknown."""
    order, *told = line.split()
    if order == "load":
        return server.load(told[0], int(told[1]))
    if order == "window":
        mixed, chunk, settle, cycle = map(int, told[:4])
        found: dict[str, Any] = server.window(
            bool(mixed), chunk, settle, cycle, *map(float, told[4:6])
        )
        return found
    if order == "rate":
        rated: dict[str, Any] = server.rate(
            told[0], bool(int(told[1])), int(told[2]), *map(float, told[3:6])
        )
        return rated
    raise ValueError(f"order {order!r} is none of load, window, rate")


def main() -> None:
    """Import, wait for the job, start, then obey until standard input ends."""
    from sglang.srt.entrypoints.engine import Engine

    from benchmarks.gpu.engines.serving_scheduler import run_scheduler

    told = awaited()
    if told is None:
        return
    job, answer = told

    class Recorded(Engine):  # type: ignore[misc]
        """SGLang's own, but for the scheduler's process."""

        run_scheduler_process_func = staticmethod(functools.partial(run_scheduler, job["gate"]))

    began = time.monotonic()
    engine = Recorded(**job["engine"])
    try:
        server = Server(engine, job, answer.parent)
        write_whole(answer, {"ready": True})
        for line in itertools.takewhile(str.strip, sys.stdin):
            found = obey(server, line)
            print(f"{line.strip()} after {time.monotonic() - began:.1f} s", flush=True)
            write_whole(answer, found)
    finally:
        engine.shutdown()


if __name__ == "__main__":
    main()
