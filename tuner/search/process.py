"""A Gaussian process: what values at some points say of all others.

Its kernel is exp(-sum of w_j d_j), d_j a distance of two points along axis j. The weights w_j and
the noise are those of the largest marginal likelihood, found by steps along one of them at a time.
Source: Rasmussen and Williams, Gaussian Processes for Machine Learning, 2006, sections 2.2 and 5.4.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
# Rounds of a fit, and how far a step of it goes.
_FIT_ROUNDS, _FIT_STEPS = 2, (0.3, 3.0)
_BOUNDS = (0.02, 20.0)
_NOISE_BOUNDS = (1e-3, 1.0)
# A value further out than so many spreads tells of a bad config, not of its neighbours' scale.
_CLIP = 3.0


class Process:
    """The posterior.

    distances  [axes, n, n] of the points from each other
    targets    [n], see standard()
    weights    of the axes, then the noise
    """

    def __init__(self, distances: Array, targets: Array, weights: Array) -> None:
        self._weights = weights
        covariance = _kernel(distances, weights)
        self._low = np.linalg.cholesky(covariance + weights[-1] * np.eye(len(targets)))
        self._alpha = np.linalg.solve(self._low.T, np.linalg.solve(self._low, targets))

    def predict(self, distances: Array) -> tuple[Array, Array]:
        """Mean and standard deviation of true values, by [axes, m, n] from the known points."""
        across = _kernel(distances, self._weights)
        seen = np.linalg.solve(self._low, across.T)
        return across @ self._alpha, np.sqrt(np.maximum(1e-9, 1.0 - (seen**2).sum(axis=0)))


def improvement(best: float, mean: Array, spread: Array) -> Array:
    """By how much a value is expected to be less than `best`, nothing counted where it is not."""
    z = (best - mean) / spread
    density = np.exp(-(z**2) / 2) / math.sqrt(2 * math.pi)
    below = np.array([0.5 * math.erfc(-each / math.sqrt(2)) for each in z])
    gain: Array = (best - mean) * below + spread * density
    return gain


def standard(values: Array) -> tuple[Array, float]:
    """With zero median and one spread; values are logarithms, so that the spread is a ratio's."""
    middle = float(np.median(values))
    spread = max(1e-3, 1.4826 * float(np.median(np.abs(values - middle))), float(values.std()) / 2)
    return np.minimum((values - middle) / spread, _CLIP), spread


def fit(distances: Array, targets: Array, first: Array, before: Array | None = None) -> Array:
    """Weights for these points, from `before` on; axes along which none differ keep theirs.

    first  what they are expected to be, the noise last
    """
    weights = first.copy() if before is None else before.copy()
    exponent = np.asarray(np.tensordot(weights[:-1], distances, axes=1), dtype=np.float64)
    best = _likelihood(exponent, targets, weights, first)
    differ = [j for j in range(len(distances)) if distances[j].any()]
    for _ in range(_FIT_ROUNDS):
        for j in (*differ, len(distances)):
            noise = j == len(distances)
            low, high = _NOISE_BOUNDS if noise else _BOUNDS
            for factor in _FIT_STEPS:
                tried = weights.copy()
                tried[j] = min(high, max(low, weights[j] * factor))
                moved = exponent
                if not noise:
                    moved = exponent + (tried[j] - weights[j]) * distances[j]
                found = _likelihood(moved, targets, tried, first)
                if found > best:
                    best, weights, exponent = found, tried, moved
    return weights


def _kernel(distances: Array, weights: Array) -> Array:
    return np.asarray(np.exp(-np.tensordot(weights[:-1], distances, axes=1)))


def _likelihood(exponent: Array, targets: Array, weights: Array, first: Array) -> float:
    """Log marginal likelihood, constants left out; a wide prior keeps weights from the edges."""
    low = np.linalg.cholesky(np.exp(-exponent) + weights[-1] * np.eye(len(targets)))
    seen = np.linalg.solve(low, targets)
    prior = float((np.log(weights / first) ** 2).sum()) / 8
    return -float(seen @ seen) / 2 - float(np.log(np.diag(low)).sum()) - prior
