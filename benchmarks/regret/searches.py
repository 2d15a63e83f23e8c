"""The searches that are compared: each is asked for a config and told what screening made of it."""

from __future__ import annotations

import abc
import functools
import math
from collections import deque
from collections.abc import Callable

import numpy as np
import optuna
from optuna.trial import TrialState

from benchmarks.regret.recorded import Places, Recorded
from pod_integrate.model.rank import rank
from pod_integrate.terms.config import PodConfig
from pod_integrate.terms.keys import Bucket
from tuner.search import space
from tuner.search.study import Study
from tuner.search.surrogate import SurrogateSampler

# Configs that the cost model is asked about, and how many of its best are tried first.
_RANKED, _FIRST = 96, 8
_ASKS = 64
# Random ones before a sampler learns, as in the tuner's study.
_STARTUP = 10


class Search(abc.ABC):
    """Proposes configs, none of them twice."""

    @abc.abstractmethod
    def ask(self) -> PodConfig | None:
        """The next one, None when there is nothing new."""

    @abc.abstractmethod
    def tell(self, config: PodConfig, value: float | None) -> None:
        """log(candidate time / default time); None: it could not be measured."""


class Shipped(Search):
    """The tuner's study, over the part of the space that was recorded."""

    def __init__(self, recorded: Recorded, seed: int) -> None:
        self.study = Study(
            recorded.geometry, recorded.device, bucket=Bucket.parse(recorded.bucket), trials=[],
            neighbours=[], seed=seed, choices=recorded.choices,
        )  # fmt: skip

    def ask(self) -> PodConfig | None:
        proposal = self.study.propose()
        return None if proposal is None else proposal.config

    def tell(self, config: PodConfig, value: float | None) -> None:
        self.study.tell(config, value)


class Sampled(Search):
    """An Optuna sampler after the default, and after configs that somebody thinks good."""

    def __init__(
        self, recorded: Recorded, sampler: optuna.samplers.BaseSampler, first: list[PodConfig]
    ) -> None:
        self._recorded = recorded
        self._distributions = space.distributions(recorded.choices)
        self._study = optuna.create_study(sampler=sampler)
        self._queue = deque([recorded.default, *first])
        self._tried: set[PodConfig] = set()
        self._trials: dict[PodConfig, optuna.Trial] = {}

    def ask(self) -> PodConfig | None:
        if self._queue:
            config = self._queue.popleft()
            self._study.enqueue_trial(space.encode(config, self._recorded.choices))
        for _ in range(_ASKS):
            trial = self._study.ask(self._distributions)
            config = space.decode(trial.params, self._recorded.default)
            if config not in self._tried:
                self._tried.add(config)
                self._trials[config] = trial
                return config
            self._study.tell(trial, state=TrialState.FAIL)
        return None

    def tell(self, config: PodConfig, value: float | None) -> None:
        trial = self._trials.pop(config)
        if value is None:
            self._study.tell(trial, state=TrialState.PRUNED)
        else:
            self._study.tell(trial, value)


@functools.lru_cache(maxsize=16)
def ranked(recorded: Recorded) -> list[PodConfig]:
    """The cost model's best of a sample of the space, the same one for every seed."""
    distributions = space.distributions(recorded.choices)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    drawn = (study.ask(distributions).params for _ in range(4 * _RANKED))
    configs = list(dict.fromkeys(space.decode(params, recorded.default) for params in drawn))
    best = rank(configs[:_RANKED], recorded.steps[:1], recorded.geometry, recorded.device)
    return [config for _, config in best[:_FIRST]]


def _tpe(seed: int) -> optuna.samplers.BaseSampler:
    return optuna.samplers.TPESampler(seed=seed)


def _gp(seed: int) -> optuna.samplers.BaseSampler:
    return optuna.samplers.GPSampler(seed=seed, n_startup_trials=_STARTUP)


# By name: of a bucket and a seed.
SEARCHES: dict[str, Callable[[Recorded, int], Search]] = {
    "study": Shipped,
    "random": lambda r, seed: Sampled(r, optuna.samplers.RandomSampler(seed=seed), []),
    "tpe": lambda r, seed: Sampled(r, _tpe(seed), []),
    "gp": lambda r, seed: Sampled(r, _gp(seed), []),
    "surrogate": lambda r, seed: Sampled(r, SurrogateSampler(seed, _STARTUP), []),
    "model first": lambda r, seed: Sampled(r, _tpe(seed), ranked(r)),
}


# Measured trials between two confirmations, as in the tuner's state.
_TRIALS_PER_LOOK = 8


def run(
    recorded: Recorded, search: Search, trials: int, seed: int, *, screen_steps: int, pairs: int
) -> list[tuple[float, float]]:
    """Regret after each trial: of the config that is in force, of the best one tried.

    Regret is the config's time over that of the fastest one recorded, less 1. Eight trials in a row
    are screened on the same steps, drawn in proportion to their time, as in the tuner. After each
    eight the one that looks best is confirmed, if it looks better than what is in force (the
    default at first): the two are compared on the steps that did not choose it, and that costs as
    many trials as have so many steps.
    """
    rng = np.random.default_rng(seed)
    force = _Force(recorded, rng, pairs)
    tried = force.truth
    found: list[tuple[float, float]] = []
    measured = 0
    while len(found) < trials:
        config = search.ask()
        if config is None:
            break
        row = recorded.row(config)
        if row is None:
            search.tell(config, None)
            continue
        if measured % _TRIALS_PER_LOOK == 0:
            weights = recorded.weights
            steps = rng.choice(len(weights), screen_steps, replace=False, p=weights)
        value = math.log(recorded.screened(row, steps, rng, pairs))
        search.tell(config, value)
        measured += 1
        tried = min(tried, float(recorded.truth[row]))
        force.screened(row, value, steps)
        found.append((force.regret, tried / recorded.best - 1))
        if measured % _TRIALS_PER_LOOK == 0:
            cost = math.ceil(force.confirm() / screen_steps)
            found += [(found[-1][0], tried / recorded.best - 1)] * (cost - 1)
            found += [(force.regret, tried / recorded.best - 1)] * (cost > 0)
    return (found + found[-1:] * (trials - len(found)))[:trials]


class _Force:
    """What is in force, and what waits to be compared with it."""

    def __init__(self, recorded: Recorded, rng: np.random.Generator, pairs: int) -> None:
        self._recorded, self._rng, self._pairs = recorded, rng, pairs
        default = recorded.row(recorded.default)
        assert default is not None
        self._row, self._value = default, 0.0
        self._waiting: list[tuple[float, int, Places]] = []

    @property
    def truth(self) -> float:
        """Time of what is in force over the default's."""
        return float(self._recorded.truth[self._row])

    @property
    def regret(self) -> float:
        """Of what is in force."""
        return self.truth / self._recorded.best - 1

    def screened(self, row: int, value: float, steps: Places) -> None:
        """A trial has been told."""
        self._waiting.append((value, row, steps))

    def confirm(self) -> int:
        """Steps that a comparison took, 0 when nothing looks better than what is in force."""
        best = min(self._waiting, key=lambda each: each[:2], default=None)
        if best is None or best[0] >= self._value:
            return 0
        self._waiting.remove(best)
        others = np.setdiff1d(np.arange(len(self._recorded.steps)), best[2])
        values = [
            math.log(self._recorded.screened(row, others, self._rng, self._pairs))
            for row in (best[1], self._row)
        ]
        if values[0] < values[1]:
            self._row, self._value = best[1], values[0]
        return len(others)
