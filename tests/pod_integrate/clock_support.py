"""Clocks whose time tests set: one that stands still between calls, and a GPU's stream."""

from __future__ import annotations

from pod_integrate.devices.clock import EventClock, Into, Mark, WallClock


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

    def event(self, *, external: bool = False) -> Event:
        self.events.append(Event(self, external))
        return self.events[-1]

    def work(self, seconds: float) -> None:
        self.queued += seconds

    def catch_up(self) -> None:
        self.done = self.queued


class Event:
    def __init__(self, stream: Stream, external: bool) -> None:
        self._stream = stream
        self.external = external
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
