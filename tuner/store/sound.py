"""Rows of a SQLite file that hold what their columns cannot, dropped before anything reads them.

SQLite keeps any value in any column, so that a file which a person or another program wrote to may
answer with text where a time is expected, in the midst of a page or of housekeeping. PostgreSQL
takes no such value.
"""

from __future__ import annotations

import logging
from typing import Any

import sqlalchemy as sa

from tuner.store import schema

logger = logging.getLogger(__name__)

# What `typeof` says of a column's values. A Boolean is an integer there.
_TYPES: tuple[tuple[type[sa.types.TypeEngine[Any]], tuple[str, ...]], ...] = (
    (sa.Float, ("real",)),
    (sa.Boolean, ("integer",)),
    (sa.Integer, ("integer",)),
    (sa.String, ("text",)),
    (sa.LargeBinary, ("blob",)),
)
# Beyond that a number is infinite.
_LARGEST = 1e300


def sweep(tx: sa.Connection) -> None:
    """Drop such rows, with an error in the log, and pairs whose trial went."""
    if tx.dialect.name != "sqlite":
        return
    tx.exec_driver_sql("PRAGMA defer_foreign_keys=ON")
    for table in schema.metadata.sorted_tables:
        _drop(tx, table, sa.or_(*map(_is_wrong, table.c)), "hold what their columns cannot")
    pairs, trials = schema.pairs, schema.trials
    there = sa.exists().where(trials.c.id == pairs.c.trial_id)
    _drop(tx, pairs, ~there, "are of no trial")


def _drop(tx: sa.Connection, table: sa.Table, bad: sa.ColumnElement[bool], what: str) -> None:
    count = tx.execute(sa.delete(table).where(bad)).rowcount
    if count:
        logger.error("%d rows of %s %s: dropped", count, table.name, what)


def _is_wrong(column: sa.Column[object]) -> sa.ColumnElement[bool]:
    kinds = next(kinds for type_, kinds in _TYPES if isinstance(column.type, type_))
    allowed = (*kinds, "null") if column.nullable else kinds
    wrong = sa.func.typeof(column).not_in(allowed)
    if isinstance(column.type, sa.Float):
        return sa.or_(wrong, sa.func.abs(column) > _LARGEST)
    return wrong
