"""The tuner itself, free of Ray and HTTP: traces in, tasks out, reports in, tables out.

One instance owns one database; its methods are quick, never wait for a measurement and must be
called by one thread at a time. It may die between any two instructions: whatever a method
returned is committed, and a new instance goes on from the database.

It is made of what servers run (`traffic`), what is measured and decided (`search`), what is in
force (`tables`) and what that saves (`history`). People see it through `tuner.view`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from pod_integrate.terms.experiment import Experiment, ExperimentAsk, ExperimentReport
from pod_integrate.terms.trace import TraceMessage
from tuner.clock import SteadyClock, settle
from tuner.messages import Noted, RecheckPairs, Report, Scope, Standing, Task, WorkerInfo
from tuner.orders import Answer, BucketOrder, Order, PinOrder, PromoteOrder, ServerOrder, TableOrder
from tuner.search.adoption import adopt
from tuner.search.search import Search
from tuner.settings import TunerSettings
from tuner.store.archive import TraceArchive
from tuner.store.storage import Store, is_storage_failure
from tuner.store.totals import Counts
from tuner.tables.history import History
from tuner.tables.publish import Publisher
from tuner.traffic.ingest import Ingested
from tuner.traffic.retention import Retention
from tuner.traffic.traffic import Traffic

logger = logging.getLogger(__name__)


class Tuner:
    """See the module. `clock` returns Unix seconds that only grow; default a SteadyClock."""

    def __init__(
        self, settings: TunerSettings, store: Store, *, clock: Callable[[], float] | None = None
    ) -> None:
        self.settings, self.store, self.clock = settings, store, clock or SteadyClock()
        self.archive = TraceArchive(store, settings.archive_dir, limit_bytes=settings.archive_bytes)
        self.traffic = Traffic(store, settings.half_life_seconds)
        self.tables = Publisher(self.traffic)
        self.started = self.clock()
        with store.begin() as tx:
            settle(tx, self.started)
            self.traffic.load(tx)
            self.tables.load(tx)
        self.search = Search(settings, store, self.traffic, self.tables, self.clock)
        self.counts = Counts()
        self.history = History(store, self.traffic, self.tables, self.counts)
        self.retention = Retention(
            settings, store, self.traffic, self.counts,
            keeps=lambda key: self.tables.promoted(key) is not None,
            forget=self.search.forget,
        )  # fmt: skip
        self.host_mode = "plain"

    def ingest(self, message: TraceMessage) -> Ingested:
        """Take a checked trace message; committed when this returns."""
        return self.traffic.ingest(message, self.clock())

    def next_task(self, worker: WorkerInfo) -> Task | None:
        """The most useful slice of work that `worker` can do, or None; it is leased to it."""
        return self.search.next_task(worker)

    def report(self, report: Report) -> bool:
        """File the result of a task; False when its lease is not (any more) held."""
        return self.search.report(report)

    def next_experiment(self, ask: ExperimentAsk) -> Experiment | None:
        """The most useful comparison that a server can make on its own steps, leased to it."""
        return self.search.live.next_experiment(ask, self.search.workers)

    def report_experiment(self, report: ExperimentReport) -> Noted:
        """File what came of an experiment, or of a part of it."""
        decided = self.search.live.report(report, self.search.workers)
        return Noted(decided is not None, decided is not False)

    def pause(self, order: ServerOrder) -> Answer:
        """No more experiments on a server, or on any."""
        return self.search.control.pause(order)

    def kill(self, order: Order) -> Answer:
        """The kill switch: the default everywhere, and no more experiments."""
        return self.search.control.kill(order)

    def resume(self, order: ServerOrder) -> Answer:
        """End a pause."""
        return self.search.control.resume(order)

    def pin(self, order: PinOrder) -> Answer:
        """Keep what is in force for a bucket, or tune it again."""
        return self.search.control.pin(order)

    def promote(self, order: PromoteOrder) -> Answer:
        """Put a trial in force by hand."""
        return self.search.control.promote(order)

    def roll_back(self, order: BucketOrder) -> Answer:
        """Put the default in force by hand."""
        return self.search.control.roll_back(order)

    def import_table(self, order: TableOrder) -> Answer:
        """Put the configs of a table from elsewhere in force."""
        return adopt(self.search.board, self.tables, order, self.clock())

    def release(self, worker: str) -> None:
        """Tell that a worker died: what it held goes to another one at once."""
        self.search.release(worker)

    def table(self, scope: Scope) -> bytes | None:
        """The scope's table in force as JSON, None before its first promotion.

        Without entries from a `kill` until everybody is resumed.
        """
        killed = self.search.board.holds.killed
        return self.tables.emptied(scope) if killed else self.tables.body(scope)

    def health(self) -> str:
        """Why the database takes no writes, empty while it does; asks it whether it answers."""
        with self.store.read():
            return self.store.trouble

    def recheck(self, message: RecheckPairs) -> Standing:
        """Judge a promoted config by somebody else's pairs; see Search.recheck."""
        return self.search.recheck(message)

    def housekeeping(self) -> None:
        """Take back overdue leases, forget what is old, add history, archive what waits."""
        now = self.clock()
        chores: tuple[Callable[[float], None], ...] = (
            self.search.expire,
            self.search.forget_silent,
            self.history.keep_up,
            lambda now: self.archive.keep_up(now=now),
            self.retention.keep_up,
        )
        for chore in chores:
            try:
                chore(now)
            except Exception as error:
                if is_storage_failure(error):
                    raise
                # Else the ones after it would never be done again.
                logger.exception("a part of housekeeping failed; the others go on")

    def close(self) -> None:
        """Give the database back."""
        self.archive.close()
        self.store.close()
