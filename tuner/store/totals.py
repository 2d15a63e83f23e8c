"""Counts over everything that the tuner has seen and done."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator

import msgspec
import sqlalchemy as sa

from tuner.store import schema
from tuner.store.rows import parts

_SERVERS = {
    "messages": schema.servers.c.messages,
    "records": schema.servers.c.records,
    "steps_seen": schema.servers.c.seen,
    "steps_dropped": schema.servers.c.dropped,
    "hybrid_steps": schema.servers.c.hybrid,
}
# What retention takes away stays counted, in rows of `meta` with this prefix.
_PREFIX = "forgotten "


class Totals(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Since the database was made; `hybrid_share` is of the traced steps, None without any."""

    messages: int
    records: int
    steps_seen: int
    steps_dropped: int
    hybrid_steps: int
    hybrid_share: float | None
    trials: int
    pruned: int
    pairs: int
    promotions: int
    rollbacks: int
    alerts: int


class Counts:
    """Counts of one tuner: a row is counted when it is new, and looked at while it may change."""

    def __init__(self) -> None:
        self.start_anew()

    def start_anew(self) -> None:
        """Count from the database anew, after a transaction that failed."""
        self._counted: Counter[str] = Counter()
        self._last: Counter[str] = Counter()
        # Ids of trials that were running.
        self._running: set[int] = set()
        self._started = False

    def totals(self, tx: sa.Connection) -> Totals:
        """Count now."""
        if not self._started:
            self._counted, self._started = forgotten(tx), True
        self._count_trials(tx)
        self._count_decisions(tx)
        self._count_pairs(tx)
        found = self._counted + server_sums(tx)
        records, hybrid = found["records"], found["hybrid_steps"]
        share = hybrid / records if records else None
        names = set(Totals.__struct_fields__) - {"hybrid_share"}
        return Totals(hybrid_share=share, **{name: found[name] for name in names})

    @contextlib.contextmanager
    def forgetting(self, tx: sa.Connection) -> Iterator[None]:
        """Around the deletion of rows: all are counted before, and ids may be given out again."""
        servers = server_sums(tx)
        self.totals(tx)
        yield
        gone = servers - server_sums(tx)
        note_forgotten(tx, gone)
        self._counted += gone
        for table in (schema.trials, schema.pairs, schema.decisions):
            self._last[table.name] = newest(tx, table)

    def _count_trials(self, tx: sa.Connection) -> None:
        c = schema.trials.c
        since = self._new(tx, schema.trials)
        settled: list[str] = []
        for part in parts(sorted(self._running)):
            some = sa.select(c.id, c.state).where(c.id.in_(part))
            states = {row.id: row.state for row in tx.execute(some)}
            over = [n for n in part if states.get(n) != "running"]
            settled += [states[n] for n in over if n in states]
            self._running.difference_update(over)
        running = sa.select(c.id).where(since, c.state == "running")
        self._running.update(tx.scalars(running))
        by_state = sa.select(c.state, sa.func.count()).where(since).group_by(c.state)
        for state, count in tx.execute(by_state):
            self._counted["trials"] += count
            settled += [state] * count
        self._counted["pruned"] += settled.count("pruned")

    def _count_decisions(self, tx: sa.Connection) -> None:
        c = schema.decisions.c
        rows = sa.select(c.kind, c.alert, sa.func.count()).group_by(c.kind, c.alert)
        for kind, alert, count in tx.execute(rows.where(self._new(tx, schema.decisions))):
            self._counted["promotions"] += count if kind == "promote" else 0
            self._counted["rollbacks"] += count if kind == "rollback" else 0
            self._counted["alerts"] += count if alert else 0

    def _count_pairs(self, tx: sa.Connection) -> None:
        new = sa.select(sa.func.count()).select_from(schema.pairs)
        self._counted["pairs"] += tx.scalar(new.where(self._new(tx, schema.pairs))) or 0

    def _new(self, tx: sa.Connection, table: sa.Table) -> sa.ColumnElement[bool]:
        """Rows that came since the last call."""
        last = self._last[table.name]
        self._last[table.name] = newest(tx, table)
        return sa.and_(table.c.id > last, table.c.id <= self._last[table.name])


def newest(tx: sa.Connection, table: sa.Table) -> int:
    """The largest id in use, 0 without any."""
    return tx.scalar(sa.select(sa.func.max(table.c.id))) or 0


def server_sums(tx: sa.Connection) -> Counter[str]:
    """What all servers have counted."""
    # As floats: a sum of integers that overflows is an error in SQLite.
    sums = (sa.func.coalesce(sa.func.sum(sa.cast(c, sa.Float)), 0) for c in _SERVERS.values())
    values = tx.execute(sa.select(*sums)).one()
    return Counter({name: int(value) for name, value in zip(_SERVERS, values, strict=True)})


def forgotten(tx: sa.Connection) -> Counter[str]:
    """What rows that retention took away had counted."""
    c = schema.meta.c
    rows = tx.execute(sa.select(c.name, c.value).where(c.name.startswith(_PREFIX)))
    return Counter({row.name.removeprefix(_PREFIX): int(row.value) for row in rows})


def note_forgotten(tx: sa.Connection, sums: Counter[str]) -> None:
    """Go on counting rows that are about to be deleted."""
    before, c = forgotten(tx), schema.meta.c
    for name, count in sums.items():
        value = str(before[name] + count)
        changed = tx.execute(
            sa.update(schema.meta).where(c.name == _PREFIX + name).values(value=value)
        )
        if not changed.rowcount:
            tx.execute(sa.insert(schema.meta).values(name=_PREFIX + name, value=value))
