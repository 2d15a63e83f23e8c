"""Reading and writing trials, pairs, decisions, tables and history inside a transaction.

A row that cannot be read is logged and skipped: one bad row never stops the tuner.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

import msgspec
import sqlalchemy as sa

from pod_integrate.errors import PodAttentionError
from pod_integrate.terms.config import PodConfig
from tuner import phases
from tuner.messages import LivePair, Pair, Proof, Scope, StudyKey, TrialState
from tuner.phases import Phase
from tuner.store import schema

logger = logging.getLogger(__name__)

KEEP_HISTORY = 1440
KEEP_TABLES = 100
# Of one statement: databases bound how many values it may name.
_IDS = 500


Fate = Literal["", "promoted", "rejected", "rolled back", "superseded"]


@dataclasses.dataclass(kw_only=True)
class Trial:
    """One candidate of one study and the pairs measured for it, by phase.

    value         what Optuna was told: log(candidate time / default time), None when unmeasured
    confirmation  0: not yet a candidate for promotion, else its ordinal among those of the study
    fate          how its confirmation ended, empty before
    """

    id: int
    number: int
    state: TrialState
    config: PodConfig
    origin: str
    created: float
    updated: float
    reason: str = ""
    value: float | None = None
    confirmation: int = 0
    fate: Fate = ""
    rechecks: int = 0
    pairs: dict[Phase, list[Pair]] = dataclasses.field(default_factory=dict)


DecisionKind = Literal[
    "start", "prune", "mismatch", "keep", "promote", "rollback", "park", "drop",
    "pause", "resume", "pin", "unpin", "kill",
]  # fmt: skip


class Decision(NamedTuple):
    """One thing that was decided, with the evidence for it.

    alert  a person should look
    who    the person who decided, empty: the tuner
    """

    time: float
    kind: DecisionKind
    key: StudyKey
    reason: str
    trial: int | None = None
    config_short: str = ""
    proof: Proof = Proof()
    alert: bool = False
    who: str = ""


class HistoryPoint(NamedTuple):
    """One point of the time series, see tables/history.py; times are Unix seconds."""

    time: float
    records: int
    trials: int
    promotions: int
    attention_us_default: float | None
    attention_us_tuned: float | None


def where(table: sa.Table, key: StudyKey | Scope) -> sa.ColumnElement[bool]:
    """Rows of one study or of one scope."""
    return sa.and_(*(table.c[name] == value for name, value in key._asdict().items()))


def parts(ids: list[int]) -> Iterator[list[int]]:
    """Few enough for one statement each."""
    for start in range(0, len(ids), _IDS):
        yield ids[start : start + _IDS]


def study_keys(tx: sa.Connection) -> list[StudyKey]:
    """Every study that has trials."""
    c = schema.trials.c
    rows = tx.execute(sa.select(c.geometry, c.device, c.build, c.bucket).distinct())
    return [StudyKey(*row) for row in rows]


def load_trials(tx: sa.Connection, key: StudyKey) -> list[Trial]:
    """The study's trials in order of number, pairs included."""
    table = schema.trials
    rows = tx.execute(sa.select(table).where(where(table, key)).order_by(table.c.number))
    loaded = {row.id: trial for row in rows.all() if (trial := _trial(row)) is not None}
    pairs = schema.pairs
    found = tx.execute(
        sa.select(pairs).where(pairs.c.trial_id.in_(list(loaded))).order_by(pairs.c.id)
    )
    for row in found:
        if not (row.baseline_us > 0 and row.candidate_us > 0):
            logger.error("pair %d skipped: times %s", row.id, row)
            continue
        try:
            phase = phases.parse(row.phase)
        except ValueError as error:
            logger.error("pair %d skipped: %s", row.id, error)
            continue
        kind = LivePair if row.live else Pair
        pair = kind(row.baseline_us, row.candidate_us, row.batch)
        loaded[row.trial_id].pairs.setdefault(phase, []).append(pair)
    return list(loaded.values())


def _trial(row: sa.Row[Any]) -> Trial | None:
    try:
        config = PodConfig.from_dict(msgspec.json.decode(row.config))
    except (msgspec.DecodeError, PodAttentionError) as error:
        logger.error("trial row %d skipped, its config is unreadable: %s", row.id, error)
        return None
    names = {field.name for field in dataclasses.fields(Trial)} - {"config", "pairs", "fate"}
    values = {name: getattr(row, name) for name in names}
    return Trial(config=config, fate=row.verdict, **values)


def insert_trial(
    tx: sa.Connection, key: StudyKey, config: PodConfig, *, origin: str, now: float
) -> Trial:
    """A new running trial with the study's next free number."""
    table = schema.trials
    last = tx.scalar(sa.select(sa.func.max(table.c.number)).where(where(table, key)))
    number = 0 if last is None else last + 1
    row = {
        **key._asdict(),
        "number": number,
        "state": "running",
        "config": msgspec.json.encode(config.to_dict()).decode(),
        "origin": origin,
        "reason": "",
        "value": None,
        "confirmation": 0,
        "verdict": "",
        "rechecks": 0,
        "created": now,
        "updated": now,
    }
    made = tx.execute(sa.insert(table).values(row)).inserted_primary_key
    assert made is not None
    return Trial(
        id=made[0], number=number, state="running", config=config, origin=origin,
        created=now, updated=now,
    )  # fmt: skip


def save_trial(tx: sa.Connection, trial: Trial) -> None:
    """Write what may have changed in a trial, its pairs excepted."""
    names = ("state", "reason", "value", "confirmation", "rechecks", "updated")
    table = schema.trials
    values = {name: getattr(trial, name) for name in names} | {"verdict": trial.fate}
    tx.execute(sa.update(table).where(table.c.id == trial.id).values(values))


def add_pairs(tx: sa.Connection, trial: Trial, phase: Phase, new: list[Pair], now: float) -> None:
    """Store pairs of one phase."""
    if new:
        rows = [
            {
                "trial_id": trial.id,
                "phase": str(phase),
                "baseline_us": pair.baseline_us,
                "candidate_us": pair.candidate_us,
                "batch": pair.batch,
                "time": now,
                "live": isinstance(pair, LivePair),
            }
            for pair in new
        ]
        tx.execute(sa.insert(schema.pairs), rows)


def add_decision(tx: sa.Connection, decision: Decision) -> None:
    """Store a decision, a line of the audit log."""
    values = decision._asdict()
    values |= values.pop("key")._asdict() | values.pop("proof")._asdict()
    tx.execute(sa.insert(schema.decisions).values(values))


def add_table(tx: sa.Connection, scope: Scope, version: int, body: bytes, now: float) -> None:
    """Store one version of a scope's table; the latest KEEP_TABLES stay for roll back and diff."""
    table = schema.tables
    row = {**scope._asdict(), "version": version, "updated": now, "body": body}
    tx.execute(sa.insert(table).values(row))
    old = sa.and_(where(table, scope), table.c.version <= version - KEEP_TABLES)
    tx.execute(sa.delete(table).where(old))


def add_history(tx: sa.Connection, point: HistoryPoint) -> None:
    """Store one point of the time series."""
    table = schema.history
    made = tx.execute(sa.insert(table).values(point._asdict())).inserted_primary_key
    assert made is not None
    tx.execute(sa.delete(table).where(table.c.id <= made[0] - KEEP_HISTORY))


def latest(tx: sa.Connection, table: sa.Table, count: int) -> list[sa.Row[Any]]:
    """The last rows of a table with an id, newest first."""
    return list(tx.execute(sa.select(table).order_by(table.c.id.desc()).limit(count)))
