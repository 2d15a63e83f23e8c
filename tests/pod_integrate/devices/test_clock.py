"""Clocks never wait, never mix up steps, and give up what will not be known."""

from __future__ import annotations

import pytest
import torch
from clock_support import Stream

from pod_integrate.devices import clock
from pod_integrate.devices.clock import EventClock, WallClock, clock_of, stride_of


def test_a_cpu_has_a_wall_clock_and_a_gpu_one_of_events() -> None:
    assert isinstance(clock_of(torch.device("cpu")), WallClock)
    assert isinstance(clock_of(torch.device("cuda", 0)), EventClock)


def test_wall_time_is_known_at_once() -> None:
    heard: list[float | None] = []
    watch = WallClock()
    watch.stop(watch.start(), heard.append)
    assert len(heard) == 1 and heard[0] is not None and 0 <= heard[0] < 60
    assert watch.graph_timer([0, 1]) is None


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


@pytest.mark.parametrize(("layers", "timed"), [(1, 1), (4, 4), (7, 7), (8, 4), (32, 4), (61, 4)])
def test_a_handful_of_layers_is_timed_spread_over_all(layers: int, timed: int) -> None:
    stream = Stream()
    timer = stream.clock().graph_timer(range(layers))
    assert timer is not None
    marks = [mark for layer in range(layers) if (mark := timer.start(layer)) is not None]
    assert len(marks) == timed and len(stream.events) == 2 * timed
    assert all(event.external for event in stream.events)
    assert {b - a for a, b in zip(marks, marks[1:], strict=False)} <= {stride_of(layers)}


def replay(stream: Stream, pairs: list[tuple[clock.Mark, clock.Mark]], seconds: float) -> None:
    """Records a graph's events anew, as a replay does."""
    for begin, end in pairs:
        begin.record()
        stream.work(seconds)
        end.record()
        stream.work(10 * seconds)


def captured(stream: Stream, layers: int) -> tuple[clock.GraphTimer, list[tuple[object, object]]]:
    timer = stream.clock().graph_timer(range(layers))
    assert timer is not None
    for layer in range(layers):
        timer.stop(timer.start(layer))
    return timer, list(zip(stream.events[::2], stream.events[1::2], strict=True))


def test_a_graph_tells_the_time_of_its_last_replay() -> None:
    stream = Stream()
    timer, pairs = captured(stream, 3)
    for seconds in (1e-3, 3e-3):
        replay(stream, pairs, seconds)
        stream.catch_up()
        assert timer.seconds() == pytest.approx(seconds)


def test_a_graph_under_way_tells_of_layers_that_have_ended_and_never_nonsense() -> None:
    stream = Stream()
    timer, pairs = captured(stream, 4)
    replay(stream, pairs, 1e-3)
    stream.catch_up()
    replay(stream, pairs, 1e-3)
    # The device stands in the third layer: two are new, two still hold the last replay's end.
    stream.done = pairs[2][0].at
    assert timer.seconds() == pytest.approx(1e-3)
    stream.done = 0.0
    assert timer.seconds() is None


def test_a_graph_that_was_never_replayed_has_no_time() -> None:
    stream = Stream()
    timer, pairs = captured(stream, 2)
    for begin, end in pairs:
        begin.at = end.at = None
    assert timer.seconds() is None


def test_without_event_nodes_in_torch_graphs_are_not_timed() -> None:
    assert EventClock(lambda: Stream().event()).graph_timer([0]) is None
