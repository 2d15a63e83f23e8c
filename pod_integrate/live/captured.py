"""Captured decode steps: what a replay of one batch size may run, and what it does."""

from __future__ import annotations

import dataclasses
import functools
from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple

from pod_integrate.devices.call import Attention
from pod_integrate.devices.cuda.choices import tiles_name
from pod_integrate.devices.graph_timer import SLOTS, GraphTimer
from pod_integrate.terms.config import PodConfig
from pod_integrate.terms.keys import Bucket


@dataclasses.dataclass(eq=False)
class Captured:
    """How the layers of one group were captured at one batch size.

    attention  that was captured. It is kept: the graph launches it even where its config is
               refused or dropped meanwhile, by the thread that prepares configs
    timer      None where nothing is recorded
    warm       whether it was replayed: what the first one takes (an upload) says nothing
    """

    attention: Attention
    timer: GraphTimer | None
    warm: bool = False

    @property
    def config(self) -> PodConfig:
        """Whose tiles the graph launches; what it runs where nothing else is known."""
        return self.attention.config

    @functools.cached_property
    def tiles(self) -> str:
        """Name of its tiles for the tuner."""
        return tiles_name(self.config)

    def has_tiles_of(self, config: PodConfig) -> bool:
        """Whether a plan is all that `config` needs of the graph to be run by it."""
        mine = self.config
        return config is mine or (
            config.decode == mine.decode
            and config.prefill == mine.prefill
            and config.ctas_per_sm == mine.ctas_per_sm
            and config.virtual_decode == mine.virtual_decode
        )


class ReplayStep(NamedTuple):
    """A live step that replays a graph.

    lengths, bucket  of its requests, without the rows that its batch size was padded with
    """

    lengths: tuple[list[int], list[int]]
    bucket: Bucket


# Whether the captured grid has room for a batch in decode items of at most so many keys.
Holds = Callable[[int], bool]


class Replay(NamedTuple):
    """What a replay runs.

    config  of layers of even position, and of the others too unless `second` is one
    stamp   row of the timer, from 1; 0: nothing is timed
    """

    config: PodConfig
    second: PodConfig | None = None
    stamp: int = 0


# Told once: seconds of the layers that were timed, in pairs of neighbours; none when some are lost.
Timed = Callable[[Sequence[float]], None]
# Times that settle is called before a row of stamps is given up; a step calls twice at most, so
# the row was not armed again until then.
_MOST_WAITS = SLOTS


@dataclasses.dataclass(slots=True)
class _Waiting:
    timer: GraphTimer
    slot: int
    timed: Timed
    waits: int = 0


class StampedSteps:
    """Replays whose layers are timed by stamps, until all of them are there; never waits."""

    def __init__(self) -> None:
        self._waiting: deque[_Waiting] = deque()

    def add(self, timer: GraphTimer, timed: Timed) -> int:
        """Arm the next replay of `timer`'s graph; the stamp for its plan."""
        slot = timer.arm()
        self._waiting.append(_Waiting(timer, slot, timed))
        return slot

    def settle(self) -> None:
        """Tell what has become known."""
        while self._waiting:
            first = self._waiting[0]
            seconds = first.timer.each(first.slot)
            first.waits += 1
            if seconds is None and first.waits < _MOST_WAITS:
                return
            self._waiting.popleft()
            first.timed(seconds or [])
