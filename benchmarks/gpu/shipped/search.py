"""The best config of one bucket beside the default's tiles, proven on steps it was not chosen on.

Every config of a small grid is screened on a few steps; the best of them are then timed beside the
default on fresh ones, each step one observation, and judged as the tuner judges its own candidates.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from benchmarks.gpu.common.machines import Backend
from benchmarks.gpu.common.timing import ColdTimer
from benchmarks.gpu.truth import grid as grids
from benchmarks.gpu.truth.grid import Grid
from benchmarks.gpu.truth.measure import Measured, Steps, check, measure
from pod_integrate.devices.cuda.choices import tiles_name
from pod_integrate.model.batches import Lengths
from pod_integrate.terms.config import PodConfig
from pod_integrate.terms.keys import Bucket, Geometry
from tuner.messages import Pair, Proof
from tuner.search.judge import Verdict, judge

# A bucket's chance of a table entry whose median speed-up is at most 1, shared by its finalists.
ALPHA = 0.01
# Less is not worth a table entry.
LEAST_SPEEDUP = 1.015
_FINALISTS = 3


class Effort(NamedTuple):
    """How much a bucket gets.

    screened   steps that the whole grid runs on, once
    confirmed  fresh steps at most that finalists run on
    rounds     over finalists on each of those
    """

    screened: int = 3
    confirmed: int = 28
    rounds: int = 3


TINY = Effort(screened=1, confirmed=2, rounds=1)


class Found(NamedTuple):
    """Of one bucket. `entry`: the config that goes into the table and its proof, or None."""

    entry: tuple[PodConfig, Proof] | None
    document: dict[str, Any]


def grid_of(default: PodConfig, bucket: Bucket, *, tiny: bool) -> Grid:
    """All that needs no build of its own and means something in a bucket."""
    grid = Grid(
        tiles=(tiles_name(default),),
        ratios=((0, 0), (1, 1), (4, 1), (1, 2)),
        waves=(0, 1),
        splits=(1024, 2048, 4096, 8192, 0),
        strategies=("fused", "serial", "streams"),
    )
    if tiny:
        grid = grid._replace(ratios=grid.ratios[:2], waves=(0,), splits=(0, 256))
    # One op alone is the same launch, whatever the ratio and the strategy.
    return grid if bucket.is_hybrid else grid._replace(ratios=((0, 0),), strategies=("fused",))


class BucketSearch:
    """One bucket's steps on a machine.

    features  of the geometry that every call is told: window_left, logit_cap
    """

    def __init__(
        self, machine: Backend, timer: ColdTimer, geometry: Geometry, default: PodConfig,
        steps: Sequence[Lengths],
    ) -> None:  # fmt: skip
        self._machine, self._timer, self.default = machine, timer, default
        self._geometry, self._lengths = geometry, steps
        self._steps = Steps(machine, geometry, steps)
        self.features = {"window_left": geometry.window_left, "logit_cap": geometry.logit_cap}

    def screen(self, configs: Sequence[PodConfig], steps: int) -> dict[PodConfig, float]:
        """Time over the default's of each distinct config, the mean over the first steps."""
        first = self._lengths[:steps]
        stands = grids.rows([self.default, *configs], first, self._geometry, self._machine.sms)
        distinct = [c for c in dict.fromkeys(stands.values()) if c != stands[self.default]]
        over: dict[PodConfig, list[float]] = {config: [] for config in distinct}
        for number in range(steps if distinct else 0):
            measured = self._measure(number, distinct, rounds=1)
            for config, ratio in zip(distinct, _ratios(measured), strict=True):
                over[config].append(ratio)
        return {config: statistics.fmean(ratios) for config, ratios in over.items()}

    def wrong(self, configs: Sequence[PodConfig]) -> dict[PodConfig, str]:
        """Configs that answer something else than the default on the first step, and what."""
        case = self._steps.case(0)
        return check(self._machine, case, self.default, configs, self.features)

    def pairs(self, number: int, configs: Sequence[PodConfig], rounds: int) -> list[list[Pair]]:
        """Interleaved pairs of each config with the default on one step."""
        measured = self._measure(number, configs, rounds)
        return [
            [Pair(default, mine, f"step {number}") for default, mine in zip(*sides, strict=True)]
            for sides in zip(measured.default, measured.candidate, strict=True)
        ]

    def _measure(self, number: int, configs: Sequence[PodConfig], rounds: int) -> Measured:
        case = self._steps.case(number)
        return measure(
            *(self._timer, self._machine, case, self.default, configs, rounds), self.features
        )


def find(search: BucketSearch, grid: Grid, effort: Effort, until: float) -> Found:
    """Screen, then prove the best; `until` (time.monotonic) ends it without an entry."""
    screened = search.screen(grid.configs(search.default), effort.screened)
    best_few = _fastest_first(screened)[:_FINALISTS]
    finalists = [config for config, over in best_few if over * LEAST_SPEEDUP < 1]
    wrong = search.wrong(finalists)
    finalists = [config for config in finalists if config not in wrong]
    pairs: dict[PodConfig, list[Pair]] = {config: [] for config in finalists}
    verdicts: dict[PodConfig, Verdict] = {}
    for number in range(effort.screened, effort.screened + effort.confirmed):
        open_still = [config for config in finalists if config not in verdicts]
        if not open_still or time.monotonic() > until:
            break
        for config, taken in zip(
            open_still, search.pairs(number, open_still, effort.rounds), strict=True
        ):
            pairs[config] += taken
        verdicts |= _decided(pairs, open_still, len(finalists), effort.confirmed)
    proven = {c: v.proof for c, v in verdicts.items() if v.outcome == "better"}
    best = max(proven, key=lambda config: proven[config].speedup or 0.0, default=None)
    document = {
        "default": search.default.short(),
        "screened": {c.short(): round(ratio, 4) for c, ratio in _fastest_first(screened)},
        "wrong": {config.short(): text for config, text in wrong.items()},
        "finalists": {c.short(): _told(pairs[c], verdicts.get(c)) for c in finalists},
        "entry": None if best is None else best.short(),
    }
    return Found(None if best is None else (best, proven[best]), document)


def _decided(
    pairs: Mapping[PodConfig, Sequence[Pair]], asked: Sequence[PodConfig], finalists: int, most: int
) -> dict[PodConfig, Verdict]:
    """Verdicts of those that need no more steps."""
    verdicts = {
        config: judge(
            pairs[config],
            alpha=ALPHA / finalists,
            min_speedup=LEAST_SPEEDUP,
            max_steps=most,
        )
        for config in asked
    }
    return {config: v for config, v in verdicts.items() if v.outcome != "open"}


def _fastest_first(over: Mapping[PodConfig, float]) -> list[tuple[PodConfig, float]]:
    return sorted(over.items(), key=lambda item: item[1])


def _told(pairs: Sequence[Pair], verdict: Verdict | None) -> dict[str, Any]:
    """Evidence for people and for whoever judges again: every pair's times in us, by step."""
    steps: dict[str, list[str]] = {}
    for pair in pairs:
        times = f"{pair.baseline_us:.1f}/{pair.candidate_us:.1f}"
        steps.setdefault(str(pair.batch).removeprefix("step "), []).append(times)
    said = ("open", "the time was over") if verdict is None else verdict[:2]
    proof = None if verdict is None else verdict.proof._asdict()
    return {
        "outcome": said[0],
        "reason": said[1],
        "proof": proof,
        "pairs_us": {number: " ".join(times) for number, times in steps.items()},
    }


def _ratios(measured: Measured) -> list[float]:
    return [
        float(np.median(np.divide(candidate, default)))
        for candidate, default in zip(measured.candidate, measured.default, strict=True)
    ]
