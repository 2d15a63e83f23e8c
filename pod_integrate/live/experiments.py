"""Live experiments of one layer group: two configs on neighbouring layers of one step.

All layers of a step attend the same lengths, under the same load and clocks: neighbours run
baseline and candidate, which of them goes first changes from step to step, and the median of a
step's ratios is one Pair. Other steps run one config.

The serving thread begins steps and gets their times; another thread adds experiments, takes pairs
and ends experiments.
"""

from __future__ import annotations

import functools
import math
import statistics
from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple

from pod_integrate.devices.call import Attention, Result
from pod_integrate.devices.clock import Clock
from pod_integrate.live.budget import Budget
from pod_integrate.live.shadow import Attend
from pod_integrate.live.verify import Lengths
from pod_integrate.terms import wire
from pod_integrate.terms.experiment import (
    HOPELESS,
    HOPELESS_STEPS,
    Experiment,
    Pair,
    StepLengths,
)
from pod_integrate.terms.keys import Bucket

# Pairs that are worth a report before an experiment is over.
REPORT_PAIRS = 4
# Steps of a bucket whose captured grid cannot hold the candidate, before any that could.
NO_ROOM_STEPS = 32


class Arms(NamedTuple):
    """What an experiment compares, loaded."""

    baseline: Attention
    candidate: Attention


class LiveExperiment:
    """One experiment at work.

    experiment  as the tuner asked
    layers      attention calls of its last step
    ended       why no more steps are taken; empty while it goes on
    infeasible  it ended because no step of this bucket can run the candidate
    wake        called when there is something to report
    """

    def __init__(
        self, experiment: Experiment, arms: Arms, wake: Callable[[], None] = lambda: None
    ) -> None:
        self.experiment, self.arms, self._wake = experiment, arms, wake
        self.bucket = Bucket.parse(experiment.bucket)
        self.pairs: deque[Pair] = deque()
        self.layers = 0
        self.ended = ""
        self.mismatch = ""
        self.infeasible = False
        self.begun = self._measured = 0
        self._slow = self._without_room = 0

    @property
    def wants_steps(self) -> bool:
        """Whether another step should be measured."""
        return not self.ended and self.begun < self.experiment.steps

    @property
    def measured_all(self) -> bool:
        """Whether as many steps were measured as were asked for."""
        return self._measured >= self.experiment.steps

    def begin(self, lengths: Lengths, clock: Clock, budget: Budget) -> ExperimentStep:
        """A step of this experiment; every other one begins with the candidate."""
        self.begun += 1
        return ExperimentStep(self, lengths, clock, budget, swapped=self.begun % 2 == 0)

    def lack_room(self) -> None:
        """A step replays a graph whose grid has no room for the candidate's KV split."""
        self._without_room += 1
        if not self.begun and self._without_room >= NO_ROOM_STEPS:
            self.infeasible = True
            split = self.arms.candidate.config.decode_split_tokens
            self.ended = f"the captured grid has no room for decode_split_tokens {split}"
            self._wake()

    def take(self, pair: Pair | None, layers: int) -> None:
        """A step has ended with a pair, or without one because a time was lost."""
        if pair is None:
            self.begun -= 1
            if layers < 2:
                self.ended = "its steps have no two layers to compare"
            return
        self.layers = layers
        self._measured += 1
        self.pairs.append(pair)
        self._give_up(pair)
        if self.ended or self.measured_all or len(self.pairs) >= REPORT_PAIRS:
            self._wake()

    def _give_up(self, pair: Pair) -> None:
        """End it where the candidate loses that much; what is in force anyway is watched on."""
        if self._measured > HOPELESS_STEPS or self.experiment.guards:
            return
        self._slow += pair.candidate_us > HOPELESS * pair.baseline_us
        if self._slow == HOPELESS_STEPS:
            self.ended = f"slower by {HOPELESS:g} times"


class ExperimentStep:
    """One step of an experiment while its layers run, and until their times are known.

    swapped  the first layer runs the candidate
    """

    def __init__(
        self, live: LiveExperiment, lengths: Lengths, clock: Clock, budget: Budget, *, swapped: bool
    ) -> None:
        self.live, self._lengths, self._swapped = live, lengths, swapped
        self._clock, self._budget = clock, budget
        self._seconds: list[float | None] = []
        # More than were timed, where only some are.
        self._layers = 0
        self._owed, self._closed = 0, False

    def run(self, attend: Attend) -> Result:
        """One layer, with the config whose turn it is."""
        position = len(self._seconds)
        self._seconds.append(None)
        mark = self._clock.start()
        result = attend(self.arm(position), None)
        self._owed += 1
        self._clock.stop(mark, functools.partial(self._timed, position))
        return result

    def arm(self, position: int) -> Attention:
        """Whose turn the layer at `position` is."""
        return self.live.arms[(position + self._swapped) % 2]

    def close(self) -> None:
        """All layers have been called."""
        self._closed = True
        self._settle()

    def timed(self, seconds: Sequence[float], *, layers: int) -> None:
        """All `layers` ran elsewhere, such as in a captured graph; some took so long.

        seconds  of pairs of neighbours, those of even position first; none when they were lost
        """
        self._seconds, self._layers = list(seconds), layers
        self.close()

    def _timed(self, position: int, seconds: float | None) -> None:
        self._seconds[position] = seconds
        self._owed -= 1
        self._settle()

    def _settle(self) -> None:
        if not self._closed or self._owed:
            return
        known = [s for s in self._seconds if s is not None]
        pair = None
        if len(known) == len(self._seconds):
            pair = pair_of(known, swapped=self._swapped, digest=StepLengths(*self._lengths).digest)
        layers = max(self._layers, len(self._seconds))
        self.live.take(pair, layers)
        if pair is not None:
            excess = pair.candidate_us - pair.baseline_us
            if not self.live.experiment.guards:
                self._budget.lose(excess * 1e-6 * (layers // 2))


def pair_of(seconds: Sequence[float], *, swapped: bool, digest: str) -> Pair | None:
    """One step's observation from the times of its layers in their order.

    None where there are no two layers, or a time is none. The median leaves out what is special
    about some layers, such as a step's first one, which plans the batch.
    """
    sides = seconds[0::2], seconds[1::2]
    baseline, candidate = reversed(sides) if swapped else sides
    least, most = wire.MIN_TIMED_MICROS * 1e-6, wire.MAX_MICROS * 1e-6
    both = list(zip(baseline, candidate, strict=False))
    if not both or not all(least <= s <= most for s in seconds):
        return None
    ratio = statistics.median(math.log(c / b) for b, c in both)
    middle = statistics.median(b for b, _ in both) * 1e6
    other = min(max(middle * math.exp(ratio), wire.MIN_TIMED_MICROS), wire.MAX_MICROS)
    return Pair(middle, other, digest)


# Buckets that are remembered until somebody asks, who may be busy compiling for minutes.
MOST_SEEN = 4096


class Seen(NamedTuple):
    """Live steps of one bucket since somebody last asked.

    lengths  of the last one
    tiles    those that its graph was captured with, by name; empty where it ran eagerly
    """

    steps: int
    lengths: Lengths
    tiles: str = ""


class Experiments:
    """The experiments of one layer group, at most one in each bucket."""

    def __init__(self, budget: Budget) -> None:
        self.budget = budget
        self.running: dict[Bucket, LiveExperiment] = {}
        self._seen: dict[Bucket, Seen] = {}

    def see(self, bucket: Bucket, lengths: Lengths, tiles: str = "") -> LiveExperiment | None:
        """A live step begins; the experiment that wants such a step, if any.

        Whoever can run both of its configs now asks `draw` whether this is to be one.

        tiles  those of its graph, where it replays one
        """
        self.budget.count()
        before = self._seen.get(bucket)
        if before is not None or len(self._seen) < MOST_SEEN:
            self._seen[bucket] = Seen(1 if before is None else before.steps + 1, lengths, tiles)
        live = self.running.get(bucket)
        return live if live is not None and live.wants_steps else None

    def draw(self, live: LiveExperiment) -> bool:
        """Whether the step that was just seen is one of `live`; the budget pays for it then."""
        return self.budget.draw(guards=live.experiment.guards)

    def take_seen(self) -> dict[Bucket, Seen]:
        """Buckets since the last call; for the other thread."""
        seen, self._seen = self._seen, {}
        # A copy in one go: the serving thread may still be adding to this one.
        return dict(seen)
