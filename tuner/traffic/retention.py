"""What is forgotten: buckets that nobody runs any more, pairs that decide nothing any more.

A little at a time, so that nothing waits for it. A bucket whose config is in a table keeps all.
"""

from __future__ import annotations

import itertools
import logging
from collections import Counter
from collections.abc import Callable

import sqlalchemy as sa

from tuner.messages import StudyKey
from tuner.settings import TunerSettings
from tuner.store import schema
from tuner.store.rows import parts, where
from tuner.store.storage import Store
from tuner.store.totals import Counts, newest, note_forgotten
from tuner.traffic.traffic import Traffic

logger = logging.getLogger(__name__)

# Rows looked at, and buckets dropped, in one round.
_ROWS, _BUCKETS = 5000, 50
_SECONDS = 10.0
# Decisions of these kinds come by the thousand and say little later; the others are the audit log.
ROUTINE = ("start", "prune", "keep", "park")


class Retention:
    """Forgets for one tuner.

    keeps   whether a bucket must be kept, because its config is in a table
    forget  drops what memory has of a bucket's search
    """

    def __init__(
        self, settings: TunerSettings, store: Store, traffic: Traffic, counts: Counts,
        keeps: Callable[[StudyKey], bool], forget: Callable[[StudyKey], None],
    ) -> None:  # fmt: skip
        self._settings, self._store, self._traffic = settings, store, traffic
        self._counts, self._keeps, self._forget = counts, keeps, forget
        self._due = 0.0
        # How far each table has been looked through, by id.
        self._seen: Counter[str] = Counter()

    def keep_up(self, now: float) -> None:
        """One round, when one is due."""
        if now < self._due:
            return
        self._due = now + _SECONDS
        before = now - self._settings.retain_seconds
        dropped = self._outdated(before)
        silent = schema.servers.c.last_seen < before
        try:
            with self._store.begin() as tx, self._counts.forgetting(tx):
                for key in dropped:
                    self._drop(tx, key)
                self._drop_pairs(tx, before)
                self._drop_decisions(tx, before)
                tx.execute(sa.delete(schema.servers).where(silent))
                # Ids of rows that are gone may be given out again.
                for table in (schema.pairs, schema.decisions):
                    self._seen[table.name] = min(self._seen[table.name], newest(tx, table))
        except Exception:
            # What was counted and looked at may be there still.
            self._counts.start_anew()
            self._seen.clear()
            raise
        for key in dropped:
            self._traffic.forget(key)
            self._forget(key)
        if dropped:
            logger.info("%d buckets forgotten, the first %s", len(dropped), dropped[0])

    def _outdated(self, before: float) -> list[StudyKey]:
        """Buckets that had no traffic since, and the lightest of those that are too many."""
        over = len(self._traffic) - self._settings.max_buckets
        lightest = itertools.islice(self._traffic.lightest(), _ROWS)
        found = [
            key
            for n, (key, updated) in enumerate(lightest)
            if (n < over or updated < before) and not self._keeps(key)
        ]
        return found[:_BUCKETS]

    def _drop(self, tx: sa.Connection, key: StudyKey) -> None:
        trials, pairs = schema.trials, schema.pairs
        mine = where(trials, key)
        states = tx.scalars(sa.select(trials.c.state).where(mine)).all()
        theirs = pairs.c.trial_id.in_(sa.select(trials.c.id).where(mine))
        gone = tx.execute(sa.delete(pairs).where(theirs)).rowcount
        tx.execute(sa.delete(trials).where(mine))
        for table in (schema.bucket_samples, schema.bucket_stats):
            tx.execute(sa.delete(table).where(where(table, key)))
        if states:
            sums = {"trials": len(states), "pruned": list(states).count("pruned"), "pairs": gone}
            note_forgotten(tx, Counter(sums))

    def _drop_pairs(self, tx: sa.Connection, before: float) -> None:
        """Old pairs of trials that are over and not in force; what they said is in the trial."""
        c, trials = schema.pairs.c, schema.trials.c
        some = sa.select(c.id, c.time, trials.state, trials.verdict).where(
            c.id > self._seen["pairs"], c.trial_id == trials.id
        )
        rows = tx.execute(some.order_by(c.id).limit(_ROWS)).all()
        old = list(itertools.takewhile(lambda row: row.time < before, rows))
        if old:
            self._seen["pairs"] = old[-1].id
        over = [r.id for r in old if r.verdict != "promoted" and r.state != "running"]
        for part in parts(over):
            tx.execute(sa.delete(schema.pairs).where(c.id.in_(part)))
        if over:
            note_forgotten(tx, Counter(pairs=len(over)))

    def _drop_decisions(self, tx: sa.Connection, before: float) -> None:
        c = schema.decisions.c
        some = sa.select(c.id, c.time).where(c.id > self._seen["decisions"]).order_by(c.id)
        rows = itertools.takewhile(
            lambda row: row.time < before, tx.execute(some.limit(_ROWS)).all()
        )
        if old := [row.id for row in rows]:
            self._seen["decisions"] = old[-1]
            routine = sa.and_(c.kind.in_(ROUTINE), sa.not_(c.alert))
            span = c.id.between(old[0], old[-1])
            tx.execute(sa.delete(schema.decisions).where(span, routine))
