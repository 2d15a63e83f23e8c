"""A bucket that fails waits longer and longer; nothing of it costs the other buckets."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy as sa
from tuner_support import (
    BUCKET,
    KEY,
    WORKER,
    Clock,
    RecordedBench,
    kinds,
    message,
    nothing_matters,
    overview,
    record,
)

from tuner.core import Tuner
from tuner.measure.worker import measure
from tuner.messages import Report, StudyKey, Task
from tuner.store import schema
from tuner.store.rows import load_trials
from tuner.traffic.parking import LONGEST_SECONDS

LIGHT = "d1@64"


def failed(tuner: Tuner, task: Task) -> None:
    tuner.report(Report(task=task.id, worker="w0", outcome="failed", reason="out of memory"))


def never_reported(tuner: Tuner, task: Task) -> None:
    tuner.clock.now += tuner.settings.lease_seconds + 1  # type: ignore[attr-defined]


def killed(tuner: Tuner, task: Task) -> None:
    tuner.release("w0")


def serve(
    tuner: Tuner, clock: Clock, bad: Callable[[Tuner, Task], None], *, seconds: float
) -> Counter[str]:
    """Work for a while; the heavy bucket ends as `bad` has it. Returns tasks given, by bucket."""
    bench = RecordedBench(nothing_matters)
    given: Counter[str] = Counter()
    end = clock.now + seconds
    while clock.now < end:
        task = tuner.next_task(WORKER)
        clock.now += 1.0
        if task is None:
            continue
        given[task.bucket] += 1
        if task.bucket == BUCKET:
            bad(tuner, task)
        else:
            tuner.report(measure(task, WORKER.id, bench))
    return given


def offer_two_buckets(tuner: Tuner) -> None:
    light = [record(i, lengths=([1], [56 + i]), attention_us=100.0) for i in range(24)]
    tuner.ingest(message(records=[record(i) for i in range(24)] + light))


@pytest.mark.parametrize("bad", [failed, never_reported, killed])
def test_a_bucket_whose_measurements_fail_waits_and_the_others_are_served(
    tuner: Tuner, clock: Clock, bad: Callable[[Tuner, Task], None]
) -> None:
    offer_two_buckets(tuner)
    given = serve(tuner, clock, bad, seconds=1500)
    assert 4 <= given[BUCKET] <= 12
    assert given[LIGHT] >= tuner.settings.trials
    assert "park" in kinds(tuner)
    rows = {row["bucket"]: row["status"] for row in overview(tuner)["buckets"]}
    assert rows[BUCKET] == "parked" and rows[LIGHT] in ("tuning", "default is best")


def test_a_parked_bucket_is_tried_ever_more_rarely_and_one_success_ends_that(
    tuner: Tuner, clock: Clock
) -> None:
    def failures_in(seconds: float) -> int:
        end, count = clock.now + seconds, 0
        while clock.now < end:
            if tuner.search.parking.is_parked(KEY, clock.now):
                clock.now += 1.0
            else:
                tuner.search.parking.failed(KEY, "failed", "out of memory", clock.now)
                count += 1
        return count

    hours = [failures_in(LONGEST_SECONDS) for _ in range(6)]
    assert 8 < hours[0] < 16 and hours[-1] == 1
    assert kinds(tuner) == ["park"] * (sum(hours) - 3)
    assert overview(tuner)["totals"]["alerts"] == 1
    clock.now += LONGEST_SECONDS
    tuner.search.parking.worked(KEY)
    tuner.search.parking.failed(KEY, "failed", "by chance", clock.now)
    assert not tuner.search.parking.is_parked(KEY, clock.now)


HANGING = """
import time
from tuner_support import KEY, RecordedBench, WORKER, make_tuner, message
from tuner.measure.worker import run_loop
import pathlib, sys

class Hanging(RecordedBench):
    def pairs(self, *args, **kwargs):
        time.sleep(60)

tuner = make_tuner(pathlib.Path(sys.argv[1]))
tuner.ingest(message())
run_loop(tuner, WORKER, Hanging(lambda config: 1.0), stop=lambda: False, limit_seconds=0.1)
"""


def test_a_worker_whose_task_hangs_ends_itself(tmp_path: Path) -> None:
    path = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    done = subprocess.run(
        [sys.executable, "-c", HANGING, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 1 and "Timeout" in done.stderr and "in pairs" in done.stderr


def test_a_bucket_with_rows_that_nobody_can_read_costs_itself_only(
    tuner: Tuner, clock: Clock
) -> None:
    offer_two_buckets(tuner)
    with tuner.store.begin() as tx:
        tx.execute(
            sa.update(schema.bucket_samples)
            .where(schema.bucket_samples.c.bucket == BUCKET)
            .values(q_lens='"text"', layers=sa.literal("many", sa.Text))
        )
    given = serve(tuner, clock, failed, seconds=300)
    assert given[LIGHT] >= tuner.settings.trials and not given[BUCKET]


def test_a_bucket_that_meets_a_bug_of_ours_costs_itself_only(
    tuner: Tuner, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tuner.search import board

    offer_two_buckets(tuner)

    def load(tx: sa.Connection, key: StudyKey) -> object:
        return 1 / 0 if key == KEY else load_trials(tx, key)

    monkeypatch.setattr(board, "load_trials", load)
    given = serve(tuner, clock, failed, seconds=300)
    assert given[LIGHT] >= tuner.settings.trials and not given[BUCKET]
    assert "park" in kinds(tuner)
