"""What people see: the tuner's state as JSON. None (null) stands for what is not known.

History. Every HISTORY_SECONDS one point: counters so far and two estimates of the mean attention
time of one forward step of the current traffic mix, in microseconds.

  attention_us_default  over buckets, weighted by decayed steps: the median traced attention time
                        of steps that ran the default config (where none is kept any more, at
                        least: that of tuned steps times the lower bound of their speed-up)
  attention_us_tuned    at most: the same with each bucket's time divided by the lower bound of its
                        promoted config's speed-up; buckets without one stay as they are

Buckets whose traces carry no attention time are left out of both.
"""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING, Any

import msgspec
import sqlalchemy as sa

from pod_integrate import __version__
from tuner.messages import Scope, StudyKey, iso
from tuner.search.rechecks import replayable
from tuner.store import schema
from tuner.store.rows import add_history, latest, load_trials
from tuner.traffic import ingest as traffic
from tuner.traffic import samples as kept
from tuner.view.buckets import bucket_row, promoted_entry, trial_row

if TYPE_CHECKING:
    from tuner.core import Tuner

HISTORY_SECONDS = 10.0
MAX_BUCKETS = 200
MAX_DECISIONS = 50
MAX_POINTS = 360
MAX_SAMPLED_BUCKETS = 16
SAMPLES_SHOWN = 24


def build(tuner: Tuner) -> dict[str, Any]:
    """The document of GET /v1/overview."""
    now = tuner.clock()
    half_life = tuner.settings.half_life_seconds
    with tuner.store.read() as tx:
        loads = traffic.loads(tx, now=now, half_life=half_life)
        total = sum(load.weight for load in loads)
        return {
            "tuner": _tuner(tuner, now),
            "servers": _servers(tx, now),
            "totals": _totals(tx),
            "tables": _tables(tuner),
            "buckets": [bucket_row(tuner, tx, load, total, now) for load in loads[:MAX_BUCKETS]],
            "decisions": [_decision(row) for row in latest(tx, schema.decisions, MAX_DECISIONS)],
            "history": [_point(row) for row in latest(tx, schema.history, MAX_POINTS)][::-1],
        }


def trials(tuner: Tuner, key: StudyKey) -> dict[str, Any]:
    """The document of GET /v1/trials: every trial of one study and which one is promoted."""
    with tuner.store.read() as tx:
        found = load_trials(tx, key)
    entry = promoted_entry(tuner, key)
    promoted = entry.evidence.trial if entry is not None else None
    return {"trials": [trial_row(trial, entry) for trial in found], "promoted": promoted}


def samples(tuner: Tuner, scope: Scope) -> dict[str, Any]:
    """The document of GET /v1/samples: traced lengths of a scope's heaviest buckets."""
    now = tuner.clock()
    with tuner.store.read() as tx:
        loads = traffic.loads(tx, now=now, half_life=tuner.settings.half_life_seconds)
        mine = [load for load in loads if load.key[: len(scope)] == scope]
        total = sum(load.weight for load in mine)
        return {
            "buckets": [
                {
                    "bucket": load.key.bucket,
                    "time_share": load.weight / total,
                    "samples": [
                        msgspec.structs.asdict(sample.lengths)
                        for sample in replayable(tuner, tx, load.key)[:SAMPLES_SHOWN]
                    ],
                }
                for load in mine[:MAX_SAMPLED_BUCKETS]
                if load.weight > 0
            ]
        }


def add_history_point(tuner: Tuner) -> None:
    """Store one point of the time series described above."""
    now = tuner.clock()
    weights = default = tuned = 0.0
    with tuner.store.begin() as tx:
        for load in traffic.loads(tx, now=now, half_life=tuner.settings.half_life_seconds):
            entry = promoted_entry(tuner, load.key)
            bound = entry.evidence.lower_bound if entry is not None else 1.0
            us = _default_attention_us(kept.attention_times(tx, load.key), bound)
            if us is not None:
                weights += load.step_weight
                default += load.step_weight * us
                tuned += load.step_weight * us / bound
        totals = _totals(tx)
        row = {name: totals[name] for name in ("records", "trials", "promotions")} | {
            "time": now,
            "attention_us_default": default / weights if weights else None,
            "attention_us_tuned": tuned / weights if weights else None,
        }
        add_history(tx, row)


def _default_attention_us(times: list[tuple[float, str]], bound: float) -> float | None:
    default = [us for us, source in times if source == "default"]
    if default:
        return statistics.median(default)
    return statistics.median(us for us, _ in times) * bound if times else None


def _tuner(tuner: Tuner, now: float) -> dict[str, Any]:
    return {
        "version": __version__,
        "started": iso(tuner.started),
        "uptime_s": round(now - tuner.started, 1),
        "storage": tuner.store.name,
        "storage_error": tuner.store.trouble or None,
        "archive_error": tuner.archive.trouble or None,
        "archive_bytes": tuner.archive.bytes,
        "host_mode": tuner.host_mode,
        "workers": [
            {
                "id": name,
                "state": "measuring" if state.task else "idle",
                "device": state.info.device,
                "build": state.info.build,
                "task": state.task,
                "since_s": round(now - (state.since or state.seen), 1),
            }
            for name, state in sorted(tuner.workers.items())
        ],
    }


def _servers(tx: sa.Connection, now: float) -> list[dict[str, Any]]:
    table = schema.servers
    rows = tx.execute(sa.select(table).order_by(table.c.last_seen.desc()).limit(MAX_BUCKETS))
    names = ("server", "geometry", "device", "build", "table_version", "seen", "dropped", "records")
    return [
        {name: getattr(row, name) for name in names}
        | {
            "last_seen_s": round(max(0.0, now - row.last_seen), 1),
            "hybrid_share": row.hybrid / row.records if row.records else None,
        }
        for row in rows
    ]


def _totals(tx: sa.Connection) -> dict[str, Any]:
    servers, trials_table, decisions = schema.servers.c, schema.trials.c, schema.decisions.c
    sums = [servers.messages, servers.records, servers.seen, servers.dropped, servers.hybrid]
    # As floats: a sum of integers that overflows is an error in SQLite.
    floats = (sa.func.coalesce(sa.func.sum(sa.cast(c, sa.Float)), 0) for c in sums)
    counted = tx.execute(sa.select(*floats)).one()
    messages, records, seen, dropped, hybrid = (int(value) for value in counted)
    states = tx.execute(sa.select(trials_table.state, sa.func.count()).group_by(trials_table.state))
    by_state = {row[0]: row[1] for row in states}
    kinds = tx.execute(sa.select(decisions.kind, sa.func.count()).group_by(decisions.kind))
    by_kind = {row[0]: row[1] for row in kinds}
    alerts = sa.select(sa.func.count()).select_from(schema.decisions).where(decisions.alert)
    return {
        "messages": messages,
        "records": records,
        "steps_seen": seen,
        "steps_dropped": dropped,
        "hybrid_steps": hybrid,
        "hybrid_share": hybrid / records if records else None,
        "trials": sum(by_state.values()),
        "pruned": by_state.get("pruned", 0),
        "pairs": tx.scalar(sa.select(sa.func.count()).select_from(schema.pairs)) or 0,
        "promotions": by_kind.get("promote", 0),
        "rollbacks": by_kind.get("rollback", 0),
        "alerts": tx.scalar(alerts) or 0,
    }


def _tables(tuner: Tuner) -> list[dict[str, Any]]:
    return [
        scope._asdict()
        | {"version": table.version, "updated": table.updated, "entries": len(table.entries)}
        for scope, table in sorted(tuner.publisher.all().items())
    ]


def _decision(row: sa.Row[Any]) -> dict[str, Any]:
    names = ("id", "kind", "geometry", "device", "bucket", "config_short", "reason")
    evidence = ("pairs", "steps", "lower_bound")
    # A median without a bound, e.g. of what screening pruned, is no result.
    speedup = row.speedup if row.lower_bound is not None else None
    more = {"speedup": speedup, "time": iso(row.time)}
    return {name: getattr(row, name) for name in (*names, *evidence)} | more


def _point(row: sa.Row[Any]) -> dict[str, Any]:
    names = ("records", "trials", "promotions", "attention_us_default", "attention_us_tuned")
    return {"time": iso(row.time)} | {name: getattr(row, name) for name in names}
