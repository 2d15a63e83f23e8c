"""What a surrogate measures between configs, and between the traffic that they were tried on.

Parameters as numbers: categories by their place, integers as a share of their range. Traffic is
what a bucket and a geometry tell of it, in logarithms, so that a chunk of 512 tokens is as far from
one of 256 as 64 requests are from 32.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution

from pod_integrate.terms.config import PodConfig
from pod_integrate.terms.keys import Bucket, Geometry

Array = npt.NDArray[np.float64]
_POOL, _AROUND = 1024, 8
# Columns of a place's traffic that one weight goes for, and how far apart they are at most.
_GROUPS = (slice(0, 2), slice(2, 6), slice(6, 9), slice(9, 10))
_SPANS = (1.0, 8.0, 4.0, 4.0)
_SHARES = np.concatenate(
    [
        np.full(columns.stop - columns.start, 1 / span)
        for columns, span in zip(_GROUPS, _SPANS, strict=True)
    ]
)
TRAFFIC_GROUPS, _COLUMNS = len(_GROUPS), 10
_USUAL = (512, 4096, 32, 4096)


class Rule(NamedTuple):
    """A parameter that means nothing, and the value that it has then.

    beside  another parameter, and its values beside which that holds; None: always
    """

    name: str
    value: Any
    beside: tuple[str, frozenset[Any]] | None = None

    def holds(self, params: Mapping[str, Any]) -> bool:
        """Whether the parameter means nothing beside these."""
        return self.beside is None or params.get(self.beside[0]) in self.beside[1]


class Traffic(NamedTuple):
    """What a config was tried on.

    build  the kernel's, as far as it is another one's; empty: this study's own
    """

    bucket: Bucket
    geometry: Geometry
    build: str = ""

    def place(self) -> Array:
        """[_COLUMNS]; a side without work stands where most work of its kind does."""
        b, g = self.bucket, self.geometry
        numbers = (b.prefill_tokens, b.prefill_context, b.decodes, b.decode_context)
        heads = (g.num_q_heads / g.num_kv_heads, g.num_kv_heads, g.head_dim)
        sides = (float(b.prefill_tokens > 0), float(b.decodes > 0))
        logs = [math.log2(n or usual) for n, usual in zip(numbers, _USUAL, strict=True)]
        return np.array([*sides, *logs, *map(math.log2, heads), float(bool(self.build))])


class Known(NamedTuple):
    """A trial of another study, and what it was measured on."""

    config: PodConfig
    value: float
    traffic: Traffic


class Axes:
    """Parameters of some distributions, then the traffic's columns.

    rules    of parameters that mean nothing: they make no two places differ
    undrawn  values, by parameter, that no pool has
    """

    def __init__(
        self,
        distributions: Mapping[str, BaseDistribution],
        rules: Sequence[Rule] = (),
        undrawn: Mapping[str, frozenset[Any]] | None = None,
    ) -> None:
        self._distributions = dict(distributions)
        self._undrawn = {n: values for n, values in (undrawn or {}).items() if n in distributions}
        self._names = list(distributions)
        self._rules = [
            rule
            for rule in rules
            if rule.name in distributions
            and (rule.beside is None or rule.beside[0] in distributions)
        ]
        categorical = [isinstance(d, CategoricalDistribution) for d in distributions.values()]
        self._sizes = [_size(d) for d in self._distributions.values()]
        self._categorical = np.array(categorical)
        pairs = zip(categorical, self._sizes, strict=True)
        self._scale = np.array([1.0 if c else max(1, n - 1) for c, n in pairs])

    def knows(self, params: Mapping[str, Any]) -> bool:
        """Whether these name every axis."""
        return self._distributions.keys() <= params.keys()

    def places(self, params: Sequence[Mapping[str, Any]]) -> Array:
        """[n, axes] whole numbers from 0."""
        known = self._distributions.items()
        found = [[_place(d, each[name]) for name, d in known] for each in params]
        return self._plain(np.array(found, dtype=np.float64).reshape(len(found), len(self._names)))

    def held(self, places: Array, fixed: Mapping[str, Any]) -> Array:
        """`places` with these parameters at these values."""
        places = places.copy()
        for axis, name in enumerate(self._names):
            if name in fixed:
                places[:, axis] = _place(self._distributions[name], fixed[name])
        return self._plain(places)

    def params(self, place: Array) -> dict[str, Any]:
        """Inverse of `places`, of one."""
        return {
            name: d.choices[int(x)] if isinstance(d, CategoricalDistribution) else d.low + int(x)
            for (name, d), x in zip(self._distributions.items(), place, strict=True)
            if isinstance(d, CategoricalDistribution | IntDistribution)
        }

    def distances(self, a: Array, b: Array, on_a: Array, on_b: Array) -> Array:
        """[axes + groups of the traffic, n, m].

        a, b        [n, axes], [m, axes]
        on_a, on_b  [n, _COLUMNS] or [1, _COLUMNS], one traffic for all; [m, _COLUMNS]
        """
        found = np.empty((len(self._names) + TRAFFIC_GROUPS, len(a), len(b)))
        for axis, scale in enumerate(self._scale):
            off = a[:, axis, None] - b[None, :, axis]
            found[axis] = off != 0 if self._categorical[axis] else np.abs(off) / scale
        for group, columns, span in zip(found[len(self._names) :], _GROUPS, _SPANS, strict=True):
            off = on_a[:, None, columns] - on_b[None, :, columns]
            group[:] = np.abs(off).sum(axis=2) / span
        return found

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
            for axis in rng.choice(len(self._sizes), min(2, len(row)), replace=False):
                row[axis] = rng.integers(self._sizes[axis])
        whole = np.concatenate([anywhere.astype(np.float64), np.array(near), pairs])
        for name, values in self._undrawn.items():
            whole = whole[~self._has(whole, name, values)]
        return np.unique(self._plain(whole), axis=0)

    def _plain(self, places: Array) -> Array:
        for rule in self._rules:
            idle: Any = slice(None)
            if rule.beside is not None:
                idle = self._has(places, *rule.beside)
            axis = self._names.index(rule.name)
            places[idle, axis] = _place(self._distributions[rule.name], rule.value)
        return places

    def _has(self, places: Array, name: str, values: frozenset[Any]) -> npt.NDArray[np.bool_]:
        """Which of the places have one of these values; a smaller space lacks some of them."""
        axis = self._names.index(name)
        known = [_place(self._distributions[name], v) for v in values if self._holds(name, v)]
        return np.isin(places[:, axis], known)

    def _holds(self, name: str, value: Any) -> bool:
        distribution = self._distributions[name]
        if isinstance(distribution, CategoricalDistribution):
            return value in distribution.choices
        return True


def apart(a: Array, b: Array) -> Array:
    """How far one traffic [_COLUMNS] is from others [..., _COLUMNS], a side more counting most."""
    found: Array = np.abs(a - b) @ _SHARES
    return found


def alike(count: int) -> Array:
    """[count, _COLUMNS] of one traffic."""
    return np.zeros((count, _COLUMNS))


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
