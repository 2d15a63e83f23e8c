"""Traces in: a message becomes counters per server, weights per bucket and samples to replay.

The weight of a bucket is the attention time its steps took, decayed with a half-life, so that
tuning goes where time is lost now; a step whose time nobody could tell weighs what the cost model
makes of its lengths. A message that samples its steps counts for all it has seen.
"""

from __future__ import annotations

import functools
import hashlib
import logging
from typing import NamedTuple

import msgspec
import sqlalchemy as sa

from pod_integrate.errors import ShapeError
from pod_integrate.keys import Bucket
from pod_integrate.model import estimate
from pod_integrate.trace import StepRecord, TraceMessage, encode
from tuner import schema
from tuner.budget import Budgets
from tuner.model import Lengths, StudyKey
from tuner.records import where
from tuner.storage import upsert

logger = logging.getLogger(__name__)

SAMPLES_PER_BUCKET = 48
# The largest integer that JSON's readers have exactly.
MAX_COUNT = 1 << 53


class Ingested(NamedTuple):
    """Records taken from a message; 0 with `duplicate` when it had been taken before."""

    accepted: int
    duplicate: bool


class BucketLoad(NamedTuple):
    """Traffic of one bucket now: decayed attention us and decayed steps."""

    key: StudyKey
    hybrid: bool
    records: int
    steps: float
    weight: float
    step_weight: float


class Sample(NamedTuple):
    """One traced step kept for replay."""

    lengths: Lengths
    attention_us: float
    layers: int
    source: str


def ingest(
    tx: sa.Connection, message: TraceMessage, budgets: Budgets, *, now: float, half_life: float
) -> Ingested:
    """Store a checked message once; what it adds to buckets is what `budgets` leaves its server.

    A re-post is recognised by server, sequence and content; a server that restarted and counts
    from 0 again has other content.
    """
    body = encode(message)
    digest = hashlib.blake2b(body, digest_size=16).hexdigest()
    table = schema.messages
    known = sa.and_(
        table.c.server == message.server,
        table.c.sequence == message.sequence,
        table.c.digest == digest,
    )
    if tx.scalar(sa.select(table.c.id).where(known)) is not None:
        return Ingested(0, True)
    row = {"server": message.server, "sequence": message.sequence, "digest": digest}
    row |= {"received": now, "records": len(message.records), "body": body}
    tx.execute(sa.insert(table).values(row))
    _count_server(tx, message, now)
    by_bucket: dict[Bucket, list[StepRecord]] = {}
    for record in message.records:
        by_bucket.setdefault(Bucket.of(record.q_lens, record.kv_lens), []).append(record)
    scale = budgets.scale(message, now)
    for bucket, records in by_bucket.items():
        key = StudyKey(message.geometry, message.device, message.build, str(bucket))
        _count_bucket(tx, key, bucket, records, scale, now, half_life)
        _keep_samples(tx, key, records)
    return Ingested(len(message.records), False)


def _count_server(tx: sa.Connection, message: TraceMessage, now: float) -> None:
    c = schema.servers.c
    hybrid = sum(Bucket.of(r.q_lens, r.kv_lens).is_hybrid for r in message.records)
    new = {
        "messages": 1,
        "seen": message.seen,
        "dropped": message.dropped,
        "records": len(message.records),
        "hybrid": hybrid,
    }
    state = {"table_version": message.table_version, "last_seen": now}
    row = {name: getattr(message, name) for name in ("server", "geometry", "device", "build")}
    upsert(
        tx, schema.servers, row | new | state,
        {name: _added(c[name], value) for name, value in new.items()} | state,
    )  # fmt: skip


def _added(column: sa.Column[int], value: int) -> sa.ColumnElement[int]:
    """A counter that stops at MAX_COUNT: an overflow would fail every later message."""
    return sa.case((column > MAX_COUNT - value, MAX_COUNT), else_=column + value)


def _count_bucket(
    tx: sa.Connection,
    key: StudyKey,
    bucket: Bucket,
    records: list[StepRecord],
    scale: float,
    now: float,
    half_life: float,
) -> None:
    table = schema.bucket_stats
    old = tx.execute(sa.select(table).where(where(table, key))).one_or_none()
    fade = 0.5 ** (max(0.0, now - old.updated) / half_life) if old is not None else 0.0
    values = {
        "records": len(records) + (old.records if old is not None else 0),
        "steps": len(records) * scale + (old.steps if old is not None else 0.0),
        "weight": scale * sum(attention_us(r, key) for r in records),
        "step_weight": scale * len(records),
        "updated": now,
    }
    if old is not None:
        values["weight"] += fade * old.weight
        values["step_weight"] += fade * old.step_weight
    row = key._asdict() | values | {"hybrid": bucket.is_hybrid}
    upsert(tx, table, row, values)


def attention_us(record: StepRecord, key: StudyKey) -> float:
    """Microseconds of attention in a step, measured or, where they are unknown, estimated."""
    if record.attention_us > 0:
        return record.attention_us
    geometry, device, _ = key.parsed()
    one = estimate.attention_us(record.q_lens, record.kv_lens, geometry, device)
    return one * max(1, record.layers)


def _keep_samples(tx: sa.Connection, key: StudyKey, records: list[StepRecord]) -> None:
    table = schema.bucket_samples
    rows = [
        {
            **key._asdict(),
            "time": record.time,
            "q_lens": msgspec.json.encode(record.q_lens).decode(),
            "kv_lens": msgspec.json.encode(record.kv_lens).decode(),
            "attention_us": record.attention_us,
            "layers": record.layers,
            "source": record.source,
        }
        for record in records[-SAMPLES_PER_BUCKET:]
    ]
    tx.execute(sa.insert(table), rows)
    mine = where(table, key)
    newest = sa.select(table.c.id).where(mine).order_by(table.c.id.desc())
    oldest_kept = tx.scalar(newest.offset(SAMPLES_PER_BUCKET - 1).limit(1))
    if oldest_kept is not None:
        tx.execute(sa.delete(table).where(mine, table.c.id < oldest_kept))


def loads(tx: sa.Connection, *, now: float, half_life: float) -> list[BucketLoad]:
    """Traffic of every bucket, decayed to `now`, heaviest first."""
    found = []
    for row in tx.execute(sa.select(schema.bucket_stats)):
        if not _readable(StudyKey(row.geometry, row.device, row.build, row.bucket)):
            continue
        fade = 0.5 ** (max(0.0, now - row.updated) / half_life)
        found.append(
            BucketLoad(
                StudyKey(row.geometry, row.device, row.build, row.bucket),
                bool(row.hybrid),
                row.records,
                row.steps,
                row.weight * fade,
                row.step_weight * fade,
            )
        )
    # The key breaks ties, so that two readers agree on the order.
    return sorted(found, key=lambda load: (-load.weight, load.key))


@functools.lru_cache(maxsize=65536)
def _readable(key: StudyKey) -> bool:
    """Whether a key parses; cached, so that a bad one is logged once."""
    try:
        key.parsed()
    except ShapeError as error:
        logger.error("bucket row skipped, its key is unreadable: %s", error)
        return False
    return True


def samples(tx: sa.Connection, key: StudyKey) -> list[Sample]:
    """The kept samples of one bucket, newest first; unreadable rows are logged and skipped."""
    table = schema.bucket_samples
    rows = tx.execute(sa.select(table).where(where(table, key)).order_by(table.c.id.desc()))
    return [sample for row in rows if (sample := _sample(row)) is not None]


def attention_times(tx: sa.Connection, key: StudyKey) -> list[tuple[float, str]]:
    """(attention us, config source) of the kept samples that know their time."""
    c = schema.bucket_samples.c
    mine = sa.and_(where(schema.bucket_samples, key), c.attention_us > 0)
    return [(row[0], row[1]) for row in tx.execute(sa.select(c.attention_us, c.source).where(mine))]


def _sample(row: sa.Row[tuple[object, ...]]) -> Sample | None:
    try:
        q_lens = msgspec.json.decode(row.q_lens, type=list[int])
        kv_lens = msgspec.json.decode(row.kv_lens, type=list[int])
    except msgspec.DecodeError as error:
        logger.error("sample row %s skipped, its lengths are unreadable: %s", row.id, error)
        return None
    return Sample(Lengths(q_lens, kv_lens), row.attention_us, row.layers, row.source)
