"""What servers run: traces in, load of every bucket out, steps to measure on."""

from __future__ import annotations

from collections.abc import Iterator

import sqlalchemy as sa

from pod_integrate.terms.trace import TraceMessage
from tuner.messages import Scope, StudyKey
from tuner.store.storage import Store
from tuner.traffic.budget import Budgets
from tuner.traffic.ingest import Buckets, Ingested, ingest
from tuner.traffic.loads import BucketLoad, Loads
from tuner.traffic.samples import Sample
from tuner.traffic.steps import Pools
from tuner.traffic.times import Medians, Times


class Traffic:
    """Traffic of one tuner; what is older than `half_life` seconds counts half.

    Every bucket's counters are in memory, as the database has them; `load` them first.
    """

    def __init__(self, store: Store, half_life: float) -> None:
        self._store = store
        self._buckets = Buckets(Loads(half_life), {})
        self._budgets, self._pools, self._times = Budgets(), Pools(), Times()
        # Whether memory is for sure what the database has.
        self._sure = False

    def load(self, tx: sa.Connection) -> None:
        """Read what the database has."""
        self._buckets.loads.load(tx)
        self._buckets.bounds.clear()
        self._sure = True

    def ingest(self, message: TraceMessage, now: float) -> Ingested:
        """Take a checked trace message; committed when this returns."""
        sure, self._sure = self._sure, False
        with self._store.begin() as tx:
            if not sure:
                self.load(tx)
                self._sure = False
            taken, changes = ingest(tx, message, self._budgets, self._buckets, now)
        for change in changes:
            self._buckets.loads.put(change.key, change.stored)
            self._buckets.bounds[change.key] = change.bound
        self._sure = True
        return taken

    def heaviest(self, now: float, scope: Scope | None = None) -> Iterator[BucketLoad]:
        """Traffic of every bucket (of a scope), decayed to `now`, heaviest first; stop early."""
        return self._buckets.loads.heaviest(now, scope)

    def __len__(self) -> int:
        return len(self._buckets.loads)

    def lightest(self) -> Iterator[tuple[StudyKey, float]]:
        """Every bucket and when it had traffic, lightest first."""
        return self._buckets.loads.lightest()

    def forget(self, key: StudyKey) -> None:
        """A bucket is not in the database any more."""
        self._buckets.loads.drop(key)
        self._buckets.bounds.pop(key, None)
        self._times.forget(key)

    def total_us(self, now: float, scope: Scope | None = None) -> float:
        """Attention time of all buckets (of a scope), decayed."""
        return self._buckets.loads.total_us(now, scope)

    def load_of(self, key: StudyKey, now: float) -> BucketLoad | None:
        """Traffic of one bucket; None when none was traced."""
        return self._buckets.loads.of(key, now)

    def share(self, key: StudyKey, now: float) -> float:
        """What part of all attention time a bucket takes, 0 to 1."""
        load, total = self.load_of(key, now), self.total_us(now)
        return load.attention_us / total if load is not None and total > 0 else 0.0

    def medians(self, tx: sa.Connection, load: BucketLoad, now: float) -> Medians:
        """How long a bucket's kept steps took, some seconds old at most."""
        return self._times.of(tx, load, now)

    def pool(self, tx: sa.Connection, key: StudyKey, now: float) -> list[Sample]:
        """Distinct steps of a bucket that may be measured on, some seconds old at most."""
        return self._pools.of(tx, key, now)
