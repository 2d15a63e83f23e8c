"""Experiments in the hands of servers. They outlive the tuner: no report is lost by a restart."""

from __future__ import annotations

import logging
from typing import NamedTuple

import sqlalchemy as sa

from tuner import phases
from tuner.messages import StudyKey
from tuner.phases import Phase
from tuner.store import schema
from tuner.store.rows import where
from tuner.store.storage import Store

logger = logging.getLogger(__name__)

# So many servers that fell silent while they ran a config are its fault.
MAX_SILENT = 2
# The longest that settings let an experiment last: what ends even later is of a wrong clock.
_LONGEST_SECONDS = 86400.0


class Running(NamedTuple):
    """An experiment that a server has.

    wanted   distinct steps
    expires  Unix seconds; a report prolongs it
    """

    id: str
    key: StudyKey
    trial: int
    phase: Phase
    server: str
    wanted: int
    expires: float


class Experiments:
    """Methods that take a transaction write; the caller's transaction has to succeed.

    When it does not, `forget` the bucket; `drop_forgotten` deletes what the database has of it. Who
    decides to give a bucket's up deletes them with that decision, by `delete`, and forgets them.
    """

    def __init__(self) -> None:
        self._held: dict[str, Running] = {}
        self._forgotten: set[StudyKey] = set()
        self._silent: dict[tuple[StudyKey, int], int] = {}

    def load(self, tx: sa.Connection, soonest: float) -> None:
        """Read those of an earlier process; none ends before `soonest`: reports waited meanwhile.

        Those that the earlier process gave up are deleted: their bucket is pinned, or their trial
        is gone.
        """
        tx.execute(sa.delete(schema.experiments).where(_given_up()))
        for row in tx.execute(sa.select(schema.experiments)):
            try:
                key = StudyKey(row.geometry, row.device, row.build, row.bucket)
                phase = phases.parse(row.phase)
            except ValueError as error:
                logger.error("experiment %s skipped: %s", row.id, error)
                continue
            wrong = row.expires > soonest + _LONGEST_SECONDS
            expires = soonest if wrong else max(row.expires, soonest)
            self._held[row.id] = Running(
                row.id, key, row.trial, phase, row.server, row.wanted, expires
            )

    def grant(self, tx: sa.Connection, running: Running) -> None:
        """Note that a server took an experiment."""
        row = running._asdict()
        row |= row.pop("key")._asdict() | {"phase": str(running.phase)}
        tx.execute(sa.insert(schema.experiments).values(row))
        self._held[running.id] = running

    def get(self, experiment: str) -> Running | None:
        """One that is held."""
        return self._held.get(experiment)

    def prolong(self, tx: sa.Connection, running: Running, expires: float) -> None:
        """Its server was heard of."""
        mine = schema.experiments.c.id == running.id
        tx.execute(sa.update(schema.experiments).where(mine).values(expires=expires))
        self._held[running.id] = running._replace(expires=expires)

    def end(self, tx: sa.Connection, running: Running) -> None:
        """It is over."""
        tx.execute(sa.delete(schema.experiments).where(schema.experiments.c.id == running.id))
        self._held.pop(running.id, None)

    def busy(self, key: StudyKey) -> set[int]:
        """Trials of a study that a server measures now."""
        return {held.trial for held in self._held.values() if held.key == key}

    def of_server(self, server: str) -> list[Running]:
        """What a server has."""
        return [held for held in self._held.values() if held.server == server]

    def overdue(self, now: float) -> list[Running]:
        """Those whose time is over."""
        return [held for held in self._held.values() if held.expires <= now]

    def delete(self, tx: sa.Connection, key: StudyKey) -> None:
        """Those of a bucket do not outlive this process, whenever it ends."""
        tx.execute(sa.delete(schema.experiments).where(where(schema.experiments, key)))

    def forget(self, key: StudyKey) -> None:
        """Hold none of a bucket any more: reports on them are not taken."""
        self._held = {name: held for name, held in self._held.items() if held.key != key}
        self._forgotten.add(key)

    def drop_forgotten(self, store: Store) -> None:
        """Delete the rows of what was forgotten; those that a failure leaves go the next time."""
        if not self._forgotten:
            return
        table = schema.experiments
        with store.begin() as tx:
            for key in self._forgotten:
                again = [held.id for held in self._held.values() if held.key == key]
                gone = sa.and_(where(table, key), table.c.id.not_in(again))
                tx.execute(sa.delete(table).where(gone))
        self._forgotten.clear()

    def count_silent(self, running: Running) -> bool:
        """Count a server that fell silent; True when the config is to blame."""
        place = (running.key, running.trial)
        self._silent[place] = self._silent.get(place, 0) + 1
        logger.warning(
            "server %s fell silent with %s of trial %d of %s",
            running.server, running.phase, running.trial, running.key,
        )  # fmt: skip
        return self._silent[place] >= MAX_SILENT


def _given_up() -> sa.ColumnElement[bool]:
    """Rows of pinned buckets and of trials that are not there."""
    mine, hold, trial = schema.experiments.c, schema.holds.c, schema.trials.c
    scope = [hold[name] == mine[name] for name in ("geometry", "device", "build")]
    pinned = sa.exists().where(hold.kind == "pin", hold.subject == mine.bucket, *scope)
    place = [trial[name] == mine[name] for name in StudyKey._fields]
    return sa.or_(pinned, ~sa.exists().where(trial.number == mine.trial, *place))
