"""Times of calls on a device: cold L2, device events, medians."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch

from benchmarks.gpu.common.machines import Backend
from pod_integrate.devices.cuda.timer import event_pair, head_start

_WARMUP = 3
_MIN_FLUSH_BYTES = 256 << 20
# A call has less to queue than many calls, and the flush gives a head start of its own.
_HEAD_START_CYCLES = 150_000

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
        """Microseconds of one call after the other, every one on a cold L2; waits for the last."""
        if self._machine.tiny:
            return [_host_us(call) for call in calls]
        self._machine.synchronize()
        marks = [event_pair() for _ in calls]
        for call, (begin, end) in zip(calls, marks, strict=True):
            head_start(_HEAD_START_CYCLES)
            # Read, not written: dirty lines would be written back during the call.
            self._buffer.sum()
            begin.record()
            call()
            end.record()
        self._machine.synchronize()
        return [begin.elapsed_time(end) * 1e3 for begin, end in marks]


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
