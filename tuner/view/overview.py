"""The tuner's state as people see it; see documents.py for what each field says."""

from __future__ import annotations

import itertools
from typing import Any

import sqlalchemy as sa

from pod_integrate import __version__
from tuner.core import Tuner
from tuner.messages import Scope, StudyKey, iso
from tuner.search.leases import WorkerState
from tuner.store import schema
from tuner.store.rows import latest, load_trials
from tuner.traffic import samples as kept
from tuner.traffic.samples import Sample
from tuner.traffic.steps import chose_nothing, distinct
from tuner.view import documents
from tuner.view.buckets import bucket_row, trial_row

MAX_BUCKETS = 200
MAX_DECISIONS = 50
MAX_POINTS = 360
MAX_SAMPLED_BUCKETS = 16
# A re-check of some, then a replay of twice as many others.
SAMPLES_SHOWN = 36


def overview(tuner: Tuner) -> documents.Overview:
    """The document of GET /v1/overview."""
    now = tuner.clock()
    with tuner.store.read() as tx:
        total = tuner.traffic.total_us(now)
        heaviest = itertools.islice(tuner.traffic.heaviest(now), MAX_BUCKETS)
        return documents.Overview(
            tuner=_tuner(tuner, now),
            servers=_servers(tx, now),
            totals=tuner.counts.totals(tx),
            tables=_tables(tuner),
            bucket_count=len(tuner.traffic),
            buckets=[bucket_row(tuner, tx, load, total, now) for load in heaviest],
            decisions=[_decision(row) for row in latest(tx, schema.decisions, MAX_DECISIONS)],
            history=[_point(row) for row in latest(tx, schema.history, MAX_POINTS)][::-1],
        )


def trials(tuner: Tuner, key: StudyKey) -> documents.Trials:
    """The document of GET /v1/trials."""
    with tuner.store.read() as tx:
        found = load_trials(tx, key)
    entry = tuner.tables.promoted(key)
    return documents.Trials(
        trials=[trial_row(trial, entry) for trial in found],
        promoted=entry.evidence.trial if entry is not None else None,
    )


def samples(tuner: Tuner, scope: Scope) -> documents.Samples:
    """The document of GET /v1/samples."""
    with tuner.store.read() as tx:
        now = tuner.clock()
        total = tuner.traffic.total_us(now, scope)
        mine = itertools.islice(tuner.traffic.heaviest(now, scope), MAX_SAMPLED_BUCKETS)
        return documents.Samples(
            buckets=[
                documents.SampledBucket(
                    bucket=load.key.bucket,
                    time_share=load.attention_us / total,
                    samples=[sample.lengths for sample in _replayable(tuner, tx, load.key)][
                        :SAMPLES_SHOWN
                    ],
                )
                for load in mine
                if load.attention_us > 0
            ]
        )


def _replayable(tuner: Tuner, tx: sa.Connection, key: StudyKey) -> list[Sample]:
    """The kept steps of a bucket, those first on which its promoted config was not chosen."""
    pool = distinct(kept.samples(tx, key))
    campaign = tuner.search.campaigns.get(key)
    if campaign is None or campaign.promoted is None:
        return pool
    first = chose_nothing(pool, campaign.promoted)
    return first + [sample for sample in pool if sample not in first]


def _tuner(tuner: Tuner, now: float) -> documents.TunerState:
    return documents.TunerState(
        version=__version__,
        started=iso(tuner.started),
        uptime_s=round(now - tuner.started, 1),
        storage=tuner.store.name,
        storage_error=tuner.store.trouble or None,
        archive_error=tuner.archive.trouble or None,
        archive_bytes=tuner.archive.bytes,
        host_mode=tuner.host_mode,
        workers=[_worker(name, state, now) for name, state in sorted(tuner.search.workers.items())],
        paused=tuner.search.board.holds.paused,
    )


def _worker(name: str, state: WorkerState, now: float) -> documents.Worker:
    return documents.Worker(
        id=name,
        state="measuring" if state.task else "idle",
        device=state.info.device,
        build=state.info.build,
        task=state.task,
        since_s=round(now - (state.since or state.seen), 1),
    )


def _servers(tx: sa.Connection, now: float) -> list[documents.Server]:
    table = schema.servers
    rows = tx.execute(sa.select(table).order_by(table.c.last_seen.desc()).limit(MAX_BUCKETS))
    return [
        documents.Server(
            server=row.server,
            geometry=row.geometry,
            device=row.device,
            build=row.build,
            table_version=row.table_version,
            seen=row.seen,
            dropped=row.dropped,
            records=row.records,
            last_seen_s=round(max(0.0, now - row.last_seen), 1),
            hybrid_share=row.hybrid / row.records if row.records else None,
        )
        for row in rows
    ]


def _tables(tuner: Tuner) -> list[documents.Table]:
    return [
        documents.Table(
            **scope._asdict(),
            version=table.version,
            updated=table.updated,
            entries=len(table.entries),
        )
        for scope, table in sorted(tuner.tables.all().items())
    ]


def _decision(row: sa.Row[Any]) -> documents.Decision:
    return documents.Decision(
        id=row.id,
        time=iso(row.time),
        kind=row.kind,
        geometry=row.geometry,
        device=row.device,
        bucket=row.bucket,
        config_short=row.config_short,
        reason=row.reason,
        pairs=row.pairs,
        steps=row.steps,
        # A median without a bound, e.g. of what screening pruned, is no result.
        speedup=row.speedup if row.lower_bound is not None else None,
        lower_bound=row.lower_bound,
        who=row.who,
    )


def _point(row: sa.Row[Any]) -> documents.Point:
    return documents.Point(
        time=iso(row.time),
        records=row.records,
        trials=row.trials,
        promotions=row.promotions,
        attention_us_default=row.attention_us_default,
        attention_us_tuned=row.attention_us_tuned,
    )
