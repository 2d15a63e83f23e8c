"""Clocks never wait, never mix up steps, and give up what will not be known."""

from __future__ import annotations

import pytest
import torch
from support.clock import Stream

from pod_integrate.devices import clock
from pod_integrate.devices.clock import EventClock, WallClock, stride_of
from pod_integrate.devices.cuda.device import CudaDevice
from pod_integrate.devices.registry import device_named


def test_a_cpu_has_a_wall_clock_and_a_gpu_one_of_events() -> None:
    assert isinstance(device_named("cpu").clock(), WallClock)
    assert isinstance(CudaDevice(torch.device("cuda", 0)).clock(), EventClock)


def test_wall_time_is_known_at_once() -> None:
    heard: list[float | None] = []
    watch = WallClock()
    watch.stop(watch.start(), heard.append)
    assert len(heard) == 1 and heard[0] is not None and 0 <= heard[0] < 60


def test_device_time_is_told_after_the_work_has_ended_and_not_before() -> None:
    stream, heard = Stream(), list[float | None]()
    watch = stream.clock()
    for seconds in (1e-3, 2e-3):
        mark = watch.start()
        stream.work(seconds)
        watch.stop(mark, heard.append)
        stream.work(5.0)
    watch.harvest()
    assert heard == []
    stream.catch_up()
    watch.harvest()
    assert heard == [pytest.approx(1e-3), pytest.approx(2e-3)]


def test_events_are_used_again() -> None:
    stream, heard = Stream(), list[float | None]()
    watch = stream.clock()
    for _ in range(50):
        mark = watch.start()
        stream.work(1e-3)
        watch.stop(mark, heard.append)
        watch.release(watch.start())
        stream.catch_up()
        watch.harvest()
    assert heard == [pytest.approx(1e-3)] * 50
    assert len(stream.events) <= 4


def test_a_stream_that_stands_still_costs_the_oldest_times_not_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(clock, "_MOST_PENDING", 3)
    stream, heard = Stream(), list[float | None]()
    watch = stream.clock()
    stream.work(1.0)
    for _ in range(5):
        watch.stop(watch.start(), heard.append)
    assert heard == [None, None]


@pytest.mark.parametrize(("layers", "stride"), [(1, 1), (4, 1), (7, 1), (8, 2), (32, 8), (61, 15)])
def test_a_handful_of_layers_is_timed(layers: int, stride: int) -> None:
    assert stride_of(layers) == stride
