"""The search over all buckets: who measures what, and what evidence changes.

Tasks go out to workers and are leased; evidence comes back by their reports, or from others who
measured unasked. Both end in `take`.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator

import sqlalchemy as sa

from pod_integrate.errors import PodAttentionError
from pod_integrate.terms.table import MIN_STEPS
from tuner.messages import RecheckPairs, Report, Standing, StudyKey, Task, WorkerInfo
from tuner.phases import Recheck
from tuner.search.campaign import Campaign
from tuner.search.leases import MAX_LOST, Lease, Leases, WorkerState
from tuner.search.stages import Finding
from tuner.search.state import State
from tuner.search.study import Study
from tuner.search.tasks import make_entry, make_task
from tuner.settings import TunerSettings
from tuner.store.rows import load_trials
from tuner.store.storage import Store, is_storage_failure
from tuner.tables.publish import Publisher
from tuner.traffic.parking import Parking, worth_tuning
from tuner.traffic.traffic import Traffic

logger = logging.getLogger(__name__)

_WORKER_SILENCE_SECONDS = 600.0


class Search:
    """Campaigns by bucket, workers and their leases; `clock` returns Unix seconds.

    campaigns  of the buckets that this process has worked on
    workers    that were heard of lately, by id
    """

    def __init__(
        self,
        settings: TunerSettings,
        store: Store,
        traffic: Traffic,
        tables: Publisher,
        clock: Callable[[], float],
    ) -> None:
        self._settings, self._store, self._clock = settings, store, clock
        self._traffic, self._tables = traffic, tables
        self.campaigns: dict[StudyKey, Campaign] = {}
        self.workers: dict[str, WorkerState] = {}
        self.parking = Parking(store)
        self.leases = Leases()

    def next_task(self, worker: WorkerInfo) -> Task | None:
        """The most useful slice of work that `worker` can do, or None; it is leased to it.

        Buckets are served in order of attention time, those first whose promoted config is to be
        checked again; one that has nothing left to measure lets the next one through.
        """
        now = self._clock()
        state = self.workers.setdefault(worker.id, WorkerState(worker, now))
        state.info, state.seen, state.task = worker, now, None
        self.expire(now)
        worth = worth_tuning(self._traffic, self._settings, worker, self.parking, now)
        for load in sorted(worth, key=lambda load: not self._recheck_due(load.key, now)):
            task = self._task_for(load.key, worker.id, now)
            if task is not None:
                state.task, state.since = f"{load.key.bucket} #{task.number} {task.phase}", now
                return task
        return None

    def report(self, report: Report) -> bool:
        """File the result of a task; False when its lease is not (any more) held.

        The same report twice is filed once.
        """
        now = self._clock()
        report = report.checked()
        lease = self.leases.take_back(report.task)
        state = self.workers.get(report.worker)
        if state is not None:
            state.seen, state.task, state.since = now, None, now
        if lease is None:
            logger.info("report of %s for an unknown or expired task ignored", report.worker)
            return False
        # Only what was asked for counts: a step that the core did not draw proves nothing.
        asked = {lengths.digest for lengths in lease.task.batches}
        pairs = [pair for pair in report.pairs if pair.batch in asked]
        if report.outcome == "measured" and not pairs:
            self._count_lost(lease, now)
            return True
        key, work = lease.task.key, lease.work
        self.take(key, Finding(
            trial=work.stage.trial.number, phase=work.stage.phase, pairs=pairs,
            outcome=report.outcome, reason=report.reason, last=work.last,
        ), now)  # fmt: skip
        if report.outcome == "measured":
            self.parking.worked(key)
        else:
            self.parking.failed(key, report.outcome, report.reason, now)
        return True

    def recheck(self, message: RecheckPairs) -> Standing:
        """Judge a promoted config by somebody else's pairs: they can only take away.

        A promotion needs steps that the core drew and a worker that it asked. Doubt needs less:
        whoever may post traces may post these. Returns `kept`, `rolled back`, `open` (fewer steps
        than a verdict needs) or `not promoted` (any more).
        """
        key, now = message.key, self._clock()
        # Only what a table lists has a campaign to load: strangers' keys cost nothing.
        entry = self._tables.entry(key.scope, key.parsed()[2])
        if entry is None or entry.evidence.trial != message.trial:
            return "not promoted"
        with self._store.begin() as tx:
            campaign = self.campaign(tx, key, now)
        trial = campaign.promoted if campaign is not None else None
        if campaign is None or trial is None:
            return "not promoted"
        passed = trial.rechecks
        phase = Recheck(passed)
        self.take(
            key, Finding(trial=trial.number, phase=phase, pairs=message.pairs, last=True), now
        )
        if campaign.promoted is not trial:
            return "rolled back"
        return "kept" if trial.rechecks > passed else "open"

    def take(self, key: StudyKey, finding: Finding, now: float) -> None:
        """Give evidence, asked for or not, to a known campaign; publish what it changes."""
        campaign, table = self.campaigns[key], None
        with self._careful(key, now), self._store.begin() as tx:
            change = campaign.take(tx, finding, now)
            if change is not None:
                entry = make_entry(change, key.build, self._settings.confidence, now)
                table = self._tables.change(tx, key.scope, key.parsed()[2], entry, now)
        if table is not None:
            self._tables.commit(key.scope, table)

    def release(self, worker: str) -> None:
        """Tell that a worker died: what it held goes to another one at once."""
        for lease in self.leases.of(worker):
            self._count_lost(lease, self._clock())
        self.workers.pop(worker, None)

    def expire(self, now: float) -> None:
        """Take overdue leases back."""
        for lease in self.leases.overdue(now):
            self._count_lost(lease, now)

    def forget_silent(self, now: float) -> None:
        """Forget workers that have not been heard of for long."""
        for name, state in list(self.workers.items()):
            if now - state.seen > _WORKER_SILENCE_SECONDS:
                del self.workers[name]

    def forget(self, key: StudyKey) -> None:
        """Read a bucket anew when it is next asked for, and take back what is leased of it."""
        self.campaigns.pop(key, None)
        self.leases.forget(key)

    def campaign(self, tx: sa.Connection, key: StudyKey, now: float) -> Campaign | None:
        """The bucket's campaign, read from the database when this process has not seen it yet."""
        if key in self.campaigns:
            return self.campaigns[key]
        try:
            geometry, device, bucket = key.parsed()
            trials = load_trials(tx, key)
            study = Study(
                geometry, device, trials=trials, seed=self._settings.seed,
                neighbours=self._tables.neighbours(key.scope, bucket),
            )  # fmt: skip
        except PodAttentionError as error:
            logger.error("bucket %s cannot be tuned: %s", key, error)
            return None
        entry = self._tables.entry(key.scope, bucket)
        state = State(
            key, study, trials, entry, self._settings, now,
            neighbours=lambda: self._tables.neighbours(key.scope, bucket),
        )  # fmt: skip
        campaign = Campaign(state)
        self.campaigns[key] = campaign
        return campaign

    def _recheck_due(self, key: StudyKey, now: float) -> bool:
        campaign = self.campaigns.get(key)
        return campaign is not None and campaign.recheck_due(now)

    def _task_for(self, key: StudyKey, worker: str, now: float) -> Task | None:
        work = None
        with self._careful(key, now), self._store.begin() as tx:
            pool = self._traffic.pool(tx, key, now)
            if len(pool) < MIN_STEPS + self._settings.screen_steps:
                # Nothing could be promoted here.
                return None
            campaign = self.campaign(tx, key, now)
            work = campaign and campaign.next_work(tx, self.leases.busy(key), now, pool)
        if not work:
            return None
        lost = self.leases.lost(key, work.stage.trial.number, str(work.stage.phase))
        task = make_task(self._settings, key, work, lost)
        self.leases.grant(Lease(task, work, worker, now + self._settings.lease_seconds))
        return task

    @contextlib.contextmanager
    def _careful(self, key: StudyKey, now: float) -> Iterator[None]:
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

    def _count_lost(self, lease: Lease, now: float) -> None:
        key, stage = lease.task.key, lease.work.stage
        self.parking.failed(key, "lost", "a worker never reported", now)
        if self.leases.count_lost(lease):
            why = f"{MAX_LOST} workers took it and never reported; the config may crash them"
            self.take(key, Finding(
                trial=stage.trial.number, phase=stage.phase, pairs=[], outcome="failed",
                reason=why, last=lease.work.last,
            ), now)  # fmt: skip
