"""Interleaved pairs: two ways to do one thing, timed in turns so that both see the same machine."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import NamedTuple

from pod_integrate.devices.timer import Timer, wall_seconds


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
