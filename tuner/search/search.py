"""The search over all buckets: what workers measure, and what their evidence changes.

Tasks go out to workers and are leased; evidence comes back by their reports, or from others who
measured unasked. Servers measure too (live.py), people may interfere (control.py); all of it meets
on the board.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from pod_integrate.terms.table import MIN_STEPS
from tuner.messages import RecheckPairs, Report, Standing, StudyKey, Task, WorkerInfo
from tuner.phases import Recheck
from tuner.search.board import Board
from tuner.search.campaign import Campaign, Means
from tuner.search.control import Control
from tuner.search.leases import MAX_LOST, Lease, Leases, WorkerState
from tuner.search.live import Live
from tuner.search.stages import Finding
from tuner.search.tasks import make_task
from tuner.settings import TunerSettings
from tuner.store.storage import Store
from tuner.tables.publish import Publisher
from tuner.traffic.parking import Parking, worth_tuning
from tuner.traffic.traffic import Traffic

logger = logging.getLogger(__name__)

_WORKER_SILENCE_SECONDS = 600.0


class Search:
    """Workers and their leases over a board of campaigns; `clock` returns Unix seconds.

    board    the campaigns and what is held
    live     servers that measure on their own steps
    control  people's orders
    workers  that were heard of lately, by id
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
        self.workers: dict[str, WorkerState] = {}
        self.board = Board(settings, store, traffic, tables, clock())
        self.live = Live(self.board, traffic, clock)
        self.control = Control(self.board, clock)

    @property
    def campaigns(self) -> dict[StudyKey, Campaign]:
        """Of the buckets that this process has worked on."""
        return self.board.campaigns

    @property
    def parking(self) -> Parking:
        """Buckets whose measurements keep failing."""
        return self.board.parking

    @property
    def leases(self) -> Leases:
        """Tasks in the hands of workers."""
        return self.board.leases

    def next_task(self, worker: WorkerInfo) -> Task | None:
        """The most useful slice of work that `worker` can do, or None; it is leased to it.

        Buckets are served in order of what may still be gained (attention time x the board's
        promise), those first whose promoted config is to be checked again; one that has nothing
        left to measure lets the next one through.
        """
        now = self._clock()
        state = self.workers.setdefault(worker.id, WorkerState(worker, now))
        state.info, state.seen, state.task = worker, now, None
        self.expire(now)
        if self.board.holds.is_paused(worker.id):
            return None
        worth = worth_tuning(self._traffic, self._settings, worker, self.parking, now)
        keys = [load.key for load in worth if not self.board.idle(load.key, now)]
        times = {load.key: load.attention_us for load in worth}
        for key in sorted(keys, key=lambda key: -times[key] * self.board.promise(key, now)):
            task = self._task_for(key, worker.id, now)
            if task is not None:
                state.task, state.since = f"{key.bucket} #{task.number} {task.phase}", now
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
        than a verdict needs, or the bucket is pinned) or `not promoted` (any more).
        """
        key, now = message.key, self._clock()
        # Only what a table lists has a campaign to load: strangers' keys cost nothing.
        entry = self._tables.entry(key.scope, key.parsed()[2])
        if entry is None or entry.evidence.trial != message.trial:
            return "not promoted"
        if self.board.holds.is_pinned(key):
            return "open"
        with self._store.begin() as tx:
            campaign = self.board.campaign(tx, key, now)
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
        self.board.take(key, finding, now)

    def release(self, worker: str) -> None:
        """Tell that a worker died: what it held goes to another one at once."""
        for lease in self.leases.of(worker):
            self._count_lost(lease, self._clock())
        self.workers.pop(worker, None)

    def expire(self, now: float) -> None:
        """Take overdue leases and experiments back."""
        self.live.expire(now)
        for lease in self.leases.overdue(now):
            self._count_lost(lease, now)

    def forget_silent(self, now: float) -> None:
        """Forget workers that have not been heard of for long."""
        for name, state in list(self.workers.items()):
            if now - state.seen > _WORKER_SILENCE_SECONDS:
                del self.workers[name]

    def forget(self, key: StudyKey) -> None:
        """Read a bucket anew when it is next asked for, and take back what is leased of it."""
        self.board.forget(key)

    def _task_for(self, key: StudyKey, worker: str, now: float) -> Task | None:
        work = None
        with self.board.careful(key, now), self._store.begin() as tx:
            if self.board.holds.is_pinned(key):
                return None
            pool = self._traffic.pool(tx, key, now)
            if len(pool) < MIN_STEPS + self._settings.screen_steps:
                # Nothing could be promoted here.
                return None
            work = self.board.next_work(tx, key, now, Means(pool))
        if not work:
            return None
        lost = self.leases.lost(key, work.stage.trial.number, str(work.stage.phase))
        task = make_task(self._settings, key, work, lost)
        self.leases.grant(Lease(task, work, worker, now + self._settings.lease_seconds))
        return task

    def _count_lost(self, lease: Lease, now: float) -> None:
        key, stage = lease.task.key, lease.work.stage
        self.parking.failed(key, "lost", "a worker never reported", now)
        if self.leases.count_lost(lease):
            why = f"{MAX_LOST} workers took it and never reported; the config may crash them"
            self.take(key, Finding(
                trial=stage.trial.number, phase=stage.phase, pairs=[], outcome="failed",
                reason=why, last=lease.work.last, broke=True,
            ), now)  # fmt: skip
