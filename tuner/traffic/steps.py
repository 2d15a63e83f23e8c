"""Which traced steps to measure next: drawn in proportion to time, never one that chose its judge.

A bucket's recent traffic is kept as a uniform sample of its steps (samples.py). From these every
phase of a trial draws without replacement, a step's chance growing with its attention time. What a
candidate was screened on picked it among many, so its confirmation draws from other steps, and its
re-checks from others again: there it was lucky.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable

import sqlalchemy as sa

from tuner.bounded import Recent
from tuner.messages import StudyKey
from tuner.phases import SCREEN, Phase, Recheck
from tuner.store.rows import Trial
from tuner.traffic import samples
from tuner.traffic.samples import Sample

# Trials of one group are screened on the same steps, which compares them; later groups on others.
_GROUP = 8
# What was traced since is drawn from this often.
_POOL_SECONDS = 10.0
# Some have a quarter of a MiB.
_POOLS = 128


class Pools:
    """The distinct steps kept of each bucket, read again now and then."""

    def __init__(self) -> None:
        self._known: Recent[StudyKey, tuple[float, list[Sample]]] = Recent(_POOLS)

    def of(self, tx: sa.Connection, key: StudyKey, now: float) -> list[Sample]:
        """The steps that phases of a bucket's trials may draw."""
        known = self._known.get(key)
        if known is not None and 0 <= now - known[0] < _POOL_SECONDS:
            return known[1]
        pool = distinct(samples.samples(tx, key))
        self._known.put(key, (now, pool))
        return pool


def distinct(samples: Iterable[Sample]) -> list[Sample]:
    """The first sample of every distinct step."""
    found: dict[str, Sample] = {}
    for sample in samples:
        found.setdefault(sample.lengths.digest, sample)
    return list(found.values())


def fresh(pool: Iterable[Sample], trial: Trial, phase: Phase) -> list[Sample]:
    """The steps of `pool` that `phase` of `trial` may still draw, in the order of its draw.

    Earlier re-checks do not spoil a step for a later one: they passed, so they chose nothing.
    """
    group = trial.number // _GROUP if phase == SCREEN else None
    salt = f"{trial.number}:{phase}" if group is None else f"{SCREEN}:{group}"
    return _drawn(pool, trial, _barred(trial, phase), salt)


def spent(trial: Trial, phase: Phase) -> set[str]:
    """Digests of the steps that say nothing new about a trial in a phase."""
    return {pair.batch for known in _barred(trial, phase) for pair in trial.pairs.get(known, ())}


def _barred(trial: Trial, phase: Phase) -> list[Phase]:
    if phase == SCREEN:
        return [SCREEN]
    return [known for known in trial.pairs if known == phase or not isinstance(known, Recheck)]


def chose_nothing(pool: Iterable[Sample], trial: Trial) -> list[Sample]:
    """The steps of `pool` that neither selected nor confirmed `trial`, in a draw of their own."""
    barred = [phase for phase in trial.pairs if not isinstance(phase, Recheck)]
    return _drawn(pool, trial, barred, f"{trial.number}:recheck:")


def _drawn(
    pool: Iterable[Sample], trial: Trial, barred: Iterable[Phase], salt: str
) -> list[Sample]:
    used = {pair.batch for phase in barred for pair in trial.pairs.get(phase, ())}
    left = [sample for sample in pool if sample.lengths.digest not in used]
    return sorted(left, key=lambda sample: (_rank(sample, salt), sample.lengths.digest))


def _rank(sample: Sample, salt: str) -> float:
    """An exponential draw with the step's time as its rate: the smallest ones come first.

    Repeatable, so that a restart goes on with the same draw. Source: Efraimidis and Spirakis 2006.
    """
    text = f"{salt}:{sample.lengths.digest}".encode()
    uniform = int.from_bytes(hashlib.blake2b(text, digest_size=6).digest()) + 1
    # Traces without times (captured steps) weigh the same.
    return -math.log(uniform / (1 << 48)) / (sample.attention_us or 1.0)
