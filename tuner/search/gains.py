"""Speed-ups of trials: as screening told them, as confirmed, as a search promises them."""

from __future__ import annotations

import statistics
from collections.abc import Iterable

from pod_integrate.terms.config import PodConfig
from tuner.phases import Duel, Recheck
from tuner.search.drift import Falling
from tuner.search.judge import step_speedups
from tuner.search.study import speedup_of
from tuner.store.rows import Trial

# What a search of a bucket finds on average, as a share of its time.
UNKNOWN_GAIN = 0.05
# Even a search that expects nothing goes on where there is nothing else to do.
_LEAST_GAIN, _TRIALS_AHEAD = 1e-4, 3
# Trials that get another chance in turn.
_BEST, _OLD_SHARE = 8, 4


def promised(made: float, expects: float | None, ahead: float = _TRIALS_AHEAD) -> float:
    """What a search may still gain, as a share of the bucket's time.

    made     share of its trials that were made
    expects  gain of the next trial as the surrogate sees it
    ahead    so many times that is what it and those that it leads to gain
    """
    if expects is None:
        return UNKNOWN_GAIN / (1 + made)
    return min(1.0, max(_LEAST_GAIN, ahead * expects))


def aged(trials: Iterable[Trial], places: int) -> list[PodConfig]:
    """Configs worth a part of so many trials, since traffic and machines change.

    Of the best ones those that were measured longest ago; neither the default nor what is in force
    or failed.
    """
    latest = {t.config: t for t in trials}
    done = [
        t for t in latest.values()
        if t.state == "complete" and t.origin != "default" and t.value is not None
        and t.fate in ("", "rejected", "superseded")
    ]  # fmt: skip
    best = sorted(done, key=lambda t: (-speedup(t), t.number))[:_BEST]
    oldest = sorted(best, key=lambda t: (t.updated, t.number))
    return [t.config for t in oldest[: places // _OLD_SHARE]]


def confirmed(trial: Trial) -> float:
    """What the steps say that did not choose it: the best of many screenings flatters itself."""
    speedups = step_speedups(trial.pairs.get(Duel(trial.confirmation), []))
    return statistics.median(speedups) if speedups else speedup(trial)


def watched(trial: Trial) -> Falling:
    """The watch over what is promoted, as its re-checks, which are filed, left it."""
    watch = Falling(confirmed(trial))
    for number in range(trial.rechecks):
        speedups = step_speedups(trial.pairs.get(Recheck(number), []))
        if watch.add(speedups):
            watch = Falling(statistics.median(speedups))
    return watch


def speedup(trial: Trial) -> float:
    """As told, 1 before that."""
    return speedup_of(trial.value) if trial.value is not None else 1.0
