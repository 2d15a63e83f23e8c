"""Calls that a slow host queues too late for the GPU are measured again, not counted."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from benchmarks.gpu.common import timing
from benchmarks.gpu.common.timing import ColdTimer


class Clock:
    """A stream and its host: the GPU waits for `cycles`, then for the host where that is later.

    host_us  that each call takes to queue, in turn; its kernels take 10 us
    """

    def __init__(self, host_us: list[float]) -> None:
        self.host, self.gpu, self.host_us = 0.0, 0.0, list(host_us)
        self.head_starts: list[int] = []

    def head_start(self, cycles: int) -> None:
        self.head_starts.append(cycles)
        self.gpu = max(self.gpu, self.host) + cycles / 2000

    def call(self) -> None:
        self.host += self.host_us.pop(0) if self.host_us else 1.0
        self.gpu = max(self.gpu, self.host) + 10

    def event_pair(self) -> tuple[Event, Event]:
        return Event(self), Event(self)

    def synchronize(self) -> None:
        self.host = self.gpu = max(self.host, self.gpu)


class Event:
    """When the stream came by."""

    def __init__(self, clock: Clock) -> None:
        self.clock, self.at = clock, 0.0

    def record(self) -> None:
        self.at = max(self.clock.gpu, self.clock.host)

    def query(self) -> bool:
        return self.at <= self.clock.host

    def elapsed_time(self, end: Event) -> float:
        return (end.at - self.at) / 1e3


def timer_of(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> ColdTimer:
    """A timer of calls that `clock` measures."""
    machine: Any = SimpleNamespace(tiny=False, device="cpu", synchronize=clock.synchronize)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: SimpleNamespace())
    monkeypatch.setattr(timing, "_MIN_FLUSH_BYTES", 1 << 10)
    monkeypatch.setattr(timing, "head_start", clock.head_start)
    monkeypatch.setattr(timing, "event_pair", clock.event_pair)
    return ColdTimer(machine, 4)


def test_calls_that_the_host_queues_in_time_are_measured_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = Clock([5.0, 50.0, 60.0])
    found = timer_of(clock, monkeypatch).each([clock.call] * 3)
    assert found == pytest.approx([10.0] * 3) and len(clock.head_starts) == 3


def test_late_calls_are_measured_again_behind_a_longer_head_start(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # 150,000 cycles are 75 us here. Of four calls two are late, one of them twice.
    clock = Clock([5.0, 400.0, 200.0, 5.0, 500.0])
    found = timer_of(clock, monkeypatch).each([clock.call] * 4)
    assert found == pytest.approx([10.0] * 4)
    assert clock.head_starts == [150_000] * 4 + [300_000] * 2 + [600_000]


def test_a_host_that_is_never_in_time_does_not_keep_on_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = Clock([1e6] * 99)
    with pytest.warns(RuntimeWarning, match="1 of 1 calls were queued late 5 times"):
        (found,) = timer_of(clock, monkeypatch).each([clock.call])
    assert found > 1e5 and len(clock.head_starts) == 5
