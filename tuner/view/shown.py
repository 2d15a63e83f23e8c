"""What may be shown of measured pairs: no ratio without its bound, no two times of two pairs."""

from __future__ import annotations

import math
from collections.abc import Iterable

from tuner.messages import Pair


def typical(pairs: Iterable[Pair], speedup: float | None) -> Pair | None:
    """The pair whose ratio is nearest to `speedup`: its two times show that ratio.

    Steps of one bucket differ several times over, so medians of both sides, each taken for itself,
    come from different steps and have another ratio.
    """
    if speedup is None:
        return None
    return min(pairs, key=lambda pair: abs(math.log(pair.speedup / speedup)), default=None)


def span(speedups: Iterable[float]) -> tuple[float, float] | None:
    """Smallest and largest of the speed-ups of distinct steps; None of fewer than two.

    Of n steps that chose nothing, the median lies between the two with confidence 1 - 2^(1-n).
    """
    found = sorted(speedups)
    return (found[0], found[-1]) if len(found) > 1 else None
