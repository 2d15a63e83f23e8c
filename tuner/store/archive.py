"""Traces at rest: Parquet files, one row per sampled step, lengths only.

Messages wait in the database (`messages.body`) until a file holds them. A file is named by the
first and last message id inside and appears by an atomic rename; after a crash between rename and
clean-up the name tells which messages it already has, so no step is lost or kept twice.
"""

from __future__ import annotations

import bisect
import itertools
import logging
import os
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
import sqlalchemy as sa

from pod_integrate.errors import TraceError
from pod_integrate.terms.keys import Bucket
from pod_integrate.terms.trace import StepRecord, TraceMessage, decode
from tuner.store import schema
from tuner.store.storage import Store

logger = logging.getLogger(__name__)

FILE_RECORDS = 20_000
FILE_MESSAGES = 4096
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


_Batch = list[tuple[int, bytes]]


class _Written(NamedTuple):
    """A finished file and the last message in it."""

    path: Path
    last: int


class TraceArchive:
    """Moves acknowledged messages from the database into Parquet files.

    folder       created when missing
    limit_bytes  the oldest files are deleted while all files together are larger

    trouble  why no file can be written now, empty while one can
    """

    def __init__(self, store: Store, folder: Path, *, limit_bytes: int) -> None:
        self._store, self._folder, self._limit = store, folder, limit_bytes
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="pod-archive")
        self._job: Future[_Written] | None = None
        # Messages up to this id are in files.
        self._archived = 0
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
        """`rotate` without waiting: a thread writes the file, a later call takes what it wrote.

        A folder that cannot be written to is `trouble` and tried again next time.
        """
        try:
            if self._job is not None:
                if not self._job.done():
                    return
                self.wait(now=now)
                self.trouble = ""
            batch = self._batch(now, force=False)
            if batch:
                self._job = self._writer.submit(self._write, batch)
        except (OSError, pa.ArrowException) as error:
            if not self.trouble:
                logger.error("trace archive %s takes no files: %s", self._folder, error)
            # What waits stays in the database, which has it for sure.
            self.trouble = f"trace archive: {error}"

    def wait(self, *, now: float) -> Path | None:
        """Take what the thread writes, once it is written; raises what it raised."""
        if self._job is None:
            return None
        try:
            written = self._job.result()
        except Exception:
            self._job = None
            raise
        # Where this fails the file is there: it is taken again, not written again.
        self._finish(written, now)
        self._job = None
        return written.path

    def rotate(self, *, now: float, force: bool = False) -> Path | None:
        """Write the waiting messages when they are many or old enough; None: nothing to do."""
        self.wait(now=now)
        batch = self._batch(now, force)
        if not batch:
            return None
        self._job = self._writer.submit(self._write, batch)
        return self.wait(now=now)

    def close(self) -> None:
        """End the thread; what it has written by then is recognised at the next start."""
        self._writer.shutdown()

    def _batch(self, now: float, force: bool) -> _Batch:
        """(id, body) of the messages for the next file, none while they are few and young."""
        c = schema.messages.c
        with self._store.read() as tx:
            waiting = sa.select(c.id, c.records, c.received).where(c.id > self._archived)
            found = tx.execute(waiting.order_by(c.id).limit(FILE_MESSAGES)).all()
            sums = list(itertools.accumulate(row.records for row in found))
            many = len(found) == FILE_MESSAGES or (sums and sums[-1] >= FILE_RECORDS)
            old = sums and sums[-1] and (force or now - found[0].received >= FILE_SECONDS)
            if not many and not old:
                return []
            last = found[min(bisect.bisect_left(sums, FILE_RECORDS), len(found) - 1)].id
            chosen = sa.select(c.id, c.body).where(c.id > self._archived, c.id <= last)
            return [(row.id, row.body) for row in tx.execute(chosen.order_by(c.id))]

    def _write(self, batch: _Batch) -> _Written:
        """Write a file of these messages; touches no database."""
        columns: dict[str, list[Any]] = {name: [] for name in SCHEMA.names}
        for number, body in batch:
            try:
                _add(columns, decode(body))
            except TraceError as error:
                logger.error("message %d left out of the archive: %s", number, error)
        path = self._folder / self._name(batch[0][0], batch[-1][0])
        partial = path.with_suffix(".partial")
        pq.write_table(pa.table(columns, schema=SCHEMA), partial, compression="zstd")
        with partial.open("rb") as handle:
            os.fsync(handle.fileno())
        partial.replace(path)
        logger.info("archived %d steps in %s", len(columns["step"]), path.name)
        return _Written(path, batch[-1][0])

    def _finish(self, written: _Written, now: float) -> None:
        self._release(written.last, now)
        self.bytes += written.path.stat().st_size
        self._shrink()

    def _name(self, first: int, last: int) -> str:
        # Message ids mean something in their own database only.
        return f"traces-{self._store.id}-{first:012d}-{last:012d}.parquet"

    def _release(self, last: int, now: float) -> None:
        """Drop bodies up to `last`; their rows stay a day, to recognise re-posts."""
        c = schema.messages.c
        with self._store.begin() as tx:
            mine = sa.and_(c.id > self._archived, c.id <= last)
            tx.execute(sa.update(schema.messages).where(mine).values(body=None))
            oldest = sa.select(c.id, c.received).where(c.id <= last).order_by(c.id)
            rows = tx.execute(oldest.limit(FILE_MESSAGES)).all()
            stale = [row.id for row in rows if row.received < now - DEDUP_SECONDS]
            if stale:
                old = sa.and_(c.id <= stale[-1], c.received < now - DEDUP_SECONDS)
                tx.execute(sa.delete(schema.messages).where(old))
        self._archived = last

    def _finish_interrupted(self) -> None:
        mine = sorted(self._folder.glob(f"traces-{self._store.id}-*.parquet"))
        c = schema.messages.c
        with self._store.begin() as tx:
            if mine:
                last = int(mine[-1].stem.rsplit("-", 1)[1])
                tx.execute(sa.update(schema.messages).where(c.id <= last).values(body=None))
            first = tx.scalar(sa.select(sa.func.min(c.id)).where(c.body.is_not(None)))
            newest = tx.scalar(sa.select(sa.func.max(c.id)))
        self._archived = first - 1 if first is not None else newest or 0

    def _shrink(self) -> None:
        files = self.files()
        while self.bytes > self._limit and len(files) > 1:
            oldest = files.pop(0)
            self.bytes -= oldest.stat().st_size
            oldest.unlink()
            logger.info("archive over its limit of %d bytes: deleted %s", self._limit, oldest.name)


def _add(columns: dict[str, list[Any]], message: TraceMessage) -> None:
    """Append a message's steps, column by column."""
    count = len(message.records)
    for name in ("server", "geometry", "device", "build"):
        columns[name] += [getattr(message, name)] * count
    for name in StepRecord.__struct_fields__:
        columns[name] += [getattr(record, name) for record in message.records]
    columns["bucket"] += [str(Bucket.of(r.q_lens, r.kv_lens)) for r in message.records]
