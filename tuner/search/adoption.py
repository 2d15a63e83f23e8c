"""A table from elsewhere: its configs become trials here, in force until found slower here.

What was proven on another machine of the same device and build is no proof of this traffic, so an
adopted config is compared with the default like any promotion, and rolled back when it is slower.
A table acts on servers of its build alone; the answer says where nobody is one, and which entries
were measured with another build.
"""

from __future__ import annotations

import math

import msgspec
import sqlalchemy as sa

from pod_integrate.devices.registry import target_of
from pod_integrate.errors import ConfigError, KernelUnavailableError
from pod_integrate.terms.table import ConfigTable, TableEntry
from tuner.messages import Proof, Scope, StudyKey
from tuner.orders import Answer, TableOrder
from tuner.search.board import Board
from tuner.store import schema
from tuner.store.rows import Decision, Trial, add_decision, insert_trial, load_trials, save_trial
from tuner.tables.publish import Publisher


def adopt(board: Board, tables: Publisher, order: TableOrder, now: float) -> Answer:
    """Put a table's configs in force as one version; those that may not be are named."""
    table = order.parsed()
    scope = Scope(str(table.geometry), str(table.device), table.build)
    refused = _unusable(table)
    if refused:
        return Answer(False, refused)
    taken: dict[StudyKey, TableEntry] = {}
    left: list[str] = []
    barred = board.holds.barred(scope)
    for bucket, entry in table.entries.items():
        key, known = StudyKey(*scope, str(bucket)), tables.entry(scope, bucket)
        if board.holds.is_pinned(key):
            left.append(f"{bucket} is pinned")
        elif entry.config in barred:
            left.append(f"the config of {bucket} failed here")
        elif known is None or known.config != entry.config:
            taken[key] = entry
    seen = True
    if taken:
        with board.store.begin() as tx:
            adopted = {
                key.parsed()[2]: _adopt(tx, key, entry, tables.promoted(key), order, now)
                for key, entry in taken.items()
            }
            for key in taken:
                board.experiments.delete(tx, key)
            made = tables.change_all(tx, scope, {**adopted}, now)
            seen = _is_known(tx, scope)
        tables.commit(scope, made)
    for key in taken:
        board.forget(key)
    same = len(table.entries) - len(taken) - len(left)
    text = f"{len(taken)} configs in force, {same} were already"
    said = [text] if seen else [text, f"no server of build {scope.build} was seen here"]
    return Answer(True, "; ".join([*said, *_of_other_builds(table), *left])[:2000])


def _is_known(tx: sa.Connection, scope: Scope) -> bool:
    """Whether a server has ever sent traces of the scope: tables act on no other one."""
    c = schema.servers.c
    here = [getattr(c, name) == value for name, value in scope._asdict().items()]
    return tx.execute(sa.select(c.server).where(*here).limit(1)).first() is not None


def _of_other_builds(table: ConfigTable) -> list[str]:
    """What to say of entries that were not measured with the table's build."""
    others = [e.evidence.build for e in table.entries.values() if e.evidence.build != table.build]
    if not others:
        return []
    named = ", ".join(sorted(set(others)))
    return [f"{len(others)} were measured with another build ({named}), which proves nothing here"]


def _unusable(table: ConfigTable) -> str:
    """Why servers would refuse a table with these configs, empty when they would not."""
    try:
        target = target_of(table.device)
    except KernelUnavailableError as error:
        return f"{table.device}: {error}"
    for bucket, entry in table.entries.items():
        try:
            target.require_feasible(entry.config, table.geometry)
        except ConfigError as error:
            return f"{bucket}: {error}"
    return ""


def _adopt(
    tx: sa.Connection, key: StudyKey, entry: TableEntry, known: TableEntry | None,
    order: TableOrder, now: float,
) -> TableEntry:  # fmt: skip
    """The entry with a trial of its own here in the place of what was in force."""
    geometry, device, _ = key.parsed()
    trials = load_trials(tx, key)
    if not trials:
        # A study's first trial is the default's, measured against itself.
        default = target_of(device).default_config(geometry)
        insert_trial(tx, key, default, origin="default", now=now)
    for trial in trials:
        if known is not None and trial.number == known.evidence.trial:
            trial.fate = "superseded"
            save_trial(tx, trial)
    trial = insert_trial(tx, key, entry.config, origin="import", now=now)
    trial.state, trial.fate = "complete", "promoted"
    trial.value = -math.log(entry.evidence.median_speedup)
    save_trial(tx, trial)
    _file(tx, key, trial, entry, order, now)
    evidence = msgspec.structs.replace(entry.evidence, trial=trial.number)
    return TableEntry(entry.config, evidence)


def _file(
    tx: sa.Connection, key: StudyKey, trial: Trial, entry: TableEntry, order: TableOrder, now: float
) -> None:
    proof = entry.evidence
    reason = f"imported, proven by {proof.method} of {proof.measured_at}"
    if proof.build != key.build:
        reason += f" with build {proof.build}, which proves nothing of this one"
    add_decision(tx, Decision(
        now, "promote", key, f"{reason}: {order.why}" if order.why else reason, trial.number,
        trial.config.short(),
        Proof(proof.pairs, proof.steps, proof.median_speedup, proof.lower_bound), who=order.who,
    ))  # fmt: skip
