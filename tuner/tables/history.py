"""What the tables in force save, as a time series.

Every HISTORY_SECONDS one point: counters so far and two estimates of the mean attention time of one
forward step of the current traffic mix, in microseconds, from the BUCKETS heaviest buckets.

  attention_us_default  over these, weighted by decayed steps: the median traced attention time
                        of steps that ran the default config (where none is kept any more, at
                        least: that of tuned steps times the lower bound of their speed-up)
  attention_us_tuned    at most: the same with each bucket's time divided by the lower bound of its
                        promoted config's speed-up; buckets without one stay as they are

Buckets whose traces carry no attention time are left out of both.
"""

from __future__ import annotations

import itertools

import sqlalchemy as sa

from tuner.store.rows import HistoryPoint, add_history
from tuner.store.storage import Store
from tuner.store.totals import Counts
from tuner.tables.publish import Publisher
from tuner.traffic.times import Medians
from tuner.traffic.traffic import Traffic

HISTORY_SECONDS = 10.0
# In recorded traces 98 buckets take 97 % of the time and more.
BUCKETS = 200


class History:
    """Adds the points of one tuner."""

    def __init__(self, store: Store, traffic: Traffic, tables: Publisher, counts: Counts) -> None:
        self._store, self._traffic, self._tables = store, traffic, tables
        self._counts = counts
        self._due = 0.0

    def keep_up(self, now: float) -> None:
        """Store a point when one is due."""
        if now < self._due:
            return
        with self._store.begin() as tx:
            add_history(tx, self._point(tx, now))
        self._due = now + HISTORY_SECONDS

    def _point(self, tx: sa.Connection, now: float) -> HistoryPoint:
        steps = default = tuned = 0.0
        for load in itertools.islice(self._traffic.heaviest(now), BUCKETS):
            entry = self._tables.promoted(load.key)
            bound = entry.evidence.lower_bound if entry is not None else 1.0
            us = _default_attention_us(self._traffic.medians(tx, load, now), bound)
            if us is not None:
                steps += load.recent_steps
                default += load.recent_steps * us
                tuned += load.recent_steps * us / bound
        counted = self._counts.totals(tx)
        return HistoryPoint(
            time=now,
            records=counted.records,
            trials=counted.trials,
            promotions=counted.promotions,
            attention_us_default=default / steps if steps else None,
            attention_us_tuned=tuned / steps if steps else None,
        )


def _default_attention_us(medians: Medians, bound: float) -> float | None:
    if medians.default is not None:
        return medians.default
    return medians.all * bound if medians.all is not None else None
