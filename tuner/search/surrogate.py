"""What to try next by expected improvement: a Gaussian process over configs as an Optuna sampler.

Two configs are alike as far as their parameters are, two trials as far as their configs and the
traffic that they were measured on are: one process takes in what other buckets taught. A bucket's
trials are few and the space has some ten thousand configs, so that both take milliseconds and need
nothing but NumPy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.trial import FrozenTrial, TrialState

from tuner.search.axes import TRAFFIC_GROUPS as _TRAFFIC
from tuner.search.axes import Array, Axes, Rule, alike
from tuner.search.process import Process, fit, improvement, standard

# Weights are fitted again when there are so many times as many trials.
_FIT_GROWTH = 1.15
# More points than this make a proposal slow: lessons give way, the last ones first.
_POINTS = 256
# Weights that are expected of parameters and of traffic, and the noise: what another bucket
# teaches has to prove itself.
_ALIKE, _FOREIGN, _NOISE = 0.6, 2.0, 0.1


class Lesson(NamedTuple):
    """A trial of another study.

    params   of its config
    value    log(candidate time / default time) there
    traffic  from Traffic.place
    """

    params: Mapping[str, Any]
    value: float
    traffic: Array


# Optuna's types are not read.
class SurrogateSampler(optuna.samplers.BaseSampler):  # type: ignore[misc]
    """Random for `startup` trials, then the pool's config of the largest expected improvement.

    Pruned trials count as the worst one seen, running ones as what the surrogate expects of them;
    of failed ones only their place is known, so that it is not asked for again.

    rules    of parameters that mean nothing here
    traffic  the study's own, where lessons are of others
    undrawn  values of categories that are asked for only where they are fixed
    fixed    parameters that have one value for now

    expects  what the last proposal was expected to be better by than the best one before, as a
             logarithm; None before there was one
    """

    def __init__(
        self,
        seed: int,
        startup: int,
        rules: Sequence[Rule] = (),
        traffic: Array | None = None,
        undrawn: Mapping[str, frozenset[Any]] | None = None,
    ) -> None:
        self._rng = np.random.default_rng(seed)
        self._random = optuna.samplers.RandomSampler(seed=seed)
        self._startup, self._rules, self._undrawn = startup, rules, undrawn or {}
        self._traffic = alike(1)[0] if traffic is None else traffic
        self._lessons: list[Lesson] = []
        self.fixed: Mapping[str, Any] = {}
        self.expects: float | None = None
        self._weights: Array | None = None
        self._fitted = 0

    def learn(self, lessons: Sequence[Lesson]) -> None:
        """Trials of other studies, the ones most like this one's first; in place of earlier ones.

        They count as told, but for the first one.
        """
        self._lessons = list(lessons)
        self._fitted = 0

    # Optuna's interface names the trial, which nothing here depends on.
    def infer_relative_search_space(
        self,
        study: optuna.Study,
        trial: FrozenTrial,  # noqa: ARG002
    ) -> dict[str, BaseDistribution]:
        """What all complete trials have in common."""
        trials = study.get_trials(deepcopy=False)
        space: dict[str, BaseDistribution] = optuna.search_space.intersection_search_space(trials)
        return space

    def sample_relative(
        self,
        study: optuna.Study,
        trial: FrozenTrial,  # noqa: ARG002
        search_space: dict[str, BaseDistribution],
    ) -> dict[str, Any]:
        """Values of these parameters; none before there are trials to learn from."""
        known = study.get_trials(deepcopy=False)
        told = [t for t in known if t.value is not None and t.state == TrialState.COMPLETE]
        enough = told and len(told) + len(self._lessons) >= self._startup
        if not enough or not search_space:
            return {}
        axes = Axes(search_space, self._rules, self._undrawn)
        model = self._model(axes, known)
        best = model.points[int(model.targets[: len(told)].argmin())]
        # Trials with other values say something of these ones too.
        pool = axes.held(axes.pool(best, self._rng), self.fixed)
        asked = axes.places([t.params for t in known if axes.knows(t.params)])
        tried = set(map(tuple, asked.tolist()))
        new = [place for place in pool.tolist() if tuple(place) not in tried]
        pool = np.array(new) if new else pool
        mean, spread = model.predict(pool)
        own = axes.held(model.points[: len(told)], self.fixed)
        gain = improvement(float(model.predict(own)[0].min()), mean, spread)
        self.expects = float(gain.max()) * model.spread
        return axes.params(pool[int(gain.argmax())])

    def promising(self, study: optuna.Study, known: Sequence[Mapping[str, Any]]) -> Array | None:
        """By how much each of these is expected to be better than the best one, [n].

        As seen from trials and lessons; None before there is one of each.
        """
        trials = study.get_trials(deepcopy=False)
        told = [t for t in trials if t.value is not None and t.state == TrialState.COMPLETE]
        if not (told and self._lessons):
            return None
        axes = Axes(told[0].distributions, self._rules)
        model = self._model(axes, trials)
        best = float(model.predict(model.points[: len(told)])[0].min())
        return improvement(best, *model.predict(axes.places(known)))

    def sample_independent(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """The fixed value, or at random."""
        if param_name in self.fixed:
            return self.fixed[param_name]
        if undrawn := self._undrawn.get(param_name):
            names = [name for name in param_distribution.choices if name not in undrawn]
            param_distribution = CategoricalDistribution(names)
        return self._random.sample_independent(study, trial, param_name, param_distribution)

    def _model(self, axes: Axes, known: Sequence[FrozenTrial]) -> _Model:
        told = [t for t in known if t.value is not None and t.state == TrialState.COMPLETE]
        pruned = [t for t in known if t.state == TrialState.PRUNED and axes.knows(t.params)]
        waiting = [t for t in known if t.state == TrialState.RUNNING and axes.knows(t.params)]
        values = [t.value or 0.0 for t in told]
        values += [max(values)] * len(pruned)
        room = max(0, _POINTS - len(values))
        lessons = [each for each in self._lessons if axes.knows(each.params)][:room]
        points = axes.places([t.params for t in (*told, *pruned)])
        taught = axes.places([each.params for each in lessons])
        traffic = np.tile(self._traffic, (len(points), 1))
        model = _Model(
            axes,
            np.concatenate([points, taught]),
            np.concatenate([traffic, *(each.traffic[None] for each in lessons)]),
            np.array([*values, *(each.value for each in lessons)]),
            self._traffic,
        )
        if self._weights is None or len(told) >= self._fitted * _FIT_GROWTH:
            self._weights, self._fitted = model.fitted(self._weights), len(told)
        model.settle(self._weights, axes.places([t.params for t in waiting]))
        return model


class _Model:
    """A process over trials on some traffic, asked about one of it.

    points   [n, axes]
    traffic  [n, columns]
    values   [n]
    own      [columns], what is asked about

    targets  the values as the process sees them, and their `spread`
    """

    def __init__(
        self, axes: Axes, points: Array, traffic: Array, values: Array, own: Array
    ) -> None:
        self._axes, self._own = axes, own
        self.points, self._traffic = points, traffic
        self.targets, self.spread = standard(values)

    def fitted(self, before: Array | None) -> Array:
        """Weights for these trials."""
        distances = self._apart()
        others = len(distances) - _TRAFFIC
        first = np.array([_ALIKE] * others + [_FOREIGN] * _TRAFFIC + [_NOISE])
        return fit(distances, self.targets, first, before)

    def settle(self, weights: Array, waiting: Array) -> None:
        """Make the process; `waiting` [m, axes] are as if they had turned out as expected."""
        self._process = Process(self._apart(), self.targets, weights)
        if len(waiting):
            expected = self.predict(waiting)[0]
            self.points = np.concatenate([self.points, waiting])
            here = np.tile(self._own, (len(waiting), 1))
            self._traffic = np.concatenate([self._traffic, here])
            self.targets = np.concatenate([self.targets, expected])
            self._process = Process(self._apart(), self.targets, weights)

    def predict(self, places: Array) -> tuple[Array, Array]:
        """Mean and standard deviation at [m, axes] here."""
        here = self._own[None]
        return self._process.predict(self._axes.distances(places, self.points, here, self._traffic))

    def _apart(self) -> Array:
        return self._axes.distances(self.points, self.points, self._traffic, self._traffic)
