"""How long the kept steps of a bucket took: medians, computed again when enough has changed."""

from __future__ import annotations

import statistics
from typing import NamedTuple

import sqlalchemy as sa

from tuner.bounded import Recent
from tuner.messages import StudyKey
from tuner.traffic.loads import BucketLoad
from tuner.traffic.samples import attention_times

# More than are ever shown or summed at once.
_KNOWN_BUCKETS = 1024
# A bucket that has grown by less since is looked at again only after a while.
_GROWTH, _SECONDS = 1.25, 10.0


class Medians(NamedTuple):
    """Attention us of a bucket's steps: of all, and of those that ran the default config."""

    all: float | None
    default: float | None


class Times:
    """Medians of the buckets that were asked for lately."""

    def __init__(self) -> None:
        self._known: Recent[StudyKey, tuple[int, float, Medians]] = Recent(_KNOWN_BUCKETS)

    def of(self, tx: sa.Connection, load: BucketLoad, now: float) -> Medians:
        """The medians of one bucket, some seconds old at most."""
        known = self._known.get(load.key)
        if known is not None:
            records, since, medians = known
            young = 0 <= now - since < _SECONDS and load.records < _GROWTH * records
            if young or load.records == records:
                return medians
        medians = _medians(attention_times(tx, load.key))
        self._known.put(load.key, (load.records, now, medians))
        return medians

    def forget(self, key: StudyKey) -> None:
        """A bucket is gone."""
        self._known.pop(key)


def _medians(times: list[tuple[float, str]]) -> Medians:
    default = [us for us, source in times if source == "default"]
    return Medians(
        statistics.median(us for us, _ in times) if times else None,
        statistics.median(default) if default else None,
    )
