"""What servers run: traces in, load of every bucket out, steps to measure on."""

from __future__ import annotations

import sqlalchemy as sa

from pod_integrate.terms.trace import TraceMessage
from tuner.messages import StudyKey
from tuner.store.storage import Store
from tuner.traffic import ingest
from tuner.traffic.budget import Budgets
from tuner.traffic.ingest import BucketLoad, Ingested
from tuner.traffic.samples import Sample
from tuner.traffic.steps import Pools


class Traffic:
    """Traffic of one tuner; what is older than `half_life` seconds counts half."""

    def __init__(self, store: Store, half_life: float) -> None:
        self._store, self._half_life = store, half_life
        self._budgets, self._pools = Budgets(), Pools()

    def ingest(self, message: TraceMessage, now: float) -> Ingested:
        """Take a checked trace message; committed when this returns."""
        with self._store.begin() as tx:
            return ingest.ingest(tx, message, self._budgets, now=now, half_life=self._half_life)

    def loads(self, tx: sa.Connection, now: float) -> list[BucketLoad]:
        """Traffic of every bucket, decayed to `now`, heaviest first."""
        return ingest.loads(tx, now=now, half_life=self._half_life)

    def pool(self, tx: sa.Connection, key: StudyKey, now: float) -> list[Sample]:
        """Distinct steps of a bucket that may be measured on, some seconds old at most."""
        return self._pools.of(tx, key, now)
