"""Times of calls on a device: cold L2, device events, medians.

A GPU that waits for a slow host would count the host's time, and most of it for what has the most
launches. So a call is measured again, behind a longer head start, unless all of it was queued
before the GPU came to its begin. One that never is keeps its last time, with a warning.
"""

from __future__ import annotations

import statistics
import time
import warnings
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch

from benchmarks.gpu.common.machines import Backend
from pod_integrate.devices.cuda.timer import event_pair, head_start

_WARMUP = 3
_MIN_FLUSH_BYTES = 256 << 20
# A call has less to queue than many calls, and the flush gives a head start of its own. The second
# number is of times that a call is measured, each behind twice the cycles.
_HEAD_START_CYCLES, _TRIES = 150_000, 5

Call = Callable[[], object]


class Timing(NamedTuple):
    """Of one call in microseconds, over `repeats` calls."""

    median_us: float
    p5_us: float
    p95_us: float
    repeats: int


class ColdTimer:
    """Times calls on one backend; reads through a large buffer before each of them."""

    def __init__(self, machine: Backend, repeats: int) -> None:
        self._machine = machine
        self.repeats = repeats if not machine.tiny else 1
        self._buffer = torch.empty(0)
        if not machine.tiny:
            properties = torch.cuda.get_device_properties(machine.device)
            size = max(_MIN_FLUSH_BYTES, 4 * int(getattr(properties, "L2_cache_size", 0)))
            self._buffer = torch.ones(size // 4, device=machine.device)

    def time(self, call: Call) -> Timing:
        """Median of `repeats` calls after a warm-up; every call finds a cold L2."""
        if self._machine.tiny:
            return _summary(self.each([call]))
        for _ in range(_WARMUP):
            call()
        return _summary(self.each([call] * self.repeats))

    def each(self, calls: Sequence[Call]) -> list[float]:
        """Microseconds of one call after the other, every one on a cold L2; waits for the last.

        One that the host queued too late is measured again after all others, a few times at most;
        RuntimeWarning when some were late each time.
        """
        if self._machine.tiny:
            return [_host_us(call) for call in calls]
        found = [0.0] * len(calls)
        late = list(range(len(calls)))
        for attempt in range(_TRIES):
            marks = self._queue([calls[place] for place in late], _HEAD_START_CYCLES << attempt)
            for place, mark in zip(late, marks, strict=True):
                found[place] = mark.begin.elapsed_time(mark.end) * 1e3
            late = [place for place, mark in zip(late, marks, strict=True) if mark.late]
            if not late:
                return found
        warnings.warn(
            f"{len(late)} of {len(calls)} calls were queued late {_TRIES} times: their times hold "
            "the host's. Is it busy, or does the call wait for the device?",
            RuntimeWarning,
            stacklevel=2,
        )
        return found

    def _queue(self, calls: Sequence[Call], cycles: int) -> list[_Mark]:
        """Marks of each call behind a head start; waits for the last."""
        self._machine.synchronize()
        pairs, marks = [event_pair() for _ in calls], []
        for call, (begin, end) in zip(calls, pairs, strict=True):
            head_start(cycles)
            # Read, not written: dirty lines would be written back during the call.
            self._buffer.sum()
            begin.record()
            call()
            end.record()
            marks.append(_Mark(begin, end, begin.query()))
        self._machine.synchronize()
        return marks


class _Mark(NamedTuple):
    """Events around a call, and whether the GPU came to the first before the second was queued."""

    begin: torch.cuda.Event
    end: torch.cuda.Event
    late: bool


def _host_us(call: Call) -> float:
    began = time.perf_counter()
    call()
    return (time.perf_counter() - began) * 1e6


def _summary(microseconds: list[float]) -> Timing:
    ordered = sorted(microseconds)
    last = len(ordered) - 1
    low, high = ordered[round(0.05 * last)], ordered[round(0.95 * last)]
    median = statistics.median(ordered)
    return Timing(round(median, 2), round(low, 2), round(high, 2), len(ordered))
