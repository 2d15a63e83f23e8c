"""Servers as a source of evidence: leases, verdicts, restarts, and whatever breaks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from live_support import LiveServer, ask, entry_of, given, live_tuner, report, split_gains
from tuner_support import (
    BUCKET,
    DEFAULT,
    KEY,
    WORKER,
    Clock,
    RecordedBench,
    bucket,
    drive,
    message,
    overview,
    record,
    split_matters,
    trials,
)

from pod_integrate.terms.experiment import Pair, SeenBucket
from pod_integrate.terms.table import MIN_STEPS
from tuner.core import Tuner
from tuner.messages import Noted
from tuner.phases import SCREEN, Duel, Recheck


@pytest.fixture
def tuner(tmp_path: Path, clock: Clock) -> Iterator[Tuner]:
    made = live_tuner(tmp_path, clock)
    yield made
    made.close()


def test_a_gain_on_live_steps_is_promoted_with_live_evidence(tuner: Tuner) -> None:
    server = LiveServer(tuner, split_gains)
    server.work()
    entry = entry_of(tuner)
    assert entry is not None and split_gains(entry.config) > 0
    assert entry.evidence.method == "live" and entry.evidence.steps >= MIN_STEPS
    assert entry.evidence.pairs == entry.evidence.steps
    assert bucket(tuner)["method"] == "live" and bucket(tuner)["status"] == "promoted"


def test_a_worker_and_a_server_never_have_the_same_candidate(tuner: Tuner) -> None:
    task = tuner.next_task(WORKER)
    experiment = given(tuner)
    other = given(tuner, "live-2")
    again = tuner.next_task(WORKER)
    assert task is not None and again is not None
    numbers = [task.number, experiment.number, other.number, again.number]
    assert sorted(set(numbers)) == sorted(numbers)
    # The same server asks for another bucket: it has an experiment in this one.
    assert tuner.next_experiment(ask()) is None


def test_work_of_a_worker_and_of_a_server_together_is_mixed_evidence(
    tmp_path: Path, clock: Clock
) -> None:
    # So much confidence takes more than the steps of one task.
    tuner = live_tuner(tmp_path, clock, confidence=0.999)
    while KEY not in tuner.search.campaigns or not any(
        Duel(1) in trial.pairs for trial in tuner.search.campaigns[KEY].trials.values()
    ):
        assert drive(tuner, RecordedBench(split_matters), tasks=1)
    LiveServer(tuner, split_gains).work()
    entry = entry_of(tuner)
    assert entry is not None and entry.evidence.method == "mixed"
    tuner.close()


def test_a_tuner_that_restarts_takes_what_a_server_measured_meanwhile(
    tmp_path: Path, clock: Clock
) -> None:
    url = f"sqlite:///{tmp_path / 'x.db'}"
    first = live_tuner(tmp_path, clock, database_url=url)
    server = LiveServer(first, split_gains)
    experiment = given(first)
    told = report(experiment, server.pairs(experiment, experiment.steps))
    first.close()
    second = live_tuner(tmp_path, clock, database_url=url)
    # Nobody else is given it meanwhile.
    assert second.search.board.experiments.busy(KEY) == {experiment.number}
    assert second.report_experiment(told) == Noted(True, True)
    assert second.report_experiment(told) == Noted(False, True)
    (trial,) = trials(second, KEY)["trials"]
    assert trial["state"] == "complete" and trial["pairs"] == experiment.steps
    second.close()


def test_partial_reports_add_up_prolong_and_are_counted_once(tuner: Tuner, clock: Clock) -> None:
    server, experiment = LiveServer(tuner, split_gains), given(tuner)
    assert experiment.steps == tuner.settings.screen_steps == 4
    pairs = server.pairs(experiment, 4)
    for _ in range(2):
        clock.now += experiment.seconds - 1
        told = report(experiment, pairs[:2], done=False)
        assert tuner.report_experiment(told) == Noted(True, False)
    clock.now += experiment.seconds - 1
    last = report(experiment, pairs[1:], done=False)
    assert tuner.report_experiment(last) == Noted(True, True)
    assert trials(tuner, KEY)["trials"][0]["steps"] == 4
    assert overview(tuner)["totals"]["pairs"] == 4


def test_steps_that_screened_a_candidate_do_not_confirm_it(tuner: Tuner) -> None:
    server = LiveServer(tuner, split_gains)
    while not (experiment := given(tuner)).phase.startswith("confirm"):
        server.run(experiment)
    trial = tuner.search.campaigns[KEY].trials[experiment.number]
    used = [Pair(200.0, 100.0, pair.batch) for pair in trial.pairs[SCREEN]]
    assert tuner.report_experiment(report(experiment, used)) == Noted(True, True)
    assert Duel(1) not in trial.pairs


def test_a_report_of_somebody_else_is_not_taken(tuner: Tuner) -> None:
    experiment = given(tuner)
    pairs = [Pair(1.0, 1.0, f"{i:08x}") for i in range(4)]
    assert not tuner.report_experiment(report(experiment, pairs, server="other")).taken
    assert tuner.report_experiment(report(experiment, pairs)).taken


def test_only_buckets_with_traced_traffic_are_worth_an_experiment(tuner: Tuner) -> None:
    unknown = [SeenBucket(bucket="d8@2k", steps=1000, attention_us=1e9)]
    assert tuner.next_experiment(ask(buckets=unknown)) is None
    assert tuner.next_experiment(ask(geometry="q4kv4d64-fp32-kvfp32-s1-w-1-c0")) is None
    assert not tuner.search.campaigns


def test_the_bucket_with_most_to_gain_comes_first(tuner: Tuner) -> None:
    light = [record(i, lengths=([1, 1], [64, 64 + i])) for i in range(60)]
    tuner.ingest(message(1, records=light))
    seen = [
        SeenBucket(bucket=BUCKET, steps=9, attention_us=1e5),
        SeenBucket(bucket="d2@64", steps=9, attention_us=1e6),
    ]
    assert given(tuner, buckets=seen).bucket == "d2@64"
    assert given(tuner, buckets=seen).bucket == BUCKET


def test_a_promotion_is_watched_at_once(tuner: Tuner) -> None:
    server = LiveServer(tuner, split_gains)
    while entry_of(tuner) is None:
        server.run(given(tuner))
    watch = given(tuner)
    assert watch.phase == str(Recheck(0)) and not watch.verify
    assert watch.baseline == DEFAULT.to_dict()
    # Passed: the search goes on.
    server.run(watch)
    experiment = tuner.next_experiment(ask())
    assert experiment is None or not experiment.phase.startswith("recheck")
