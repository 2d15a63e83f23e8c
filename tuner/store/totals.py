"""Counts over everything that the tuner has seen and done."""

from __future__ import annotations

import msgspec
import sqlalchemy as sa

from tuner.store import schema


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


def totals(tx: sa.Connection) -> Totals:
    """Count now."""
    servers, trials, decisions = schema.servers.c, schema.trials.c, schema.decisions.c
    sums = [servers.messages, servers.records, servers.seen, servers.dropped, servers.hybrid]
    # As floats: a sum of integers that overflows is an error in SQLite.
    floats = (sa.func.coalesce(sa.func.sum(sa.cast(c, sa.Float)), 0) for c in sums)
    counted = tx.execute(sa.select(*floats)).one()
    messages, records, seen, dropped, hybrid = (int(value) for value in counted)
    by_state = _counts(tx, trials.state)
    by_kind = _counts(tx, decisions.kind)
    alerts = sa.select(sa.func.count()).select_from(schema.decisions).where(decisions.alert)
    return Totals(
        messages=messages,
        records=records,
        steps_seen=seen,
        steps_dropped=dropped,
        hybrid_steps=hybrid,
        hybrid_share=hybrid / records if records else None,
        trials=sum(by_state.values()),
        pruned=by_state.get("pruned", 0),
        pairs=tx.scalar(sa.select(sa.func.count()).select_from(schema.pairs)) or 0,
        promotions=by_kind.get("promote", 0),
        rollbacks=by_kind.get("rollback", 0),
        alerts=tx.scalar(alerts) or 0,
    )


def _counts(tx: sa.Connection, column: sa.Column[str]) -> dict[str, int]:
    rows = tx.execute(sa.select(column, sa.func.count()).group_by(column))
    return {row[0]: row[1] for row in rows}
