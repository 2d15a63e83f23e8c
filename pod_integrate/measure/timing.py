"""Interleaved pairs: two ways to do one thing, timed in turns so that both see the same machine."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import torch

Timer = Callable[[Callable[[], object]], float]
# Long enough for the host to queue some calls behind it.
_HEAD_START_CYCLES = 1_000_000


class Pairs(NamedTuple):
    """Seconds of each call, in order; pair i holds first[i] and second[i]."""

    first: list[float]
    second: list[float]

    @property
    def ratios(self) -> list[float]:
        """first / second of each pair: above 1 the second is faster."""
        return [a / b for a, b in zip(self.first, self.second, strict=True)]

    @property
    def ratio(self) -> float:
        """Median of first / median of second."""
        return statistics.median(self.first) / statistics.median(self.second)


def wall_seconds(call: Callable[[], object]) -> float:
    """Seconds that a call takes on the host."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def gpu_seconds(call: Callable[[], object]) -> float:
    """Seconds between the first and the last kernel that a call queues on the current stream.

    The stream waits until the host has queued some of them, so that the host's own time does not
    count. Waits for the stream.
    """
    # torch leaves both untyped.
    event: Any = torch.cuda.Event
    sleep: Any = torch.cuda._sleep
    start, end = event(enable_timing=True), event(enable_timing=True)
    sleep(_HEAD_START_CYCLES)
    start.record()
    call()
    end.record()
    end.synchronize()
    return float(start.elapsed_time(end)) / 1e3


def timer_of(device: torch.device) -> Timer:
    """What times calls on a device."""
    return gpu_seconds if device.type == "cuda" else wall_seconds


def interleaved_pairs(
    first: Callable[[], object],
    second: Callable[[], object],
    *,
    pairs: int,
    warmup: int = 1,
    budget_s: float | None = None,
    timer: Timer = wall_seconds,
) -> Pairs:
    """Time `pairs` pairs of calls, order swapped every pair, after `warmup` untimed pairs.

    budget_s  stop early, with at least three pairs, once this many seconds were spent
    timer     default wall_seconds
    """
    for _ in range(warmup):
        first()
        second()
    times: tuple[list[float], list[float]] = ([], [])
    began = time.perf_counter()
    for i in range(pairs):
        for side in (0, 1) if i % 2 == 0 else (1, 0):
            times[side].append(timer((first, second)[side]))
        if budget_s is not None and i >= 2 and time.perf_counter() - began > budget_s:
            break
    return Pairs(*times)
