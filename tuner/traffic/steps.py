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

from tuner.messages import StudyKey
from tuner.store.rows import Trial
from tuner.traffic import samples
from tuner.traffic.samples import Sample

SCREEN, RECHECK = "screen", "recheck"
# Trials of one group are screened on the same steps, which compares them; later groups on others.
_GROUP = 8
# What was traced since is drawn from this often.
_POOL_SECONDS = 10.0


class Pools:
    """The distinct steps kept of each bucket, read again now and then."""

    def __init__(self) -> None:
        self._known: dict[StudyKey, tuple[float, list[Sample]]] = {}

    def of(self, tx: sa.Connection, key: StudyKey, now: float) -> list[Sample]:
        """The steps that phases of a bucket's trials may draw."""
        since, pool = self._known.get(key, (-math.inf, []))
        if not 0 <= now - since < _POOL_SECONDS:
            pool = distinct(samples.samples(tx, key))
            self._known[key] = (now, pool)
        return pool


def distinct(samples: Iterable[Sample]) -> list[Sample]:
    """The first sample of every distinct step."""
    found: dict[str, Sample] = {}
    for sample in samples:
        found.setdefault(sample.lengths.digest, sample)
    return list(found.values())


def fresh(pool: Iterable[Sample], trial: Trial, phase: str) -> list[Sample]:
    """The steps of `pool` that `phase` of `trial` may still draw, in the order of its draw."""
    used = _used(trial, phase)
    salt = f"{SCREEN}:{trial.number // _GROUP}" if phase == SCREEN else f"{trial.number}:{phase}"
    left = [sample for sample in pool if sample.lengths.digest not in used]
    return sorted(left, key=lambda sample: (_rank(sample, salt), sample.lengths.digest))


def _used(trial: Trial, phase: str) -> set[str]:
    """Steps that must not count (again) in `phase`.

    Earlier re-checks do not spoil a step for a later one: they passed, so they chose nothing.
    """
    barred = [phase] if phase == SCREEN else [
        name for name in trial.pairs if name == phase or not name.startswith(RECHECK)
    ]  # fmt: skip
    return {pair.batch for name in barred for pair in trial.pairs.get(name, ())}


def _rank(sample: Sample, salt: str) -> float:
    """An exponential draw with the step's time as its rate: the smallest ones come first.

    Repeatable, so that a restart goes on with the same draw. Source: Efraimidis and Spirakis 2006.
    """
    text = f"{salt}:{sample.lengths.digest}".encode()
    uniform = int.from_bytes(hashlib.blake2b(text, digest_size=6).digest()) + 1
    # Traces without times (captured steps) weigh the same.
    return -math.log(uniform / (1 << 48)) / (sample.attention_us or 1.0)
