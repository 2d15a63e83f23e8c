"""The core over lost workers, restarts, corrupt rows and a failing database."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import sqlalchemy as sa
from tuner_support import (
    BUILD,
    DEVICE,
    KEY,
    SCOPE,
    WORKER,
    Clock,
    RecordedBench,
    bucket,
    drive,
    make_tuner,
    message,
    nothing_matters,
    overview,
    split_matters,
    trials,
)

from pod_integrate.terms.table import ConfigTable
from tuner.core import Tuner
from tuner.messages import Report, WorkerInfo
from tuner.store import schema


@pytest.mark.parametrize(
    ("device", "build", "works"),
    [
        (str(DEVICE), BUILD, True),
        ("test-cpu:avx512:8", BUILD, True),
        ("test-cpu:avx512:1", BUILD, False),
        ("test-cpu:avx2:2", BUILD, False),
        ("other-cpu:avx512:2", BUILD, False),
        (str(DEVICE), "cpu-other", False),
    ],
)
def test_only_a_worker_of_the_same_device_and_build_measures(
    tuner: Tuner, device: str, build: str, works: bool
) -> None:
    tuner.ingest(message())
    task = tuner.next_task(WorkerInfo(id="w", device=device, build=build))
    assert (task is not None) == works
    assert bucket(tuner)["status"] == ("tuning" if works else "no worker")


def test_a_task_that_is_not_reported_goes_to_another_worker(tuner: Tuner, clock: Clock) -> None:
    tuner.ingest(message())
    first = tuner.next_task(WORKER)
    other = WorkerInfo(id="w1", device=WORKER.device, build=BUILD)
    second = tuner.next_task(other)
    assert first is not None and second is not None and second.number != first.number
    clock.now += tuner.settings.lease_seconds + 1
    again = tuner.next_task(other)
    assert again is not None and again.number == first.number and again.lost == 1
    late = Report(task=first.id, worker=WORKER.id, outcome="failed", reason="late")
    assert not tuner.report(late)


def test_a_config_that_kills_every_worker_is_pruned_with_an_alert(tuner: Tuner) -> None:
    tuner.ingest(message())
    drive(tuner, RecordedBench(nothing_matters), tasks=1)
    for _ in range(3):
        assert tuner.next_task(WORKER) is not None
        tuner.release(WORKER.id)
    trial = trials(tuner, KEY)["trials"][1]
    assert trial["state"] == "pruned" and "3 workers" in trial["reason"]
    assert overview(tuner)["totals"]["alerts"] == 1


def test_a_report_twice_counts_once(tuner: Tuner) -> None:
    tuner.ingest(message())
    task = tuner.next_task(WORKER)
    assert task is not None
    report = Report(task=task.id, worker=WORKER.id, outcome="failed", reason="x")
    assert tuner.report(report)
    assert not tuner.report(report)


def test_a_restart_goes_on_where_it_was(tmp_path: Path, clock: Clock) -> None:
    tuner = make_tuner(tmp_path, clock)
    tuner.ingest(message())
    drive(tuner, RecordedBench(split_matters), tasks=7)
    held = tuner.next_task(WORKER)
    before = trials(tuner, KEY)
    tuner.close()
    again = make_tuner(tmp_path, clock)
    assert trials(again, KEY) == before
    resumed = again.next_task(WORKER)
    assert held is not None and resumed is not None
    assert (resumed.number, resumed.phase) == (held.number, held.phase)
    again.report(Report(task=resumed.id, worker=WORKER.id, outcome="failed", reason="x"))
    drive(again, RecordedBench(split_matters))
    assert bucket(again)["status"] == "promoted"
    again.close()


def test_table_versions_grow_over_a_restart_and_over_a_corrupt_row(
    tmp_path: Path, clock: Clock
) -> None:
    tuner = make_tuner(tmp_path, clock)
    tuner.ingest(message())
    drive(tuner, RecordedBench(split_matters))
    good = tuner.table(SCOPE)
    with tuner.store.begin() as tx:
        row = {**SCOPE._asdict(), "version": 7, "updated": 0.0, "body": b"{nonsense"}
        tx.execute(sa.insert(schema.tables).values(row))
    tuner.close()
    again = make_tuner(tmp_path, clock)
    assert again.table(SCOPE) == good
    drive(again, RecordedBench(split_matters))
    clock.now += again.settings.recheck_seconds + 1
    drive(again, RecordedBench(lambda config: 1500.0 - split_matters(config)), tasks=60)
    assert ConfigTable.from_json(again.table(SCOPE) or b"").version == 8
    again.close()


def test_unreadable_rows_are_skipped_and_the_rest_is_used(
    tmp_path: Path, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    tuner = make_tuner(tmp_path, clock)
    tuner.ingest(message())
    drive(tuner, RecordedBench(nothing_matters), tasks=5)
    with tuner.store.begin() as tx:
        tx.execute(sa.update(schema.trials).where(schema.trials.c.number == 2).values(config="{"))
        newest = sa.select(sa.func.max(schema.bucket_samples.c.id)).scalar_subquery()
        tx.execute(
            sa.update(schema.bucket_samples)
            .where(schema.bucket_samples.c.id == newest)
            .values(q_lens="[1, oops")
        )
        tx.execute(sa.insert(schema.bucket_stats).values(
            geometry="nonsense", device="nonsense", build=BUILD, bucket="?", hybrid=False,
            records=1, steps=99.0, weight=1e9, step_weight=99.0, updated=clock.now,
        ))  # fmt: skip
    tuner.close()
    again = make_tuner(tmp_path, clock)
    drive(again, RecordedBench(nothing_matters))
    numbers = [t["number"] for t in trials(again, KEY)["trials"]]
    assert 2 not in numbers and len(numbers) == len(set(numbers)) > 5
    assert "unreadable" in caplog.text
    again.close()


def test_a_failing_database_leaves_memory_no_wiser_than_the_disk(
    tuner: Tuner, monkeypatch: pytest.MonkeyPatch
) -> None:
    tuner.ingest(message())
    task = tuner.next_task(WORKER)
    assert task is not None

    def broken(*_args: object) -> None:
        raise sa.exc.OperationalError("disk", {}, Exception("full"))

    with monkeypatch.context() as patch:
        patch.setattr("tuner.search.campaign.save_trial", broken)
        with pytest.raises(sa.exc.OperationalError):
            tuner.report(Report(task=task.id, worker=WORKER.id, outcome="failed", reason="x"))
    again = tuner.next_task(WORKER)
    assert again is not None and again.number == task.number
    assert math.isclose(overview(tuner)["totals"]["pruned"], 0)
