"""When is a candidate better? An always-valid sign test on interleaved pairs.

Each pair gives one speed-up (baseline time / candidate time) under the same load, clocks and cache
state. For a threshold t the null hypothesis is "the median speed-up is at most t": given the past,
a pair exceeds t with probability at most 1/2. Betting against it with a Beta(1, 1) mixture over the
win probabilities above 1/2 gives an e-process: a non-negative supermartingale under the null that
starts at 1. By Ville's inequality it ever reaches 1 / alpha with probability at most alpha, so
looking after every pair and stopping at will costs nothing.

The same process, inverted over t, gives confidence bounds of the median that hold at every sample
size at once; they are order statistics of the speed-ups. Nothing is assumed about the shape of the
noise; outliers count as one loss each.

Several candidates compete for one bucket. The k-th one that is tried for promotion gets
alpha / (k (k + 1)); these sum to alpha, so a bucket's chance of ever promoting a candidate whose
median speed-up is at most 1 is at most alpha, however long the search goes on.
Sources: Ville 1939; Waudby-Smith and Ramdas, arXiv:2010.09686 (betting); Howard and Ramdas,
arXiv:1906.09712 (quantiles).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from scipy import special

from tuner.model import Pair

_LOG_HALF = math.log(0.5)
# A duel whose median is below half of the wanted gain by then is not worth the other pairs. This
# only ever ends a search early: it cannot promote, so the error guarantee stands.
FUTILE_PAIRS = 24


class Verdict(NamedTuple):
    """What the pairs of one duel say so far.

    outcome      `better`, `not better`, or `open`: more pairs are needed
    speedup      median over the pairs, None without pairs
    lower_bound  of the median speed-up at 1 - alpha, None while there are too few pairs for one
    log_e        logarithm of the evidence against "the median speed-up is at most 1"
    """

    outcome: Literal["better", "not better", "open"]
    reason: str
    pairs: int
    speedup: float | None
    lower_bound: float | None
    log_e: float


def log_evidence(wins: int, losses: int) -> float:
    """Log e-value against "a win has probability at most 1/2" after these wins and losses."""
    mixed = special.betaln(wins + 1, losses + 1) + _log_upper_half(wins + 1, losses + 1)
    return float(mixed - _LOG_HALF - (wins + losses) * _LOG_HALF)


def spent_alpha(alpha: float, ordinal: int) -> float:
    """Share of alpha for the `ordinal`-th candidate (from 1) tried for promotion."""
    return alpha / (ordinal * (ordinal + 1))


def bounds(speedups: Sequence[float], alpha: float) -> tuple[float | None, float | None]:
    """Lower and upper bound of the median, each valid at 1 - alpha for all sample sizes at once.

    None where the sample is too small to bound that side.
    """
    needed = _wins_needed(len(speedups), alpha)
    if needed is None:
        return None, None
    ordered = sorted(speedups)
    return ordered[-needed], ordered[needed - 1]


def judge(
    pairs: Sequence[Pair], *, alpha: float, min_speedup: float, max_pairs: int, harm: bool = False
) -> Verdict:
    """Decide a duel of a candidate against a baseline, or say that it is open.

    alpha        chance of calling a candidate better whose median speed-up is at most 1
    min_speedup  smaller median speed-ups are not worth a promotion
    max_pairs    the duel is over then, whatever the evidence
    harm         ask only whether the candidate is worse: then `not better` needs an upper bound
                 below 1, and `max_pairs` without one counts as `better`
    """
    speedups = [pair.speedup for pair in pairs]
    if not speedups:
        return Verdict("open", "no pairs yet", 0, None, None, 0.0)
    wins = sum(s > 1 for s in speedups)
    log_e, median = log_evidence(wins, len(speedups) - wins), float(np.median(speedups))
    lower, upper = bounds(speedups, alpha)

    def say(outcome: Literal["better", "not better", "open"], reason: str) -> Verdict:
        return Verdict(outcome, reason, len(speedups), median, lower, log_e)

    floor = 1.0 if harm else min_speedup
    if lower is not None and lower > 1 and median >= floor:
        return say("better", f"{wins} of {len(speedups)} pairs faster, evidence e^{log_e:.1f}")
    if upper is not None and upper < floor:
        return say("not better", f"median speed-up below {floor:.3f} (upper bound {upper:.3f})")
    if not harm and len(speedups) >= FUTILE_PAIRS and median < (1 + min_speedup) / 2:
        futile = f"median speed-up {median:.3f} after {len(speedups)} pairs is not worth more"
        return say("not better", futile)
    if len(speedups) >= max_pairs:
        undecided = f"undecided after {len(speedups)} pairs at median speed-up {median:.3f}"
        return say("better" if harm else "not better", undecided)
    return say("open", f"{len(speedups)} of at most {max_pairs} pairs")


def screened_out(pairs: Sequence[Pair]) -> bool:
    """Whether screening may stop early: every pair slower, and by 5 % in the median."""
    speedups = [pair.speedup for pair in pairs]
    return len(speedups) >= 3 and max(speedups) < 1 and float(np.median(speedups)) < 0.95


def _log_upper_half(a: int, b: int) -> float:
    """Log of the mass that Beta(a, b) has above 1/2."""
    mass = float(special.betaincc(a, b, 0.5))
    # Far fewer wins than losses: the mass underflows and so does the evidence.
    return math.log(mass) if mass > 0 else -math.inf


@functools.lru_cache(maxsize=4096)
def _wins_needed(count: int, alpha: float) -> int | None:
    """Smallest number of wins among `count` whose evidence reaches 1 / alpha."""
    level = -math.log(alpha)
    for wins in range(count // 2, count + 1):
        if log_evidence(wins, count - wins) >= level:
            return wins
    return None
