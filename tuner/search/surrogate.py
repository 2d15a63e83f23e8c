"""A Gaussian process over configs, as an Optuna sampler: what to try next by expected improvement.

Two configs are alike as far as their parameters are: the kernel is exp(-sum of w_j d_j), d_j the
distance of parameter j (of numbers the share of the range, of categories 0 or 1). The weights w_j,
the noise and the spread are those of the largest marginal likelihood, found by steps along one of
them at a time. A bucket's trials are few and the space has some ten thousand configs, so that both
take milliseconds and need nothing but NumPy.
Source: Rasmussen and Williams, Gaussian Processes for Machine Learning, 2006, sections 2.2 and 5.4.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState

Array = npt.NDArray[np.float64]
_POOL, _AROUND = 1024, 8
# Told trials between two fits, rounds of a fit, and how far a step of it goes.
_FIT_EVERY = 4
_FIT_ROUNDS, _FIT_STEPS = 2, (0.3, 3.0)
_FIRST_WEIGHT, _FIRST_NOISE = 0.6, 0.1
_BOUNDS = (0.02, 20.0)
_NOISE_BOUNDS = (1e-3, 1.0)
# A value further out than so many spreads tells of a bad config, not of its neighbours' scale.
_CLIP = 3.0


# Optuna's types are not read.
class SurrogateSampler(optuna.samplers.BaseSampler):  # type: ignore[misc]
    """Random for `startup` trials, then the pool's config of the largest expected improvement.

    Pruned trials count as the worst one seen, running ones as what the surrogate expects of them;
    of failed ones only their place is known, so that it is not asked for again.

    fixed  parameters that have one value for now
    """

    def __init__(self, seed: int, startup: int) -> None:
        self._rng = np.random.default_rng(seed)
        self._random = optuna.samplers.RandomSampler(seed=seed)
        self._startup = startup
        self.fixed: Mapping[str, Any] = {}
        self._fitted: dict[tuple[str, ...], Array] = {}

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
        if len(told) < self._startup or not search_space:
            return {}
        axes = _Axes(search_space)
        values = [t.value or 0.0 for t in told]
        pruned = [t for t in known if t.state == TrialState.PRUNED and axes.knows(t.params)]
        waiting = [t for t in known if t.state == TrialState.RUNNING and axes.knows(t.params)]
        points = axes.places([t.params for t in [*told, *pruned]])
        targets = _standard(np.array(values + [max(values)] * len(pruned)))
        names, weights = tuple(search_space), self._fitted.get(tuple(search_space))
        if weights is None or len(told) % _FIT_EVERY == 0:
            weights = self._fitted[names] = _fit(points, targets, axes, weights)
        best = points[int(targets.argmin())]
        # Trials with other values say something of these ones too.
        pool = axes.held(axes.pool(best, self._rng), self.fixed)
        process = _Process(points, targets, axes, weights)
        if waiting:
            process = process.told(axes.places([t.params for t in waiting]))
        gain = process.improvement(pool, axes.held(points.copy(), self.fixed))
        asked = axes.places([t.params for t in known if axes.knows(t.params)])
        tried = set(map(tuple, asked.tolist()))
        gain[[tuple(place) in tried for place in pool.tolist()]] = -1.0
        return axes.params(pool[int(gain.argmax())])

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
        return self._random.sample_independent(study, trial, param_name, param_distribution)


class _Axes:
    """Parameters as numbers: categories by their place, integers as a share of their range."""

    def __init__(self, distributions: Mapping[str, BaseDistribution]) -> None:
        self._distributions = dict(distributions)
        self.categorical = np.array(
            [isinstance(d, CategoricalDistribution) for d in self._distributions.values()]
        )
        self._sizes = [_size(d) for d in self._distributions.values()]
        self._scale = np.array([1.0 if c else max(1, n - 1) for c, n in self._pairs()])

    def _pairs(self) -> list[tuple[bool, int]]:
        return list(zip(self.categorical.tolist(), self._sizes, strict=True))

    def knows(self, params: Mapping[str, Any]) -> bool:
        """Whether these name every axis."""
        return self._distributions.keys() <= params.keys()

    def places(self, params: Sequence[Mapping[str, Any]]) -> Array:
        """[n, axes] whole numbers from 0."""
        return np.array(
            [[_place(d, each[name]) for name, d in self._distributions.items()] for each in params],
            dtype=np.float64,
        )

    def held(self, places: Array, fixed: Mapping[str, Any]) -> Array:
        """`places` with these parameters at these values."""
        for axis, (name, distribution) in enumerate(self._distributions.items()):
            if name in fixed:
                places[:, axis] = _place(distribution, fixed[name])
        return places

    def params(self, place: Array) -> dict[str, Any]:
        """Inverse of `places`, of one."""
        return {
            name: d.choices[int(x)] if isinstance(d, CategoricalDistribution) else d.low + int(x)
            for (name, d), x in zip(self._distributions.items(), place, strict=True)
            if isinstance(d, CategoricalDistribution | IntDistribution)
        }

    def distances(self, a: Array, b: Array) -> Array:
        """[axes, n, m]."""
        apart = np.abs(a[:, None, :] - b[None, :, :])
        apart = np.where(self.categorical, apart > 0, apart / self._scale)
        return np.moveaxis(apart, 2, 0)

    def pool(self, best: Array, rng: np.random.Generator) -> Array:
        """Anywhere, and around the best: every value of each axis, and of some pairs of axes."""
        anywhere = np.stack([rng.integers(n, size=_POOL) for n in self._sizes], axis=1)
        near = []
        for axis, size in enumerate(self._sizes):
            for value in range(size):
                near.append(best.copy())
                near[-1][axis] = value
        pairs = np.repeat(best[None], _POOL // _AROUND * 4, axis=0)
        for row in pairs:
            for axis in rng.choice(len(self._sizes), 2, replace=False):
                row[axis] = rng.integers(self._sizes[axis])
        return np.concatenate([anywhere.astype(np.float64), np.array(near), pairs])


class _Process:
    """The posterior; `weights` are those of the axes, then the noise."""

    def __init__(self, points: Array, targets: Array, axes: _Axes, weights: Array) -> None:
        self._points, self._targets, self._axes, self._weights = points, targets, axes, weights
        covariance = _kernel(axes.distances(points, points), weights)
        self._low = np.linalg.cholesky(covariance + weights[-1] * np.eye(len(points)))
        self._alpha = np.linalg.solve(self._low.T, np.linalg.solve(self._low, targets))

    def predict(self, places: Array) -> tuple[Array, Array]:
        """Mean and standard deviation of the true value."""
        across = _kernel(self._axes.distances(places, self._points), self._weights)
        seen = np.linalg.solve(self._low, across.T)
        return across @ self._alpha, np.sqrt(np.maximum(1e-9, 1.0 - (seen**2).sum(axis=0)))

    def told(self, places: Array) -> _Process:
        """As if these had turned out as expected."""
        points = np.concatenate([self._points, places])
        targets = np.concatenate([self._targets, self.predict(places)[0]])
        return _Process(points, targets, self._axes, self._weights)

    def improvement(self, places: Array, known: Array) -> Array:
        """Expected improvement on the best mean at one of the known places."""
        mean, spread = self.predict(places)
        best = float(self.predict(known)[0].min())
        z = (best - mean) / spread
        density = np.exp(-(z**2) / 2) / math.sqrt(2 * math.pi)
        below = np.array([0.5 * math.erfc(-each / math.sqrt(2)) for each in z])
        gain: Array = (best - mean) * below + spread * density
        return gain


def _standard(values: Array) -> Array:
    """Zero median, and one spread; values are logarithms, so that this is a ratio's spread."""
    middle = float(np.median(values))
    spread = max(1e-3, 1.4826 * float(np.median(np.abs(values - middle))), float(values.std()) / 2)
    return np.minimum((values - middle) / spread, _CLIP)


def _kernel(distances: Array, weights: Array) -> Array:
    return np.asarray(np.exp(-np.tensordot(weights[:-1], distances, axes=1)))


def _fit(points: Array, targets: Array, axes: _Axes, before: Array | None) -> Array:
    distances = axes.distances(points, points)
    first = np.append(np.full(len(distances), _FIRST_WEIGHT), _FIRST_NOISE)
    weights = first if before is None else before.copy()
    best = _likelihood(distances, targets, weights)
    for _ in range(_FIT_ROUNDS):
        for j in range(len(weights)):
            low, high = _NOISE_BOUNDS if j == len(weights) - 1 else _BOUNDS
            for factor in _FIT_STEPS:
                tried = weights.copy()
                tried[j] = min(high, max(low, weights[j] * factor))
                found = _likelihood(distances, targets, tried)
                if found > best:
                    best, weights = found, tried
    return weights


def _likelihood(distances: Array, targets: Array, weights: Array) -> float:
    """Log marginal likelihood, constants left out; a wide prior keeps weights from the edges."""
    covariance = _kernel(distances, weights) + weights[-1] * np.eye(len(targets))
    low = np.linalg.cholesky(covariance)
    seen = np.linalg.solve(low, targets)
    prior = float((np.log(weights[:-1] / _FIRST_WEIGHT) ** 2).sum()) / 8
    prior += float(np.log(weights[-1] / _FIRST_NOISE) ** 2) / 8
    return -float(seen @ seen) / 2 - float(np.log(np.diag(low)).sum()) - prior


def _size(distribution: BaseDistribution) -> int:
    if isinstance(distribution, CategoricalDistribution):
        return len(tuple(distribution.choices))
    assert isinstance(distribution, IntDistribution), distribution
    return int(distribution.high) - int(distribution.low) + 1


def _place(distribution: BaseDistribution, value: Any) -> int:
    if isinstance(distribution, CategoricalDistribution):
        return tuple(distribution.choices).index(value)
    assert isinstance(distribution, IntDistribution), distribution
    return int(value) - int(distribution.low)
