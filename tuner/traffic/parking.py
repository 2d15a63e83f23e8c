"""Which buckets are served: those worth it whose measurements do not keep failing.

A bucket may fail as a whole: no memory beside the server, a step that hangs the device, rows that
nobody can read. After some failures in a row it is parked, each time twice as long as before, until
a measurement of it succeeds. Kept in memory only: a restart tries everything once more.
"""

from __future__ import annotations

import dataclasses
import itertools
import logging

from tuner.messages import MAX_REASON, Scope, StudyKey, WorkerInfo
from tuner.settings import TunerSettings
from tuner.store.rows import Decision, add_decision
from tuner.store.storage import Store
from tuner.traffic.loads import BucketLoad
from tuner.traffic.traffic import Traffic

logger = logging.getLogger(__name__)

# A bucket below this share of attention time is not worth measuring.
MIN_TIME_SHARE = 0.002
FIRST_SECONDS, LONGEST_SECONDS = 30.0, 3600.0
# In a row; one more than a single config that kills its workers causes. A config that cannot run
# here or computes something else is at fault itself, and many may be: it counts as a part of one.
FAILURES = 4.0
_SHARE_OF_FAILURE = {"infeasible": 0.25, "mismatch": 0.25}


@dataclasses.dataclass
class _Place:
    failures: float = 0.0
    times: int = 0
    until: float = float("-inf")


class Parking:
    """Which buckets wait, and until when; parking one is a decision in `store`."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._places: dict[StudyKey, _Place] = {}

    def worked(self, key: StudyKey) -> None:
        """A measurement brought pairs: all failures so far are forgotten."""
        self._places.pop(key, None)

    def failed(self, key: StudyKey, outcome: str, reason: str, now: float) -> None:
        """Count a failure, and park the bucket when it is one too many."""
        place = self._places.setdefault(key, _Place())
        place.failures += _SHARE_OF_FAILURE.get(outcome, 1.0)
        if place.failures < FAILURES or now < place.until:
            return
        seconds = min(LONGEST_SECONDS, FIRST_SECONDS * 2.0 ** min(place.times, 16))
        place.times += 1
        place.until = now + seconds
        text = f"measurements fail, next try in {seconds:.0f} s; the last: {reason}"[:MAX_REASON]
        logger.warning("bucket %s parked: %s", key, text)
        # One alert for each time that a bucket begins to fail.
        decision = Decision(now, "park", key, text, alert=place.times == 1)
        with self._store.begin() as tx:
            add_decision(tx, decision)

    def is_parked(self, key: StudyKey, now: float) -> bool:
        """Whether a bucket waits."""
        place = self._places.get(key)
        return place is not None and now < place.until


def worth_tuning(
    traffic: Traffic,
    settings: TunerSettings,
    worker: WorkerInfo,
    parking: Parking,
    now: float,
) -> list[BucketLoad]:
    """The loads that `worker` should be given work of now, heaviest first: 1 / MIN_TIME_SHARE."""
    least = MIN_TIME_SHARE * traffic.total_us(now)
    heavy = itertools.takewhile(
        lambda load: load.attention_us >= max(least, 1e-300), traffic.heaviest(now)
    )
    can: dict[Scope, bool] = {}
    return [
        load
        for load in heavy
        if load.steps >= settings.min_steps
        and can.setdefault(load.key.scope, worker.can_measure(load.key.scope))
        and not parking.is_parked(load.key, now)
    ]
