"""Databases of earlier releases: brought up to schema.VERSION at start-up."""

from __future__ import annotations

import logging
import time

import sqlalchemy as sa

from pod_integrate.errors import PodAttentionError
from pod_integrate.terms.keys import DeviceKey, Geometry
from pod_integrate.terms.table import ConfigTable
from tuner.messages import Scope, iso
from tuner.store import schema
from tuner.store.rows import add_table, where

logger = logging.getLogger(__name__)


def upgrade(tx: sa.Connection, found: str) -> bool:
    """Bring a database of schema `found` up to date; False when this release cannot."""
    if found not in ("1", "2"):
        return False
    if found == "1":
        _count_steps(tx)
    _add_live(tx)
    return True


def _add_live(tx: sa.Connection) -> None:
    """Schema 2 knew neither live pairs nor people."""
    tx.execute(sa.text("ALTER TABLE pairs ADD COLUMN live BOOLEAN NOT NULL DEFAULT FALSE"))
    tx.execute(sa.text("ALTER TABLE decisions ADD COLUMN who VARCHAR(128) NOT NULL DEFAULT ''"))


def _count_steps(tx: sa.Connection) -> None:
    """Schema 1 counted pairs, most of them of two steps: searches start again.

    Traffic, decisions and history stay. A scope whose table had entries gets one more version,
    without any, so that servers go back to defaults until something is proven.
    """
    for column in ("decisions ADD COLUMN steps INTEGER", "bucket_samples ADD COLUMN draw FLOAT"):
        tx.execute(sa.text(f"ALTER TABLE {column} NOT NULL DEFAULT 0"))
    tx.execute(sa.delete(schema.pairs))
    trials = tx.execute(sa.delete(schema.trials)).rowcount
    c = schema.tables.c
    newest = sa.select(c.geometry, c.device, c.build, sa.func.max(c.version))
    for *key, version in tx.execute(newest.group_by(c.geometry, c.device, c.build)).all():
        _empty_table(tx, Scope(*key), version + 1)
    logger.warning(
        "database upgraded to schema %d: %d trials of an earlier release are forgotten, because "
        "their evidence counted pairs and not distinct steps; tuning starts again",
        2, trials,
    )  # fmt: skip


def _empty_table(tx: sa.Connection, scope: Scope, version: int) -> None:
    now = time.time()
    try:
        geometry, device = Geometry.parse(scope.geometry), DeviceKey.parse(scope.device)
    except PodAttentionError as error:
        logger.error("tables of %s skipped, their key is unreadable: %s", scope, error)
        tx.execute(sa.delete(schema.tables).where(where(schema.tables, scope)))
        return
    table = ConfigTable(version, geometry, device, scope.build, iso(now), {})
    add_table(tx, scope, version, table.to_json(), now)
