"""Clock: how long work takes on the device that runs it, without ever waiting for that device.

On a CPU a call has ended when it returns, so its time is known at once. On a GPU a call returns
when its work is queued: events are recorded around it on the stream, and what lay between them is
asked for some steps later. What is not known by then is given up, never waited for.

A clock belongs to one serving thread.
"""

from __future__ import annotations

import abc
import functools
import time
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple

import torch

# Called once with seconds; None: they will never be known.
Into = Callable[[float | None], None]
# More under way than this means that nobody harvests, or that a stream stands still.
_MOST_PENDING = 4096

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


class _Pending(NamedTuple):
    begin: Any
    end: Any
    into: Into


class EventClock(Clock):
    """For GPUs: pairs of events on the current stream, kept and used again.

    make_event  makes one; torch's own by default
    """

    spares_layers = True

    def __init__(self, make_event: Callable[..., Any] | None = None) -> None:
        # torch leaves Event untyped.
        self._make = make_event or functools.partial(torch.cuda.Event, enable_timing=True)
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

    def _record(self) -> Any:
        event = self._free.pop() if self._free else self._make()
        event.record()
        return event

    def _drop(self, lost: _Pending) -> None:
        # Not used again: the device may still reach them.
        lost.into(None)
