"""Tables out: the promoted configs of one (geometry, device, build) as a versioned ConfigTable."""

from __future__ import annotations

import dataclasses
import heapq
import logging
import math

import sqlalchemy as sa

from pod_integrate.errors import PodAttentionError, TableError
from pod_integrate.terms.config import PodConfig
from pod_integrate.terms.keys import Bucket, DeviceKey, Geometry
from pod_integrate.terms.table import MAX_ENTRIES, MAX_TABLE_BYTES, ConfigTable, TableEntry
from tuner.messages import Scope, StudyKey, iso
from tuner.store import schema
from tuner.store.rows import Decision, add_decision, add_table, where
from tuner.traffic.traffic import Traffic

logger = logging.getLogger(__name__)

_NEIGHBOURS = 2


class Publisher:
    """Knows the latest table of every scope and makes the next version.

    Versions grow by one and never repeat, over restarts and over unreadable rows too. `change`
    writes inside the caller's transaction; call `commit` once that transaction is committed.

    traffic  a full table keeps the buckets that take most time now
    """

    def __init__(self, traffic: Traffic) -> None:
        self._traffic = traffic
        self._latest: dict[Scope, ConfigTable] = {}
        # As JSON, once for each version and not for each server that polls.
        self._bodies: dict[Scope, bytes] = {}

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

    def body(self, scope: Scope) -> bytes | None:
        """The table in force as JSON."""
        if scope not in self._bodies and scope in self._latest:
            self._bodies[scope] = self._latest[scope].to_json()
        return self._bodies.get(scope)

    def emptied(self, scope: Scope) -> bytes | None:
        """The table in force as JSON, without its entries: the default runs everywhere."""
        table = self._latest.get(scope)
        return dataclasses.replace(table, entries={}).to_json() if table is not None else None

    def all(self) -> dict[Scope, ConfigTable]:
        """Every table in force."""
        return dict(self._latest)

    def entry(self, scope: Scope, bucket: Bucket) -> TableEntry | None:
        """What is promoted for exactly this bucket."""
        table = self._latest.get(scope)
        return table.entries.get(bucket) if table is not None else None

    def promoted(self, key: StudyKey) -> TableEntry | None:
        """The same by a study's key; None too when that is malformed."""
        try:
            return self.entry(key.scope, key.parsed()[2])
        except PodAttentionError:
            return None

    def neighbours(self, scope: Scope, bucket: Bucket) -> list[PodConfig]:
        """What is promoted for the most similar buckets: worth a trial, proof of nothing here."""
        table = self._latest.get(scope)
        entries = table.entries if table is not None else {}
        near = sorted((bucket.distance(b), str(b), b) for b in entries if b != bucket)
        return [entries[b].config for _, _, b in near[:_NEIGHBOURS]]

    def like(self, key: StudyKey) -> list[StudyKey]:
        """Of each table of the key's device, the buckets with an entry that are nearest to its."""
        bucket, found = key.parsed()[2], list[StudyKey]()
        for scope, table in self._latest.items():
            if scope.device == key.device:
                near = heapq.nsmallest(_NEIGHBOURS, table.entries, key=bucket.distance)
                found += [StudyKey(*scope, str(each)) for each in near]
        return found

    def change(
        self, tx: sa.Connection, scope: Scope, bucket: Bucket, entry: TableEntry | None, now: float
    ) -> ConfigTable:
        """Store the next version, in which `bucket` has `entry` (None: no entry).

        Raises TableError for an entry that servers would refuse a table for.
        """
        return self.change_all(tx, scope, {bucket: entry}, now)

    def change_all(
        self, tx: sa.Connection, scope: Scope, changes: dict[Bucket, TableEntry | None], now: float
    ) -> ConfigTable:
        """`change` of many buckets in one version."""
        old = self._latest.get(scope)
        entries = dict(old.entries) if old is not None else {}
        for bucket in changes:
            entries.pop(bucket, None)
        new = {bucket: entry for bucket, entry in changes.items() if entry is not None}
        entries |= new
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
        ConfigTable.from_json(dataclasses.replace(table, entries=new).to_json())
        self._drop_lightest(tx, scope, entries, len(entries) - MAX_ENTRIES, now)
        while len(body := table.to_json()) > MAX_TABLE_BYTES:
            # Entries are of about one size, and thousands of them take a while to write.
            over = math.ceil(len(entries) * (1 - MAX_TABLE_BYTES / len(body)))
            self._drop_lightest(tx, scope, entries, over, now)
        add_table(tx, scope, table.version, body, now)
        return table

    def _drop_lightest(
        self, tx: sa.Connection, scope: Scope, entries: dict[Bucket, TableEntry], count: int,
        now: float,
    ) -> None:  # fmt: skip
        """Take so many entries out; none where `count` is not above 0."""

        def weight(bucket: Bucket) -> tuple[float, str]:
            load = self._traffic.load_of(StudyKey(*scope, str(bucket)), now)
            return (load.attention_us if load is not None else 0.0, str(bucket))

        kept = len(entries) - count
        for lightest in heapq.nsmallest(count, entries, key=weight):
            reason = f"table is full ({kept} buckets): the one of least attention time goes"
            key = StudyKey(*scope, str(lightest))
            add_decision(tx, Decision(now, "drop", key, reason, alert=True))
            logger.warning("%s of %s dropped: %s", lightest, scope, reason)
            del entries[lightest]

    def commit(self, scope: Scope, table: ConfigTable) -> None:
        """Put a stored version in force."""
        self._latest[scope] = table
        self._bodies.pop(scope, None)
        logger.info(
            "table version %d of %s %s: %d buckets",
            table.version, scope.geometry, scope.device, len(table.entries),
        )  # fmt: skip
