"""Clock: how long work takes on the device that runs it, without ever waiting for that device.

On a CPU a call has ended when it returns, so its time is known at once. On a GPU a call returns
when its work is queued: events are recorded around it on the stream, and what lay between them is
asked for some steps later. What is not known by then is given up, never waited for.

A clock belongs to one serving thread.
"""

from __future__ import annotations

import abc
import inspect
import statistics
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch

# Called once with seconds; None: they will never be known.
Into = Callable[[float | None], None]
# More under way than this means that nobody harvests, or that a stream stands still.
_MOST_PENDING = 4096
# Beyond any step: two events of different replays.
_LONGEST_SECONDS = 600.0

# Of a step on a GPU: two events a layer cost some microseconds of host and device time.
TIMED_LAYERS = 4

Mark = Any


def stride_of(layers: int) -> int:
    """Every how many-th of `layers` layers is timed where timing costs."""
    return max(1, layers // TIMED_LAYERS)


class Clock(abc.ABC):
    """Times work between `start` and `stop`.

    spares_layers  whether timing costs so much that a step's layers should be timed in part
    """

    spares_layers: bool

    @abc.abstractmethod
    def start(self) -> Mark:
        """The moment at which work queued from now on begins."""

    @abc.abstractmethod
    def stop(self, mark: Mark, into: Into) -> None:
        """`into(seconds)` since `mark`, now or in a later `harvest`, in the order of the stops."""

    @abc.abstractmethod
    def release(self, mark: Mark) -> None:
        """Take back a mark that will not be stopped."""

    @abc.abstractmethod
    def harvest(self) -> None:
        """Hand out what has become known; returns at once."""

    @abc.abstractmethod
    def graph_timer(self, layers: Sequence[int]) -> GraphTimer | None:
        """A timer for one captured graph that attends in `layers`; None where there can be none."""


class WallClock(Clock):
    """For devices whose calls return when their work is done."""

    spares_layers = False

    def start(self) -> Mark:
        return time.perf_counter()

    def stop(self, mark: Mark, into: Into) -> None:
        into(time.perf_counter() - mark)

    def release(self, mark: Mark) -> None:
        """A mark is a number."""

    def harvest(self) -> None:
        """Nothing is ever open."""

    def graph_timer(self, layers: Sequence[int]) -> None:
        return None


class _Pending(NamedTuple):
    begin: Any
    end: Any
    into: Into


class EventClock(Clock):
    """For GPUs: pairs of events on the current stream, kept and used again.

    make_event  makes an event, called with external=True for one inside a graph; torch's own by
                default
    """

    spares_layers = True

    def __init__(self, make_event: Callable[..., Any] | None = None) -> None:
        self._make = make_event or _event_maker()
        self._free: list[Any] = []
        self._pending: deque[_Pending] = deque()

    def start(self) -> Mark:
        return self._record()

    def stop(self, mark: Mark, into: Into) -> None:
        if len(self._pending) >= _MOST_PENDING:
            self._drop(self._pending.popleft())
        self._pending.append(_Pending(mark, self._record(), into))

    def release(self, mark: Mark) -> None:
        self._free.append(mark)

    def harvest(self) -> None:
        # Events of a stream end in the order in which they were recorded.
        while self._pending and self._pending[0].end.query():
            begin, end, into = self._pending.popleft()
            seconds = begin.elapsed_time(end) * 1e-3
            self._free += (begin, end)
            into(seconds)

    def graph_timer(self, layers: Sequence[int]) -> GraphTimer | None:
        # Newer than the oldest torch that we run on.
        known = "external" in inspect.signature(self._make).parameters
        return GraphTimer(self._make, layers) if known else None

    def _record(self) -> Any:
        event = self._free.pop() if self._free else self._make()
        event.record()
        return event

    def _drop(self, lost: _Pending) -> None:
        # Not used again: the device may still reach them.
        lost.into(None)


class GraphTimer:
    """Times of some layers of one captured graph, from event nodes that every replay records.

    `start` and `stop` are called in the warm-ups before a capture and in the capture, and then
    never again; the events belong to the graph. A replay that is under way overwrites what the
    last one left, so a reading may come from two replays of the same graph, one step apart: a
    layer's pair that does not fit together is left out.
    """

    def __init__(self, make_event: Callable[..., Any], layers: Sequence[int]) -> None:
        self._make = make_event
        stride = stride_of(len(layers))
        # From the middle of the first stretch on: a step's first layer is not like the others.
        self._timed = frozenset(layers[stride // 2 :: stride])
        self._pairs: dict[int, tuple[Any, Any]] = {}

    def start(self, layer: int) -> Mark | None:
        """A mark for `stop` if this layer is timed: its beginning, on the current stream."""
        if layer not in self._timed:
            return None
        if layer not in self._pairs:
            self._pairs[layer] = self._make(external=True), self._make(external=True)
        self._pairs[layer][0].record()
        return layer

    def stop(self, mark: Mark) -> None:
        """The end of the layer that `mark` was taken for."""
        self._pairs[mark][1].record()

    def seconds(self) -> float | None:
        """One layer's time in the last replay, median over the timed ones; None: unreadable."""
        read = [s for begin, end in self._pairs.values() if (s := _between(begin, end)) is not None]
        # Not the mean: a pair of two replays is as long as a step.
        return statistics.median_low(read) if read else None


def _between(begin: Any, end: Any) -> float | None:
    if not (begin.query() and end.query()):
        return None
    try:
        seconds = float(begin.elapsed_time(end)) * 1e-3
    except RuntimeError:
        # A replay began in between, or the graph has not been replayed yet.
        return None
    return seconds if 0.0 <= seconds <= _LONGEST_SECONDS else None


def _event_maker() -> Callable[..., Any]:
    # torch leaves Event untyped.
    if "external" in inspect.signature(torch.cuda.Event.__new__).parameters:
        return lambda external=False: torch.cuda.Event(enable_timing=True, external=external)  # type: ignore[no-untyped-call]
    return lambda: torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]


def clock_of(device: torch.device) -> Clock:
    """The clock of a device."""
    return EventClock() if device.type == "cuda" else WallClock()
