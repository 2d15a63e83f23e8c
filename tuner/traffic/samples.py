"""The traced steps of each bucket that are kept for replay."""

from __future__ import annotations

import hashlib
import logging
import math
from typing import NamedTuple

import msgspec
import sqlalchemy as sa

from pod_integrate.terms.trace import StepRecord
from tuner.messages import StepLengths, StudyKey
from tuner.store import schema
from tuner.store.rows import where

logger = logging.getLogger(__name__)

SAMPLES_PER_BUCKET = 96
# Steps of one bucket after which an older one is half as likely to be kept as a new one.
_HALF_LIFE = 2000


class Sample(NamedTuple):
    """One traced step kept for replay."""

    lengths: StepLengths
    attention_us: float
    layers: int
    source: str


def keep(
    tx: sa.Connection,
    key: StudyKey,
    server: str,
    records: list[StepRecord],
    before: int,
    bound: float | None,
) -> float:
    """Keep a sample of the bucket's steps, new ones likelier than old ones.

    The newest would not do: neighbouring steps of a server are almost the same one.

    before  records of the bucket so far
    bound   no step with a larger draw is kept; None: not known
    Returns the bound from now on, inf while all are kept.
    """
    table, rows = schema.bucket_samples, []
    for i, record in enumerate(records):
        draw = _draw(f"{server}:{record.step}:{record.time}", before + i)
        if bound is None or draw <= bound:
            rows.append(_row(record, draw) | key._asdict())
    if not rows:
        return math.inf if bound is None else bound
    tx.execute(sa.insert(table), rows)
    mine = where(table, key)
    best = sa.select(table.c.draw).where(mine).order_by(table.c.draw)
    last_kept = tx.scalar(best.offset(SAMPLES_PER_BUCKET - 1).limit(1))
    if last_kept is None:
        return math.inf
    tx.execute(sa.delete(table).where(mine, table.c.draw > last_kept))
    return float(last_kept)


def _row(record: StepRecord, draw: float) -> dict[str, object]:
    return {
        "time": record.time,
        "q_lens": msgspec.json.encode(record.q_lens).decode(),
        "kv_lens": msgspec.json.encode(record.kv_lens).decode(),
        "attention_us": record.attention_us,
        "layers": record.layers,
        "source": record.source,
        "draw": draw,
    }


def _draw(name: str, ordinal: int) -> float:
    """Logarithm of an exponential draw whose rate doubles every _HALF_LIFE steps.

    Keeping the smallest is a weighted sample of all steps so far, without looking back. By count
    and not by time, so that a clock that jumps costs nothing.
    """
    digest = hashlib.blake2b(name.encode(), digest_size=6).digest()
    uniform = (int.from_bytes(digest) + 0.5) / (1 << 48)
    return math.log(-math.log(uniform)) - ordinal / _HALF_LIFE * math.log(2)


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
    return Sample(StepLengths(q_lens, kv_lens), row.attention_us, row.layers, row.source)
