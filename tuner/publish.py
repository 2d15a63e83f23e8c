"""Tables out: the promoted configs of one (geometry, device, build) as a versioned ConfigTable."""

from __future__ import annotations

import logging

import sqlalchemy as sa

from pod_integrate.errors import TableError
from pod_integrate.keys import Bucket, DeviceKey, Geometry
from pod_integrate.table import ConfigTable, TableEntry
from tuner import schema
from tuner.model import Scope, iso
from tuner.records import add_table, where

logger = logging.getLogger(__name__)


class Publisher:
    """Knows the latest table of every scope and makes the next version.

    Versions grow by one and never repeat, over restarts and over unreadable rows too. `change`
    writes inside the caller's transaction; call `commit` once that transaction is committed.
    """

    def __init__(self) -> None:
        self._latest: dict[Scope, ConfigTable] = {}

    def load(self, tx: sa.Connection) -> None:
        """Read the newest readable version of every scope; unreadable ones are logged."""
        c = schema.tables.c
        scopes = tx.execute(sa.select(c.geometry, c.device, c.build).distinct()).all()
        for scope in (Scope(*row) for row in scopes):
            newest_first = sa.select(c.version, c.body).where(where(schema.tables, scope))
            for row in tx.execute(newest_first.order_by(c.version.desc())):
                try:
                    self._latest[scope] = ConfigTable.from_json(row.body)
                except TableError as error:
                    logger.error("table version %d of %s unreadable: %s", row.version, scope, error)
                else:
                    break

    def latest(self, scope: Scope) -> ConfigTable | None:
        """The table in force, None before the first promotion."""
        return self._latest.get(scope)

    def all(self) -> dict[Scope, ConfigTable]:
        """Every table in force."""
        return dict(self._latest)

    def entry(self, scope: Scope, bucket: Bucket) -> TableEntry | None:
        """What is promoted for exactly this bucket."""
        table = self._latest.get(scope)
        return table.entries.get(bucket) if table is not None else None

    def change(
        self, tx: sa.Connection, scope: Scope, bucket: Bucket, entry: TableEntry | None, now: float
    ) -> ConfigTable:
        """Store the next version, in which `bucket` has `entry` (None: no entry)."""
        old = self._latest.get(scope)
        entries = dict(old.entries) if old is not None else {}
        entries.pop(bucket, None)
        if entry is not None:
            entries[bucket] = entry
        newest = tx.scalar(
            sa.select(sa.func.max(schema.tables.c.version)).where(where(schema.tables, scope))
        )
        table = ConfigTable(
            version=(newest or 0) + 1,
            geometry=Geometry.parse(scope.geometry),
            device=DeviceKey.parse(scope.device),
            build=scope.build,
            updated=iso(now),
            entries=entries,
        )
        add_table(tx, scope, table.version, table.to_json(), now)
        return table

    def commit(self, scope: Scope, table: ConfigTable) -> None:
        """Put a stored version in force."""
        self._latest[scope] = table
        logger.info(
            "table version %d of %s %s: %d buckets",
            table.version, scope.geometry, scope.device, len(table.entries),
        )  # fmt: skip
