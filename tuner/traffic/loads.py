"""How much time each bucket takes now, in memory and in order: nothing here looks at all buckets.

What a bucket's steps took fades with one half-life for all, so two buckets never change places by
waiting: they are kept sorted by a weight that does not fade (log2 of the time, plus the half-lives
since some epoch, at which it was that). Source: Cormode et al. 2009, forward decay.
"""

from __future__ import annotations

import bisect
import dataclasses
import functools
import logging
import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import sqlalchemy as sa

from pod_integrate.errors import ShapeError
from tuner.messages import Scope, StudyKey
from tuner.store import schema

logger = logging.getLogger(__name__)


class BucketLoad(NamedTuple):
    """Traffic of one bucket now.

    records       taken in all
    steps         that these stand for
    attention_us  what the steps took, decayed
    recent_steps  `steps`, decayed
    """

    key: StudyKey
    hybrid: bool
    records: int
    steps: float
    attention_us: float
    recent_steps: float


@dataclasses.dataclass(frozen=True, slots=True)
class Stored:
    """A bucket's row: `weight` (us) and `step_weight` are what they were worth at `updated`."""

    hybrid: bool
    records: int
    steps: float
    weight: float
    step_weight: float
    updated: float

    def load(self, key: StudyKey, now: float, half_life: float) -> BucketLoad:
        """Decayed to `now`."""
        fade = _fade(now - self.updated, half_life)
        return BucketLoad(
            key, self.hybrid, self.records, self.steps, self.weight * fade, self.step_weight * fade
        )

    def grown(self, records: int, scale: float, us: float, now: float, half_life: float) -> Stored:
        """With `records` more that took `us`; each stands for `scale` steps."""
        fade = _fade(now - self.updated, half_life)
        return Stored(
            self.hybrid,
            self.records + records,
            self.steps + scale * records,
            self.weight * fade + scale * us,
            self.step_weight * fade + scale * records,
            now,
        )


# The smallest first: minus the weight that does not fade, and the key, which breaks ties.
_Place = tuple[float, StudyKey]


class _Ranking:
    """Buckets in the order of their time, and the time of all of them, decayed."""

    def __init__(self, half_life: float) -> None:
        self._half_life = half_life
        self._order: list[_Place] = []
        self._total, self._total_at = 0.0, 0.0

    def __len__(self) -> int:
        return len(self._order)

    def fill(self, stored: dict[StudyKey, Stored]) -> None:
        """Start anew with these."""
        self._order = sorted(self._place(key, one) for key, one in stored.items())
        self._total_at = max((one.updated for one in stored.values()), default=0.0)
        self._total = sum(self._weight(key, one) for key, one in stored.items())

    def heaviest(self) -> Iterator[StudyKey]:
        """The heaviest first."""
        return (key for _, key in self._order)

    def lightest(self) -> Iterator[StudyKey]:
        """The lightest first."""
        return (key for _, key in reversed(self._order))

    def total_us(self, now: float) -> float:
        """Attention time of all, decayed to `now`."""
        return self._total * _fade(now - self._total_at, self._half_life)

    def add(self, key: StudyKey, stored: Stored) -> None:
        """One more, at the time that `bring_to` was last told or before."""
        bisect.insort(self._order, self._place(key, stored))
        self._total += self._weight(key, stored)

    def remove(self, key: StudyKey, stored: Stored) -> None:
        """One less."""
        del self._order[bisect.bisect_left(self._order, self._place(key, stored))]
        # Rounding must not leave less than nothing.
        self._total = max(0.0, self._total - self._weight(key, stored))

    def bring_to(self, now: float) -> None:
        """Decay the total to `now`, which only grows."""
        now = max(now, self._total_at)
        self._total, self._total_at = self.total_us(now), now

    def _weight(self, key: StudyKey, stored: Stored) -> float:
        return stored.load(key, self._total_at, self._half_life).attention_us

    def _place(self, key: StudyKey, stored: Stored) -> _Place:
        if stored.weight <= 0.0:
            return math.inf, key
        return -math.log2(stored.weight) - stored.updated / self._half_life, key


class Loads:
    """Every bucket's traffic as the database has it; what is older than `half_life` counts half.

    `put` what a transaction wrote once it is committed; `load` starts from the database anew.
    """

    def __init__(self, half_life: float) -> None:
        self.half_life = half_life
        self._stored: dict[StudyKey, Stored] = {}
        self._all = _Ranking(half_life)
        self._scopes: dict[Scope, _Ranking] = {}

    def __len__(self) -> int:
        return len(self._stored)

    def load(self, tx: sa.Connection) -> None:
        """Read every bucket; one that is unreadable is logged and skipped."""
        self._stored.clear()
        scopes: dict[Scope, dict[StudyKey, Stored]] = {}
        for row in tx.execute(sa.select(schema.bucket_stats)):
            key = StudyKey(row.geometry, row.device, row.build, row.bucket)
            found = _read(key, row)
            if found is not None:
                self._stored[key] = scopes.setdefault(key.scope, {})[key] = found
        self._all.fill(self._stored)
        self._scopes = {scope: _Ranking(self.half_life) for scope in scopes}
        for scope, stored in scopes.items():
            self._scopes[scope].fill(stored)

    def stored(self, key: StudyKey) -> Stored | None:
        """What a bucket's row says, None for a bucket without one."""
        return self._stored.get(key)

    def of(self, key: StudyKey, now: float) -> BucketLoad | None:
        """Traffic of one bucket, None when none was traced."""
        stored = self._stored.get(key)
        return None if stored is None else stored.load(key, now, self.half_life)

    def heaviest(self, now: float, scope: Scope | None = None) -> Iterator[BucketLoad]:
        """Traffic of every bucket (of a scope), heaviest first; for a caller that stops early."""
        ranking = self._ranking(scope)
        for key in ranking.heaviest() if ranking is not None else ():
            yield self._stored[key].load(key, now, self.half_life)

    def lightest(self) -> Iterator[tuple[StudyKey, float]]:
        """Every bucket and when it had traffic, the lightest first."""
        for key in self._all.lightest():
            yield key, self._stored[key].updated

    def total_us(self, now: float, scope: Scope | None = None) -> float:
        """Attention time of all buckets (of a scope), decayed."""
        ranking = self._ranking(scope)
        return 0.0 if ranking is None else ranking.total_us(now)

    def put(self, key: StudyKey, stored: Stored) -> None:
        """A bucket's row as it is now."""
        self._take_out(key, stored.updated)
        self._stored[key] = stored
        mine = self._scopes.setdefault(key.scope, _Ranking(self.half_life))
        for ranking in (self._all, mine):
            ranking.bring_to(stored.updated)
            ranking.add(key, stored)

    def drop(self, key: StudyKey) -> None:
        """A bucket's row is gone."""
        self._take_out(key, 0.0)
        if key.scope in self._scopes and not self._scopes[key.scope]:
            del self._scopes[key.scope]

    def _ranking(self, scope: Scope | None) -> _Ranking | None:
        return self._all if scope is None else self._scopes.get(scope)

    def _take_out(self, key: StudyKey, now: float) -> None:
        """Leave a bucket out, and bring totals to `now`."""
        old = self._stored.pop(key, None)
        if old is not None:
            for ranking in (self._all, self._scopes[key.scope]):
                ranking.bring_to(now)
                ranking.remove(key, old)


def _fade(seconds: float, half_life: float) -> float:
    return float(0.5 ** (max(0.0, seconds) / half_life))


def _read(key: StudyKey, row: sa.Row[Any]) -> Stored | None:
    """A bucket's row, None when it is unreadable."""
    try:
        key.parsed()
        stored = Stored(
            bool(row.hybrid), int(row.records), float(row.steps),
            float(row.weight), float(row.step_weight), float(row.updated),
        )  # fmt: skip
    except ShapeError as error:
        _complain(key, f"its key is unreadable: {error}")
        return None
    except (TypeError, ValueError, OverflowError) as error:
        _complain(key, f"{type(error).__name__}: {error}")
        return None
    numbers = dataclasses.astuple(stored)[1:]
    if all(0.0 <= value < math.inf for value in numbers):
        return stored
    _complain(key, "a number that is negative or not finite")
    return None


@functools.lru_cache(maxsize=1024)
def _complain(key: StudyKey, what: str) -> None:
    """Log a bad row; cached, so that each is logged once."""
    logger.error("bucket row of %s skipped: %s", key, what)
