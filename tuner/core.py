"""The tuner itself, free of Ray and HTTP: traces in, tasks out, reports in, tables out.

One instance owns one database; its methods are quick, never wait for a measurement and must be
called by one thread at a time. It may die between any two instructions: whatever a method
returned is committed, and a new instance goes on from the database.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import sqlalchemy as sa

from pod_integrate.errors import PodAttentionError
from pod_integrate.terms.table import MIN_STEPS
from pod_integrate.terms.trace import TraceMessage
from tuner.clock import SteadyClock, settle
from tuner.leases import MAX_LOST, Lease, Leases, WorkerState
from tuner.messages import Recheck, Report, Scope, StudyKey, Task, WorkerInfo
from tuner.search import rechecks
from tuner.search.assemble import make_entry, make_task
from tuner.search.campaign import Campaign, Change
from tuner.search.study import Study
from tuner.settings import TunerSettings
from tuner.store.archive import TraceArchive
from tuner.store.rows import load_trials
from tuner.store.storage import Store, is_storage_failure
from tuner.tables.publish import Publisher
from tuner.traffic import ingest as traffic
from tuner.traffic.budget import Budgets
from tuner.traffic.ingest import Ingested
from tuner.traffic.parking import Parking, worth_tuning
from tuner.traffic.steps import Pools
from tuner.view import overview

logger = logging.getLogger(__name__)

_WORKER_SILENCE_SECONDS = 600.0


class Tuner:
    """See the module. `clock` returns Unix seconds that only grow; default a SteadyClock."""

    def __init__(
        self, settings: TunerSettings, store: Store, *, clock: Callable[[], float] | None = None
    ) -> None:
        self.settings, self.store, self.clock = settings, store, clock or SteadyClock()
        self.archive = TraceArchive(store, settings.archive_dir, limit_bytes=settings.archive_bytes)
        self.publisher = Publisher(settings.half_life_seconds)
        self.started = self.clock()
        with store.begin() as tx:
            settle(tx, self.started)
            self.publisher.load(tx)
        self.campaigns: dict[StudyKey, Campaign] = {}
        self.workers: dict[str, WorkerState] = {}
        self.host_mode = "plain"
        self.parking, self._budgets = Parking(store), Budgets()
        self._leases = Leases()
        self._pools = Pools()
        self._history_due = 0.0

    def ingest(self, message: TraceMessage) -> Ingested:
        """Take a checked trace message; committed when this returns."""
        with self.store.begin() as tx:
            half_life = self.settings.half_life_seconds
            return traffic.ingest(tx, message, self._budgets, now=self.clock(), half_life=half_life)

    def next_task(self, worker: WorkerInfo) -> Task | None:
        """The most useful slice of work that `worker` can do, or None; it is leased to it.

        Buckets are served in order of attention time, those first whose promoted config is to be
        checked again; one that has nothing left to measure lets the next one through.
        """
        now = self.clock()
        state = self.workers.setdefault(worker.id, WorkerState(worker, now))
        state.info, state.seen, state.task = worker, now, None
        self._expire(now)
        with self.store.read() as tx:
            loads = traffic.loads(tx, now=now, half_life=self.settings.half_life_seconds)
        worth = worth_tuning(loads, self.settings, worker, self.parking, now)
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
        now = self.clock()
        report = report.checked()
        lease = self._leases.take_back(report.task)
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
        self._file(lease, msgspec.structs.replace(report, pairs=pairs), now)
        if report.outcome == "measured":
            self.parking.worked(lease.task.key)
        else:
            self.parking.failed(lease.task.key, report.outcome, report.reason, now)
        return True

    def release(self, worker: str) -> None:
        """Tell that a worker died: what it held goes to another one at once."""
        for lease in self._leases.of(worker):
            self._count_lost(lease, self.clock())
        self.workers.pop(worker, None)

    def table(self, scope: Scope) -> bytes | None:
        """The scope's table in force as JSON, None before its first promotion."""
        table = self.publisher.latest(scope)
        return None if table is None else table.to_json()

    def overview(self) -> dict[str, Any]:
        """Everything the page shows; see overview.py."""
        return overview.build(self)

    def trials(self, key: StudyKey) -> dict[str, Any]:
        """Every trial of one study; see overview.py."""
        return overview.trials(self, key)

    def samples(self, scope: Scope) -> dict[str, Any]:
        """Traced lengths of a scope's heaviest buckets; see overview.py."""
        return overview.samples(self, scope)

    def recheck(self, message: Recheck) -> str:
        """Judge a promoted config by somebody else's pairs; see rechecks.py."""
        return rechecks.file(self, message)

    def housekeeping(self) -> None:
        """Take back overdue leases, forget silent workers, add history, archive what waits."""
        now = self.clock()
        self._expire(now)
        for name, state in list(self.workers.items()):
            if now - state.seen > _WORKER_SILENCE_SECONDS:
                del self.workers[name]
        if now >= self._history_due:
            overview.add_history_point(self)
            self._history_due = now + overview.HISTORY_SECONDS
        self.archive.keep_up(now=now)

    def close(self) -> None:
        """Give the database back."""
        self.store.close()

    def _recheck_due(self, key: StudyKey, now: float) -> bool:
        campaign = self.campaigns.get(key)
        return campaign is not None and campaign.recheck_due(now)

    def _task_for(self, key: StudyKey, worker: str, now: float) -> Task | None:
        work = None
        with self._careful(key, now), self.store.begin() as tx:
            pool = self._pools.of(tx, key, now)
            if len(pool) < MIN_STEPS + self.settings.screen_steps:
                # Nothing could be promoted here.
                return None
            campaign = self.campaign(tx, key, now)
            work = campaign and campaign.next_work(tx, self._leases.busy(key), now, pool)
        if not work:
            return None
        lost = self._leases.lost(key, work.trial.number, work.phase)
        task = make_task(self.settings, key, work, lost)
        self._leases.grant(Lease(task, work, worker, now + self.settings.lease_seconds))
        return task

    def campaign(self, tx: sa.Connection, key: StudyKey, now: float) -> Campaign | None:
        """The bucket's campaign, read from the database when this process has not seen it yet."""
        if key in self.campaigns:
            return self.campaigns[key]
        try:
            geometry, device, bucket = key.parsed()
            trials = load_trials(tx, key)
            study = Study(
                geometry, device, trials=trials, seed=self.settings.seed,
                neighbours=self.publisher.neighbours(key.scope, bucket),
            )  # fmt: skip
        except PodAttentionError as error:
            logger.error("bucket %s cannot be tuned: %s", key, error)
            return None
        entry = self.publisher.entry(key.scope, bucket)
        campaign = Campaign(
            key, study, trials, entry, self.settings, now,
            neighbours=lambda: self.publisher.neighbours(key.scope, bucket),
        )  # fmt: skip
        self.campaigns[key] = campaign
        return campaign

    def _file(self, lease: Lease, report: Report, now: float) -> None:
        task, trial = lease.task, lease.work.trial
        campaign = self.campaigns[task.key]
        self.change(task.key, now, lambda tx: campaign.report(
            tx, trial, task.phase, report.outcome, report.reason, report.pairs, now,
            last=lease.work.last,
        ))  # fmt: skip

    def change(
        self, key: StudyKey, now: float, decide: Callable[[sa.Connection], Change | None]
    ) -> None:
        """Let a bucket's campaign decide, and publish what it changed."""
        table = None
        with self._careful(key, now), self.store.begin() as tx:
            change = decide(tx)
            if change is not None:
                entry = make_entry(change, key.build, self.settings.confidence, now)
                table = self.publisher.change(tx, key.scope, key.parsed()[2], entry, now)
        if table is not None:
            self.publisher.commit(key.scope, table)

    @contextlib.contextmanager
    def _careful(self, key: StudyKey, now: float) -> Iterator[None]:
        """When a transaction fails, memory must not know more than the database.

        The database's own failures are raised; any other one is this bucket's, and costs it alone.
        """
        try:
            yield
        except Exception as error:
            self.campaigns.pop(key, None)
            self._leases.forget(key)
            if is_storage_failure(error):
                raise
            logger.exception("bucket %s failed", key)
            self.parking.failed(key, "failed", f"{type(error).__name__}: {error}", now)

    def _expire(self, now: float) -> None:
        for lease in self._leases.overdue(now):
            self._count_lost(lease, now)

    def _count_lost(self, lease: Lease, now: float) -> None:
        self.parking.failed(lease.task.key, "lost", "a worker never reported", now)
        if self._leases.count_lost(lease):
            why = f"{MAX_LOST} workers took it and never reported; the config may crash them"
            report = Report(task=lease.task.id, worker=lease.worker, outcome="failed", reason=why)
            self._file(lease, report, now)
