"""When is a candidate better? An always-valid sign test over distinct steps.

Each pair gives one speed-up (baseline time / candidate time) under the same load, clocks and cache
state. Pairs of one step say how fast that step is, however many there are, and nothing about the
next one; steps of a bucket differ by more than the noise of a pair. So a step is one observation:
the median over its pairs. Steps are drawn from the traffic in proportion to time, each is measured
in one go, and none of those on which a candidate was chosen counts for it (see steps.py).

For a threshold t the null hypothesis is "the median speed-up is at most t": given the past, a step
exceeds t with probability at most 1/2. Betting against it with a Beta(1, 1) mixture over the win
probabilities above 1/2 gives an e-process: a non-negative supermartingale under the null that
starts at 1. By Ville's inequality it ever reaches 1 / alpha with probability at most alpha, so
looking after every step and stopping at will costs nothing.

The same process, inverted over t, gives confidence bounds of the median that hold at every sample
size at once; they are order statistics of the speed-ups. Nothing is assumed about the shape of the
noise; outliers count as one loss each.

A median says nothing about the slower half of the steps: all of them together must have gained too.
Replayed steps were drawn by time, so that is their harmonic mean; live ones come evenly, so theirs
is weighted by their times.

What is promoted and turns out 5 % slower on MIN_STEPS steps, in the median and together, goes at
once: taking a promotion back costs its gain and no more, so that needs less proof than a promotion.

Several candidates compete for one bucket. The k-th one that is tried for promotion gets
alpha / (k (k + 1)); these sum to alpha, so a bucket's chance of ever promoting a candidate whose
median speed-up is at most 1 is at most alpha, however long the search goes on.
Sources: Ville 1939; Waudby-Smith and Ramdas, arXiv:2010.09686 (betting); Howard and Ramdas,
arXiv:1906.09712 (quantiles).
"""

from __future__ import annotations

import functools
import math
import statistics
from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple

from scipy import special

from pod_integrate.terms.experiment import HOPELESS
from pod_integrate.terms.table import MIN_STEPS
from tuner.messages import LivePair, Pair, Proof

_LOG_HALF = math.log(0.5)
# A duel whose median is below half of the wanted gain by then is not worth the other steps. This
# only ever ends a search early: it cannot promote, so the error guarantee stands.
FUTILE_STEPS = 12
# A promotion that is this slow on MIN_STEPS steps goes.
HARMFUL = 0.95


class Verdict(NamedTuple):
    """What the pairs of one duel say so far.

    outcome  `better`, `not better`, or `open`: more steps are needed
    log_e    logarithm of the evidence against "the median speed-up is at most 1"
    """

    outcome: Literal["better", "not better", "open"]
    reason: str
    proof: Proof = Proof()
    log_e: float = 0.0


def step_speedups(pairs: Iterable[Pair]) -> list[float]:
    """One speed-up per distinct step, the median of its pairs, in the order of their first pairs.

    A pair that does not name its step counts as nothing.
    """
    steps: dict[str, list[float]] = {}
    for pair in pairs:
        if pair.batch:
            steps.setdefault(pair.batch, []).append(pair.speedup)
    return [statistics.median(taken) for taken in steps.values()]


def gained(pairs: Iterable[Pair]) -> float:
    """What all distinct steps together gained: their time with the baseline / with the candidate.

    Replayed steps count alike, a live one by its time. Needs a pair that names its step.
    """
    steps: dict[str, list[Pair]] = {}
    for pair in pairs:
        if pair.batch:
            steps.setdefault(pair.batch, []).append(pair)
    live = {
        name: statistics.median(pair.baseline_us for pair in taken)
        for name, taken in steps.items()
        if isinstance(taken[0], LivePair)
    }
    mean = statistics.fmean(live.values()) if live else 1.0
    weights = [live.get(name, mean) / mean for name in steps]
    speedups = [statistics.median(pair.speedup for pair in taken) for taken in steps.values()]
    return statistics.harmonic_mean(speedups, weights)


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
    pairs: Sequence[Pair], *, alpha: float, min_speedup: float, max_steps: int, harm: bool = False
) -> Verdict:
    """Decide a duel of a candidate against a baseline, or say that it is open.

    alpha        chance of calling a candidate better whose median speed-up is at most 1
    min_speedup  smaller median speed-ups are not worth a promotion
    max_steps    the duel is over then, whatever the evidence
    harm         the candidate was proven before; ask only whether that holds. At `max_steps` it
                 is `better` unless the median or all steps together say slower

    Fewer than MIN_STEPS distinct steps never make a candidate better.
    """
    speedups = step_speedups(pairs)
    if not speedups:
        return Verdict("open", "no steps yet")
    count, wins = len(speedups), sum(s > 1 for s in speedups)
    log_e, median = log_evidence(wins, count - wins), statistics.median(speedups)
    lower, upper = bounds(speedups, alpha)

    def say(outcome: Literal["better", "not better", "open"], reason: str) -> Verdict:
        return Verdict(outcome, reason, Proof(len(pairs), count, median, lower), log_e)

    floor = 1.0 if harm else min_speedup
    total, wanted = gained(pairs), (1 + floor) / 2
    sure = lower is not None and lower > 1 and count >= MIN_STEPS
    if sure and median >= floor and total >= wanted:
        return say("better", f"{wins} of {count} steps faster, evidence e^{log_e:.1f}")
    if upper is not None and upper < floor:
        return say("not better", f"median speed-up below {floor:.3f} (upper bound {upper:.3f})")
    if harm and count >= MIN_STEPS and max(median, total) < HARMFUL:
        return say("not better", f"{_held(median, lower, upper)} after {count} steps is harmful")
    if not harm and count >= FUTILE_STEPS and median < wanted:
        futile = f"{_held(median, lower, upper)} after {count} steps is not worth more"
        return say("not better", futile)
    if count >= max_steps:
        undecided = f"undecided after {count} steps at {_held(median, lower, upper)}"
        if total < median:
            undecided += ", all steps together gained less"
        stays = harm and count >= MIN_STEPS and median >= 1 and total >= 1
        return say("better" if stays else "not better", undecided)
    return say("open", f"{count} of at most {max_steps} steps")


def _held(median: float, lower: float | None, upper: float | None) -> str:
    """A median in words, with the bounds that hold it; without any it is not told."""
    if lower is None or upper is None:
        return "a median speed-up without bounds"
    return f"median speed-up {median:.3f} (between {lower:.3f} and {upper:.3f})"


def screened_out(pairs: Sequence[Pair]) -> bool:
    """Whether screening may stop early: every step slower, and by 5 % in the median.

    Two steps suffice where both say what no step of a good config does.
    """
    speedups = step_speedups(pairs)
    if len(speedups) == 2:
        return max(speedups) * HOPELESS < 1
    return len(speedups) >= 3 and max(speedups) < 1 and statistics.median(speedups) < 0.95


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
