"""What nobody runs or decides by is forgotten; what is in force and what was counted stays."""

from __future__ import annotations

from pathlib import Path

import pytest
import sqlalchemy as sa
from tuner_support import (
    DEFAULT,
    KEY,
    WORKER,
    Clock,
    RecordedBench,
    bucket,
    drive,
    make_tuner,
    message,
    nothing_matters,
    overview,
    record,
    split_matters,
    trials,
)

from tuner.core import Tuner
from tuner.store import schema

DAYS = 86400.0


def rows(tuner: Tuner, table: sa.Table) -> int:
    with tuner.store.read() as tx:
        return tx.scalar(sa.select(sa.func.count()).select_from(table)) or 0


def live_on(tuner: Tuner, clock: Clock, rounds: int = 5) -> None:
    for _ in range(rounds):
        clock.now += 60.0
        tuner.housekeeping()


def counted(tuner: Tuner) -> dict[str, object]:
    found: dict[str, object] = overview(tuner)["totals"]
    return found


def test_a_bucket_that_nobody_runs_is_forgotten_whole(tmp_path: Path, clock: Clock) -> None:
    tuner = make_tuner(tmp_path, clock)
    tuner.ingest(message())
    drive(tuner, RecordedBench(nothing_matters))
    before = counted(tuner)
    assert before["trials"] and before["pairs"] and before["records"]
    clock.now += 8 * DAYS
    live_on(tuner, clock)
    for table in (schema.bucket_stats, schema.bucket_samples, schema.trials, schema.pairs):
        assert rows(tuner, table) == 0, table.name
    assert rows(tuner, schema.servers) == 0
    assert overview(tuner)["buckets"] == [] and tuner.next_task(WORKER) is None
    assert counted(tuner) == before
    tuner.close()
    again = make_tuner(tmp_path, clock)
    assert counted(again) == before
    # And it is an ordinary bucket when it comes back.
    again.ingest(message(7))
    assert drive(again, RecordedBench(nothing_matters), tasks=3) == 3
    assert counted(again)["records"] == 2 * int(str(before["records"]))
    assert trials(again, KEY)["trials"][0]["config_short"] == DEFAULT.short()
    again.close()


def test_counts_go_on_where_ids_begin_again(tuner: Tuner, clock: Clock) -> None:
    tuner.ingest(message())
    drive(tuner, RecordedBench(nothing_matters))
    before = counted(tuner)
    clock.now += 8 * DAYS
    live_on(tuner, clock)
    tuner.ingest(message(7))
    drive(tuner, RecordedBench(nothing_matters), tasks=4)
    more = counted(tuner)
    assert more["trials"] == int(str(before["trials"])) + rows(tuner, schema.trials)
    assert more["pairs"] == int(str(before["pairs"])) + rows(tuner, schema.pairs)


def test_a_bucket_in_force_keeps_its_proof(tuner: Tuner, clock: Clock) -> None:
    tuner.ingest(message())
    drive(tuner, RecordedBench(split_matters))
    assert bucket(tuner)["status"] == "promoted"
    before = counted(tuner)
    number = trials(tuner, KEY)["promoted"]
    clock.now += 8 * DAYS
    live_on(tuner, clock)
    found = {trial["number"]: trial for trial in trials(tuner, KEY)["trials"]}
    assert found[number]["pairs"] > 0 and found[number]["lower_bound"] > 1
    assert not any(trial["pairs"] for n, trial in found.items() if n != number)
    assert bucket(tuner)["status"] == "promoted"
    assert counted(tuner) == before


def test_buckets_beyond_the_limit_go_the_lightest_first(tmp_path: Path, clock: Clock) -> None:
    tuner = make_tuner(tmp_path, clock, max_buckets=100)
    shapes = [(q, kv) for q in range(1, 12) for kv in range(1, 12)]
    for sequence, (q, kv) in enumerate(shapes):
        lengths = ([1] * (1 << q), [1 << kv] * (1 << q))
        one = record(sequence, lengths=lengths, attention_us=100.0 + sequence)
        tuner.ingest(message(sequence, [one]))
    assert rows(tuner, schema.bucket_stats) == len(shapes) == 121
    live_on(tuner, clock)
    left = [load.key.bucket for load in tuner.traffic.heaviest(clock.now)]
    assert left == [f"d{_short(1 << q)}@{_short(1 << kv)}" for q, kv in reversed(shapes[21:])]
    assert rows(tuner, schema.bucket_stats) == rows(tuner, schema.bucket_samples) == 100
    tuner.close()


def _short(number: int) -> str:
    return f"{number >> 10}k" if number >= 1024 else str(number)


def test_routine_decisions_go_and_the_audit_log_stays(tuner: Tuner, clock: Clock) -> None:
    tuner.ingest(message())
    drive(tuner, RecordedBench(split_matters))
    kinds = {decision["kind"] for decision in overview(tuner)["decisions"]}
    assert {"start", "promote", "keep"} <= kinds
    clock.now += 8 * DAYS
    live_on(tuner, clock)
    left = {decision["kind"] for decision in overview(tuner)["decisions"]}
    assert "promote" in left and not left & {"start", "keep", "prune"}


def test_young_traffic_loses_nothing(tuner: Tuner, clock: Clock) -> None:
    tuner.ingest(message())
    drive(tuner, RecordedBench(split_matters))
    tables = (schema.bucket_samples, schema.trials, schema.pairs, schema.decisions, schema.servers)
    before = [rows(tuner, table) for table in tables]
    clock.now += 6 * DAYS
    live_on(tuner, clock)
    assert [rows(tuner, table) for table in tables] == before


def test_a_round_that_fails_has_neither_forgotten_nor_counted_anything(
    tuner: Tuner, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    tuner.ingest(message())
    drive(tuner, RecordedBench(nothing_matters))
    before, kept = counted(tuner), rows(tuner, schema.pairs)
    clock.now += 8 * DAYS

    def broken(*_args: object) -> None:
        raise sa.exc.OperationalError("disk", {}, Exception("full"))

    with monkeypatch.context() as patch:
        patch.setattr("tuner.traffic.retention.newest", broken)
        with pytest.raises(sa.exc.OperationalError):
            tuner.housekeeping()
    assert rows(tuner, schema.pairs) == kept and counted(tuner) == before
    assert len(tuner.traffic) == 1
    live_on(tuner, clock)
    assert rows(tuner, schema.pairs) == 0 and counted(tuner) == before
