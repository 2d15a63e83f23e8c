"""Traces in: a message becomes counters per server, times per bucket and samples to replay.

A bucket weighs the attention time that its steps took, decayed with a half-life, so that tuning
goes where time is lost now; a step whose time nobody could tell counts with what the cost model
makes of its lengths. A message that samples its steps counts for all it has seen.
"""

from __future__ import annotations

import dataclasses
import hashlib
from typing import NamedTuple

import msgspec
import sqlalchemy as sa

from pod_integrate.model import estimate
from pod_integrate.terms.keys import Bucket, DeviceKey, Geometry
from pod_integrate.terms.trace import StepRecord, TraceMessage, encode
from tuner.messages import StudyKey
from tuner.store import schema
from tuner.store.storage import upsert, upsert_rows
from tuner.traffic.budget import Budgets
from tuner.traffic.loads import Loads, Stored
from tuner.traffic.samples import keep

# The largest integer that JSON's readers have exactly.
MAX_COUNT = 1 << 53


class Ingested(NamedTuple):
    """Records taken from a message; 0 with `duplicate` when it had been taken before."""

    accepted: int
    duplicate: bool


class _Timed(NamedTuple):
    record: StepRecord
    us: float


class Buckets(NamedTuple):
    """What memory knows of buckets.

    bounds  draws above which a bucket's steps are not kept; see samples.py
    """

    loads: Loads
    bounds: dict[StudyKey, float]


class Change(NamedTuple):
    """What a message made of one bucket's row, and of the bound of what is kept of it."""

    key: StudyKey
    stored: Stored
    bound: float


def ingest(
    tx: sa.Connection, message: TraceMessage, budgets: Budgets, buckets: Buckets, now: float
) -> tuple[Ingested, list[Change]]:
    """Store a checked message once; what it adds to buckets is what `budgets` leaves its server.

    A re-post is recognised by server, sequence and content; a server that restarted and counts
    from 0 again has other content. `buckets` get to know the changes once they are committed.
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
        return Ingested(0, True), []
    row = {"server": message.server, "sequence": message.sequence, "digest": digest}
    row |= {"received": now, "records": len(message.records), "body": body}
    tx.execute(sa.insert(table).values(row))
    message = _without_warm_up(message)
    geometry, device = Geometry.parse(message.geometry), DeviceKey.parse(message.device)
    by_bucket: dict[Bucket, list[_Timed]] = {}
    times = [attention_us(record, geometry, device) for record in message.records]
    for timed in map(_Timed, message.records, times):
        bucket = Bucket.of(timed.record.q_lens, timed.record.kv_lens)
        by_bucket.setdefault(bucket, []).append(timed)
    hybrid = sum(len(steps) for bucket, steps in by_bucket.items() if bucket.is_hybrid)
    _count_server(tx, message, hybrid, now)
    scale = budgets.scale(message.server, message.seen, times, now)
    changes = []
    for bucket, steps in by_bucket.items():
        key = StudyKey(message.geometry, message.device, message.build, str(bucket))
        old = buckets.loads.stored(key) or Stored(bucket.is_hybrid, 0, 0.0, 0.0, 0.0, now)
        us = sum(timed.us for timed in steps)
        new = old.grown(len(steps), scale, us, now, buckets.loads.half_life)
        records = [timed.record for timed in steps]
        bound = keep(tx, key, message.server, records, old.records, buckets.bounds.get(key))
        changes.append(Change(key, new, bound))
    _store(tx, changes)
    return Ingested(len(message.records), False), changes


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


def _count_server(tx: sa.Connection, message: TraceMessage, hybrid: int, now: float) -> None:
    c = schema.servers.c
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


def _store(tx: sa.Connection, changes: list[Change]) -> None:
    rows = [change.key._asdict() | dataclasses.asdict(change.stored) for change in changes]
    upsert_rows(tx, schema.bucket_stats, rows)


def attention_us(record: StepRecord, geometry: Geometry, device: DeviceKey) -> float:
    """Microseconds of attention in a step, measured or, where they are unknown, estimated."""
    if record.attention_us > 0:
        return record.attention_us
    one = estimate.attention_us(record.q_lens, record.kv_lens, geometry, device)
    return one * max(1, record.layers)
