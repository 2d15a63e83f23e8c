"""Clocks whose time tests set: one that stands still between calls, and a GPU's stream."""

from __future__ import annotations

from collections.abc import Sequence

from pod_integrate.devices.clock import EventClock, Into, Mark, WallClock
from pod_integrate.devices.graph_timer import timed_positions


class HandClock(WallClock):
    """Moves when a test says so."""

    def __init__(self) -> None:
        self.now = 0.0

    def start(self) -> Mark:
        return self.now

    def stop(self, mark: Mark, into: Into) -> None:
        into(self.now - mark)


class Stream:
    """What a GPU does behind the host's back: queued work ends when a test lets it.

    queued  device time at which all work queued so far will have ended
    done    device time now
    """

    def __init__(self) -> None:
        self.queued = self.done = 0.0
        self.events: list[Event] = []

    def clock(self) -> EventClock:
        return EventClock(self.event)

    def event(self) -> Event:
        self.events.append(Event(self))
        return self.events[-1]

    def work(self, seconds: float) -> None:
        self.queued += seconds

    def catch_up(self) -> None:
        self.done = self.queued


class Event:
    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self.at: float | None = None

    def record(self) -> None:
        self.at = self._stream.queued

    def query(self) -> bool:
        # One that was never recorded counts as ended, as CUDA's do.
        return self.at is None or self.at <= self._stream.done

    def elapsed_time(self, end: Event) -> float:
        if self.at is None or end.at is None or not (self.query() and end.query()):
            raise RuntimeError("event not recorded, or not ended")
        return (end.at - self.at) * 1e3


class StreamTimer:
    """A GraphTimer whose stamps are times of a Stream; every call stands for a replay's."""

    def __init__(self, stream: Stream, layers: Sequence[int]) -> None:
        self._stream = stream
        self._timed = {layers[place] for place in timed_positions(len(layers))}
        self._begun: list[float] = []
        self._slots: dict[int, list[float]] = {}

    def start(self, layer: int) -> Mark | None:
        self._begun.append(self._stream.queued)
        return layer if layer in self._timed else None

    def stop(self, mark: Mark) -> None:
        # The slot that was armed last; before the first, nothing is written.
        if self._slots:
            self._slots[len(self._slots)].append(self._stream.queued - self._begun[-1])

    def arm(self) -> int:
        self._slots[len(self._slots) + 1] = []
        return len(self._slots)

    def seconds(self, slot: int) -> float | None:
        times = self._slots[slot]
        return sum(times) / len(times) if times else None
