"""Traces at rest: Parquet files, one row per sampled step, lengths only.

Messages wait in the database (`messages.body`) until a file holds them. A file is named by the
first and last message id inside and appears by an atomic rename; after a crash between rename and
clean-up the name tells which messages it already has, so no step is lost or kept twice.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import sqlalchemy as sa

from pod_integrate.errors import TraceError
from pod_integrate.terms.keys import Bucket
from pod_integrate.terms.trace import TraceMessage, decode
from tuner.store import schema
from tuner.store.storage import Store

logger = logging.getLogger(__name__)

FILE_RECORDS = 20_000
FILE_SECONDS = 300.0
DEDUP_SECONDS = 86400.0

SCHEMA = pa.schema(
    [
        ("time", pa.float64()),
        ("server", pa.string()),
        ("geometry", pa.string()),
        ("device", pa.string()),
        ("build", pa.string()),
        ("bucket", pa.string()),
        ("step", pa.int64()),
        ("q_lens", pa.list_(pa.int32())),
        ("kv_lens", pa.list_(pa.int32())),
        ("step_us", pa.float64()),
        ("attention_us", pa.float64()),
        ("layers", pa.int32()),
        ("config", pa.string()),
        ("source", pa.string()),
    ]
)


class TraceArchive:
    """Moves acknowledged messages from the database into Parquet files.

    folder       created when missing
    limit_bytes  the oldest files are deleted while all files together are larger

    trouble  why no file can be written now, empty while one can
    """

    def __init__(self, store: Store, folder: Path, *, limit_bytes: int) -> None:
        self._store, self._folder, self._limit = store, folder, limit_bytes
        self.trouble = ""
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for partial in folder.glob("*.partial"):
            partial.unlink()
        self.bytes = sum(path.stat().st_size for path in self.files())
        self._finish_interrupted()

    def files(self) -> list[Path]:
        """Finished files, oldest first, those of other databases included."""
        found = [(path.stat().st_mtime_ns, path) for path in self._folder.glob("traces-*.parquet")]
        return [path for _, path in sorted(found)]

    def keep_up(self, *, now: float) -> None:
        """`rotate`; a folder that cannot be written to is `trouble` and tried again next time."""
        try:
            self.rotate(now=now)
        except (OSError, pa.ArrowException) as error:
            if not self.trouble:
                logger.error("trace archive %s takes no files: %s", self._folder, error)
            # What waits stays in the database, which has it for sure.
            self.trouble = f"trace archive: {error}"
        else:
            self.trouble = ""

    def rotate(self, *, now: float, force: bool = False) -> Path | None:
        """Write the waiting messages when they are many or old enough; None: nothing to do."""
        c = schema.messages.c
        with self._store.begin() as tx:
            waiting = sa.select(sa.func.sum(c.records), sa.func.min(c.received))
            records, oldest = tx.execute(waiting.where(c.body.is_not(None))).one()
        if not records:
            return None
        if not force and records < FILE_RECORDS and now - oldest < FILE_SECONDS:
            return None
        with self._store.begin() as tx:
            chosen = sa.select(c.id, c.body).where(c.body.is_not(None)).order_by(c.id).limit(4096)
            bodies = [(row.id, row.body) for row in tx.execute(chosen)]
        path = self._write(bodies)
        self._release(bodies[-1][0], now)
        self._shrink()
        return path

    def _write(self, bodies: list[tuple[int, bytes]]) -> Path:
        rows: list[dict[str, Any]] = []
        for number, body in bodies:
            try:
                rows += _rows(decode(body))
            except TraceError as error:
                logger.error("message %d left out of the archive: %s", number, error)
        path = self._folder / self._name(bodies[0][0], bodies[-1][0])
        partial = path.with_suffix(".partial")
        pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), partial, compression="zstd")
        with partial.open("rb") as handle:
            os.fsync(handle.fileno())
        partial.replace(path)
        self.bytes += path.stat().st_size
        logger.info("archived %d steps in %s", len(rows), path.name)
        return path

    def _name(self, first: int, last: int) -> str:
        # Message ids mean something in their own database only.
        return f"traces-{self._store.id}-{first:012d}-{last:012d}.parquet"

    def _release(self, last: int, now: float) -> None:
        """Drop bodies up to `last`; their rows stay a day, to recognise re-posts."""
        c = schema.messages.c
        with self._store.begin() as tx:
            tx.execute(sa.update(schema.messages).where(c.id <= last).values(body=None))
            stale = sa.and_(c.body.is_(None), c.received < now - DEDUP_SECONDS)
            tx.execute(sa.delete(schema.messages).where(stale))

    def _finish_interrupted(self) -> None:
        mine = sorted(self._folder.glob(f"traces-{self._store.id}-*.parquet"))
        if mine:
            last = int(mine[-1].stem.rsplit("-", 1)[1])
            c = schema.messages.c
            with self._store.begin() as tx:
                tx.execute(sa.update(schema.messages).where(c.id <= last).values(body=None))

    def _shrink(self) -> None:
        files = self.files()
        while self.bytes > self._limit and len(files) > 1:
            oldest = files.pop(0)
            self.bytes -= oldest.stat().st_size
            oldest.unlink()
            logger.info("archive over its limit of %d bytes: deleted %s", self._limit, oldest.name)


def _rows(message: TraceMessage) -> list[dict[str, Any]]:
    fixed = {name: getattr(message, name) for name in ("server", "geometry", "device", "build")}
    rows = []
    for record in message.records:
        row = fixed | msgspec.structs.asdict(record)
        row["bucket"] = str(Bucket.of(record.q_lens, record.kv_lens))
        rows.append(row)
    return rows
