"""Traces in: a message becomes counters per server, times per bucket and samples to replay.

A bucket weighs the attention time that its steps took, decayed with a half-life, so that tuning
goes where time is lost now; a step whose time nobody could tell counts with what the cost model
makes of its lengths. A message that samples its steps counts for all it has seen.
"""

from __future__ import annotations

import functools
import hashlib
import logging
import math
from typing import Any, NamedTuple

import msgspec
import sqlalchemy as sa

from pod_integrate.errors import ShapeError
from pod_integrate.model import estimate
from pod_integrate.terms.keys import Bucket, DeviceKey, Geometry
from pod_integrate.terms.trace import StepRecord, TraceMessage, encode
from tuner.messages import StudyKey
from tuner.store import schema
from tuner.store.rows import where
from tuner.store.storage import upsert
from tuner.traffic.budget import Budgets
from tuner.traffic.samples import keep

logger = logging.getLogger(__name__)

# The largest integer that JSON's readers have exactly.
MAX_COUNT = 1 << 53


class Ingested(NamedTuple):
    """Records taken from a message; 0 with `duplicate` when it had been taken before."""

    accepted: int
    duplicate: bool


class _Timed(NamedTuple):
    record: StepRecord
    us: float


class BucketLoad(NamedTuple):
    """Traffic of one bucket now.

    records       taken in all
    steps         that these stand for
    attention_us  what the steps took, decayed
    recent_steps  `steps`, decayed
    """

    key: StudyKey
    hybrid: bool
    records: int
    steps: float
    attention_us: float
    recent_steps: float


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
    message = _without_warm_up(message)
    geometry, device = Geometry.parse(message.geometry), DeviceKey.parse(message.device)
    by_bucket: dict[Bucket, list[_Timed]] = {}
    times = [attention_us(record, geometry, device) for record in message.records]
    for timed in map(_Timed, message.records, times):
        bucket = Bucket.of(timed.record.q_lens, timed.record.kv_lens)
        by_bucket.setdefault(bucket, []).append(timed)
    scale = budgets.scale(message.server, message.seen, times, now)
    for bucket, steps in by_bucket.items():
        key = StudyKey(message.geometry, message.device, message.build, str(bucket))
        before = _count_bucket(tx, key, bucket, steps, scale, now, half_life)
        keep(tx, key, message.server, [timed.record for timed in steps], before)
    return Ingested(len(message.records), False)


def _without_warm_up(message: TraceMessage) -> TraceMessage:
    """The message with the time of a process's first step taken as unknown.

    Its seconds of compiling and loading say nothing about the traffic. Servers leave that step out,
    older ones sent it.
    """
    records = [
        r if r.step > 0 else msgspec.structs.replace(r, attention_us=0.0, step_us=0.0)
        for r in message.records
    ]
    return msgspec.structs.replace(message, records=records)


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
    steps: list[_Timed],
    scale: float,
    now: float,
    half_life: float,
) -> int:
    """Add these records to the bucket's counters; returns its records before."""
    table = schema.bucket_stats
    row = tx.execute(sa.select(table).where(where(table, key))).one_or_none()
    old = _load(row, now, half_life) if row is not None else None
    known = old or BucketLoad(key, bucket.is_hybrid, 0, 0.0, 0.0, 0.0)
    values = {
        "records": known.records + len(steps),
        "steps": known.steps + scale * len(steps),
        "weight": known.attention_us + scale * sum(timed.us for timed in steps),
        "step_weight": known.recent_steps + scale * len(steps),
        "updated": now,
    }
    upsert(tx, table, key._asdict() | values | {"hybrid": bucket.is_hybrid}, values)
    return known.records


def attention_us(record: StepRecord, geometry: Geometry, device: DeviceKey) -> float:
    """Microseconds of attention in a step, measured or, where they are unknown, estimated."""
    if record.attention_us > 0:
        return record.attention_us
    one = estimate.attention_us(record.q_lens, record.kv_lens, geometry, device)
    return one * max(1, record.layers)


def loads(tx: sa.Connection, *, now: float, half_life: float) -> list[BucketLoad]:
    """Traffic of every bucket, decayed to `now`, heaviest first."""
    found = []
    for row in tx.execute(sa.select(schema.bucket_stats)):
        load = _load(row, now, half_life)
        if load is not None:
            found.append(load)
    # The key breaks ties, so that two readers agree on the order.
    return sorted(found, key=lambda load: (-load.attention_us, load.key))


def _load(row: sa.Row[Any], now: float, half_life: float) -> BucketLoad | None:
    """A bucket's row decayed to `now`; one that is unreadable is logged and skipped."""
    key = StudyKey(row.geometry, row.device, row.build, row.bucket)
    if not _readable(key):
        return None
    try:
        fade = 0.5 ** (max(0.0, now - row.updated) / half_life)
        load = BucketLoad(
            key, bool(row.hybrid), int(row.records), float(row.steps),
            row.weight * fade, row.step_weight * fade,
        )  # fmt: skip
        if all(0.0 <= value < math.inf for value in load[2:]):
            return load
    except (TypeError, ValueError, OverflowError) as error:
        _complain(key, f"{type(error).__name__}: {error}")
        return None
    _complain(key, "a number that is negative or not finite")
    return None


@functools.lru_cache(maxsize=65536)
def _complain(key: StudyKey, what: str) -> None:
    """Log a bad row; cached, so that each is logged once."""
    logger.error("bucket row of %s skipped: %s", key, what)


@functools.lru_cache(maxsize=65536)
def _readable(key: StudyKey) -> bool:
    """Whether a key parses."""
    try:
        key.parsed()
    except ShapeError as error:
        _complain(key, f"its key is unreadable: {error}")
        return False
    return True
