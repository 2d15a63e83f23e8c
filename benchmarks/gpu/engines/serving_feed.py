"""Requests of a load as a client sends them: so many outstanding at all times, or at a rate."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Iterator
from typing import Any

_POLL_SECONDS = 0.005


class Feed:
    """Streams of one load, and when their tokens came.

    outstanding  requests that are sent and not ended; 0 where they arrive at a rate
    """

    def __init__(self, engine: Any, requests: Iterator[dict[str, Any]], outstanding: int) -> None:
        self._engine, self._requests = engine, requests
        self._outstanding = outstanding
        self._tasks: set[asyncio.Task[None]] = set()
        self._stopped = False
        # Seconds of each first token since it was sent, and of tokens since the one before.
        self._firsts: list[tuple[float, float]] = []
        self._gaps: list[tuple[float, float, int]] = []
        self._failed: BaseException | None = None
        # Seconds in which the engine was paused, which no request waited for.
        self._lost, self._since = 0.0, time.time()

    def pause(self) -> None:
        """The engine stands still from now on."""
        self._since = time.time()

    def go(self) -> None:
        """It goes on."""
        self._lost += time.time() - self._since

    async def more_first_tokens(self, count: int, until: float) -> bool:
        """Wait for `count` more requests' first tokens, or the time; whether they came."""
        self._fill()
        wanted = len(self._firsts) + count
        while len(self._firsts) < wanted:
            self._check()
            if time.time() > until:
                return False
            await asyncio.sleep(_POLL_SECONDS)
        return True

    async def arrive(self, rate: float, seconds: float) -> None:
        """Poisson arrivals at `rate` per second for `seconds`; answers after that do not count."""
        draw, until = random.Random(0), time.time() + seconds
        at = time.time()
        while at < until:
            await asyncio.sleep(max(0.0, at - time.time()))
            self._check()
            self._send()
            at += draw.expovariate(rate)
        await asyncio.sleep(max(0.0, until - time.time()))

    async def stop(self) -> None:
        """Abort what is under way, and wait until it has ended."""
        self._stopped = True
        while self._tasks:
            self._engine.tokenizer_manager.abort_request(abort_all=True)
            await asyncio.wait(self._tasks, timeout=0.5)
        self._check()

    def between(self, begin: float, end: float) -> dict[str, Any]:
        """Of tokens that came between two Unix times: ms to first ones, [ms, tokens] of others."""
        return {
            "ttft_ms": [1e3 * wait for at, wait in self._firsts if begin < at <= end],
            "itl_ms": [[1e3 * gap, n] for at, gap, n in self._gaps if begin < at <= end],
        }

    def _fill(self) -> None:
        while len(self._tasks) < self._outstanding and not self._stopped:
            self._send()

    def _send(self) -> None:
        task = asyncio.get_running_loop().create_task(self._one(next(self._requests)))
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if task.cancelled():
            return
        # What is aborted may end in an error, or not.
        error = task.exception()
        if error is not None and not self._stopped:
            self._failed = error
        self._fill()

    def _check(self) -> None:
        if self._failed is not None:
            raise RuntimeError(f"a request failed: {self._failed!r}") from self._failed

    async def _one(self, request: dict[str, Any]) -> None:
        sampling = {"temperature": 0, "max_new_tokens": request["new"], "ignore_eos": True}
        sent = before = time.time() - self._lost
        had = 0
        stream = await self._engine.async_generate(
            input_ids=request["ids"], sampling_params=sampling, stream=True
        )
        async for chunk in stream:
            at, has = time.time(), int(chunk["meta_info"]["completion_tokens"])
            now = at - self._lost
            if not had and has:
                self._firsts.append((at, now - sent))
            elif has > had:
                # Tokens of one chunk share the time since the chunk before.
                self._gaps.append((at, (now - before) / (has - had), has - had))
            before, had = now, has
        if had != request["new"] and not self._stopped:
            raise RuntimeError(f"asked for {request['new']} tokens, got {had}")
