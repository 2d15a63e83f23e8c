"""All campaigns of the tuner: who finds something out gives it here, what it changes is published.

Workers (search.py), servers (live.py) and people (control.py) all end in `take`, `roll_back` or
`promote`; nothing else writes a table.
"""

from __future__ import annotations

import contextlib
import logging
import math
from collections.abc import Callable, Iterable, Iterator

import sqlalchemy as sa

from pod_integrate.errors import PodAttentionError
from pod_integrate.terms.table import ConfigTable
from tuner.messages import StudyKey
from tuner.search.axes import Known
from tuner.search.campaign import Assignment, Campaign, Means
from tuner.search.experiments import Experiments
from tuner.search.gains import UNKNOWN_GAIN
from tuner.search.holds import Holds
from tuner.search.leases import Leases
from tuner.search.stages import Change, Finding
from tuner.search.state import State
from tuner.search.study import Study
from tuner.search.tasks import make_entry
from tuner.search.transfer import lessons
from tuner.settings import TunerSettings
from tuner.store.rows import Trial, load_trials
from tuner.store.storage import Store, is_storage_failure
from tuner.tables.publish import Publisher
from tuner.traffic.parking import Parking
from tuner.traffic.traffic import Traffic

logger = logging.getLogger(__name__)

# Twice as many as can be worth it at a time, see MIN_TIME_SHARE.
MAX_CAMPAIGNS = 1000
# Buckets this far from each other, in octaves, tell one another what they promote.
_NEAR = 4.0
# Campaigns that may teach a new one.
_STUDIES = 256


class Board:
    """Campaigns by bucket, what is leased of them, and what is held.

    campaigns    of the buckets that this process has worked on
    leases       tasks in the hands of workers
    experiments  those in the hands of servers
    """

    def __init__(
        self, settings: TunerSettings, store: Store, traffic: Traffic, tables: Publisher, now: float
    ) -> None:
        self.settings, self.store, self._traffic, self._tables = settings, store, traffic, tables
        self.campaigns: dict[StudyKey, Campaign] = {}
        self.parking, self.holds, self.leases = Parking(store), Holds(store), Leases()
        self.experiments = Experiments()
        with store.begin() as tx:
            self.holds.load(tx)
            self.experiments.load(tx, now + settings.experiment_seconds)
        self.enforce(now)

    def open(self, key: StudyKey, now: float) -> bool:
        """Whether anything may be measured in a bucket now."""
        return not self.holds.is_pinned(key) and not self.parking.is_parked(key, now)

    def promise(self, key: StudyKey, now: float, *, live: bool = False) -> float:
        """What work on a bucket may gain, as a share of its time.

        inf: what is in force waits to be checked.
        """
        campaign = self.campaigns.get(key)
        if campaign is None:
            return UNKNOWN_GAIN
        return math.inf if campaign.recheck_due(now, live=live) else campaign.promise

    def idle(self, key: StudyKey, now: float) -> bool:
        """Whether it is known, without looking at its steps, that a bucket has nothing to do."""
        campaign = self.campaigns.get(key)
        return campaign is not None and campaign.idle(now)

    def next_work(
        self, tx: sa.Connection, key: StudyKey, now: float, means: Means
    ) -> Assignment | None:
        """What to measure in a bucket now; what somebody measures already is left out."""
        campaign = self.campaign(tx, key, now)
        if campaign is None:
            return None
        campaign.shun(tx, self.holds.barred(key.scope))
        busy = self.leases.busy(key) | self.experiments.busy(key)
        return campaign.next_work(tx, busy, now, means)

    def take(self, key: StudyKey, finding: Finding, now: float) -> None:
        """Give evidence, asked for or not, to a known campaign; publish what it changes."""
        campaign = self.campaigns[key]
        trial = campaign.trials[finding.trial]
        barred = trial.config in self.holds.barred(key.scope)
        if finding.bars and not barred and trial.config != campaign.default:
            self.holds.bar(key.scope, trial.config, f"{finding.outcome}: {finding.reason}", now)
        elif barred and finding.outcome == "measured":
            return
        with self._published(key, now) as (tx, publish):
            publish(campaign.take(tx, finding, now))
        if finding.bars:
            self.enforce(now)

    def roll_back(self, key: StudyKey, reason: str, now: float, *, who: str = "") -> bool:
        """Take a bucket's entry out of its table; False when there is none."""
        if self._tables.promoted(key) is None:
            return False
        with self._published(key, now) as (tx, publish):
            campaign = self.campaign(tx, key, now)
            if campaign is not None:
                publish(campaign.roll_back(tx, reason, now, who=who))
        return self._tables.promoted(key) is None

    def promote(self, key: StudyKey, trial: Trial, change: Change, now: float, who: str) -> bool:
        """Put a trial in force because a person wants it; `change` has its evidence."""
        with self._published(key, now) as (tx, publish):
            self.campaigns[key].promote(tx, trial, change, now, who)
            publish(change)
        return self.campaigns[key].promoted is trial

    def enforce(self, now: float) -> None:
        """Take every barred config out of every table of its scope."""
        for scope, table in self._tables.all().items():
            barred = self.holds.barred(scope)
            for bucket, entry in table.entries.items() if barred else ():
                if entry.config in barred:
                    key = StudyKey(*scope, str(bucket))
                    self.roll_back(key, "its config failed and is barred", now)

    def campaign(self, tx: sa.Connection, key: StudyKey, now: float) -> Campaign | None:
        """The bucket's campaign, read from the database when this process has not seen it yet."""
        if key in self.campaigns:
            # The ones used last stay at the end.
            self.campaigns[key] = self.campaigns.pop(key)
            return self.campaigns[key]
        try:
            geometry, device, bucket = key.parsed()
            trials = load_trials(tx, key)
            study = Study(
                geometry, device, trials=trials, seed=self.settings.seed, bucket=bucket,
                neighbours=self._tables.neighbours(key.scope, bucket),
            )  # fmt: skip
        except PodAttentionError as error:
            logger.error("bucket %s cannot be tuned: %s", key, error)
            return None
        study.learn(self._lessons(key, tx))
        entry = self._tables.entry(key.scope, bucket)
        state = State(
            key, study, trials, entry, self.settings, now,
            neighbours=lambda: self._tables.neighbours(key.scope, bucket),
            share=lambda at: self._traffic.share(key, at),
        )  # fmt: skip
        campaign = Campaign(state)
        self.campaigns[key] = campaign
        self._forget_unused()
        return campaign

    def _forget_unused(self) -> None:
        """Keep the campaigns of the buckets that are worked on; the others are in the database."""
        for key in list(self.campaigns)[: max(0, len(self.campaigns) - MAX_CAMPAIGNS)]:
            if not self.leases.busy(key) and not self.experiments.busy(key):
                del self.campaigns[key]

    @contextlib.contextmanager
    def careful(self, key: StudyKey, now: float) -> Iterator[None]:
        """When a transaction fails, memory must not know more than the database.

        The database's own failures are raised; any other one is this bucket's, and costs it alone.
        """
        try:
            yield
        except Exception as error:
            self.forget(key)
            if is_storage_failure(error):
                raise
            logger.exception("bucket %s failed", key)
            self.parking.failed(key, "failed", f"{type(error).__name__}: {error}", now)

    def forget(self, key: StudyKey) -> None:
        """Read a bucket anew when it is next asked for, and take back what is leased of it."""
        self.campaigns.pop(key, None)
        self.leases.forget(key)
        self.experiments.forget(key)

    @contextlib.contextmanager
    def _published(
        self, key: StudyKey, now: float
    ) -> Iterator[tuple[sa.Connection, Callable[[Change | None], None]]]:
        """A transaction, and what puts a Change of it into the bucket's table when it is over."""
        made: list[ConfigTable] = []

        with self.careful(key, now):
            with self.store.begin() as tx:

                def publish(change: Change | None) -> None:
                    if change is not None:
                        entry = make_entry(change, key.build, self.settings.confidence, now)
                        bucket = key.parsed()[2]
                        made.append(self._tables.change(tx, key.scope, bucket, entry, now))

                yield tx, publish
            for table in made:
                self._tables.commit(key.scope, table)
                self._tell_neighbours(key)

    def _tell_neighbours(self, key: StudyKey) -> None:
        """Campaigns of similar buckets try next what has just been promoted."""
        entry = self._tables.promoted(key)
        if entry is None:
            return
        bucket = key.parsed()[2]
        for other, campaign in self.campaigns.items():
            near = other.scope == key.scope and bucket.distance(other.parsed()[2]) <= _NEAR
            if near and other != key:
                campaign.hear(entry.config, self._lessons(other))

    def _lessons(self, key: StudyKey, tx: sa.Connection | None = None) -> list[Known]:
        """What studies like a bucket's found; without `tx` only those in memory."""

        def trials_of(other: StudyKey) -> Iterable[Trial]:
            if other in self.campaigns:
                return self.campaigns[other].trials.values()
            return load_trials(tx, other) if tx is not None else ()

        # The ones used last stand at the end.
        lately = list(self.campaigns)[-_STUDIES:]
        return lessons(key, [*lately, *self._tables.like(key)], trials_of)
