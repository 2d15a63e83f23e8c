"""No number without a bound: every ratio of every document has one, and its times are a pair's;
what is shown says of how many."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from tuner_support import (
    KEY,
    WORKER,
    RecordedBench,
    bucket,
    drive,
    message,
    overview,
    record,
    split_matters,
    trials,
)

from tuner.core import Tuner
from tuner.http.metrics import HttpMetrics, render
from tuner.messages import Pair, Report, StepLengths
from tuner.view import overview as view
from tuner.view.shown import span, typical


class Spread(RecordedBench):
    """The same gains, on steps of which one takes a thousand times as long as another."""

    def pairs(
        self, baseline: Any, candidate: Any, geometry: Any, lengths: StepLengths, **more: Any
    ) -> list[Pair]:
        factor = 1000.0 if int(lengths.digest, 16) % 3 == 0 else 1.0
        found = super().pairs(baseline, candidate, geometry, lengths, **more)
        return [Pair(p.baseline_us * factor, p.candidate_us * factor, p.batch) for p in found]


def ratios(document: Any) -> Iterator[dict[str, Any]]:
    """Every dict in a document that has a speed-up."""
    if isinstance(document, dict):
        if document.get("speedup") is not None:
            yield document
        for value in document.values():
            yield from ratios(value)
    elif isinstance(document, list):
        for value in document:
            yield from ratios(value)


def assert_all_bounded(tuner: Tuner) -> int:
    found = [*ratios(overview(tuner)), *ratios(trials(tuner, KEY))]
    for row in found:
        spanned = row.get("low") is not None and row["low"] <= row["speedup"] <= row["high"]
        assert row.get("lower_bound") is not None or spanned, row
    return len(found)


def test_bucket_under_search_has_no_speedup_and_no_second_time(tuner: Tuner) -> None:
    tuner.ingest(message())
    seen = []
    for _ in range(6):
        drive(tuner, RecordedBench(split_matters), tasks=1)
        row = bucket(tuner)
        if row["status"] == "promoted":
            break
        seen.append(row)
        assert row["status"] in ("tuning", "waiting")
        names = ("speedup", "lower_bound", "best_us", "best_config", "best_config_short")
        assert [row[name] for name in names] == [None] * 5
        assert row["expected_saving_share"] is row["least_saving_share"] is None
        assert_all_bounded(tuner)
    assert len(seen) > 2 and seen[-1]["pairs"] > 0 and seen[-1]["default_us"] > 0


def test_every_ratio_has_a_bound_and_every_two_times_their_ratio(tuner: Tuner) -> None:
    tuner.ingest(message())
    drive(tuner, Spread(split_matters, noise=0.05))
    assert assert_all_bounded(tuner) > 10
    row = bucket(tuner)
    assert row["status"] == "promoted" and row["lower_bound"] <= row["speedup"]
    for shown in (row, *ratios(trials(tuner, KEY))):
        tuned = shown["best_us"] if "best_us" in shown else shown["median_us"]
        assert shown["default_us"] / tuned == pytest.approx(shown["speedup"], rel=0.02)
    assert 0 < row["least_saving_share"] <= row["expected_saving_share"]


def test_metrics_have_a_bound_for_every_speedup(tuner: Tuner) -> None:
    tuner.ingest(message())

    def series(name: str) -> set[frozenset[tuple[str, str]]]:
        text = render(view.overview(tuner), HttpMetrics()).decode()
        return {
            frozenset(sample.labels.items())
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name == f"pod_tuner_bucket_{name}"
        }

    drive(tuner, RecordedBench(split_matters), tasks=4)
    assert series("speedup") == set()
    drive(tuner, RecordedBench(split_matters))
    pairs = ("speedup", "lower_bound"), ("expected_saving_share", "least_saving_share")
    for ratio, bound in pairs:
        assert series(ratio) == series(bound) != set()


def test_history_promises_no_more_than_the_lower_bound(tuner: Tuner) -> None:
    tuner.ingest(message())
    drive(tuner, RecordedBench(split_matters))
    tuner.housekeeping()
    point, row = overview(tuner)["history"][-1], bucket(tuner)
    ratio = point["attention_us_default"] / point["attention_us_tuned"]
    assert ratio == pytest.approx(row["lower_bound"])


def test_pruned_trial_is_decided_without_a_number_that_nothing_holds(tuner: Tuner) -> None:
    tuner.ingest(message())
    for _ in range(40):
        task = tuner.next_task(WORKER)
        if task is None:
            break
        slow = task.candidate != task.baseline
        pairs = [
            Pair(1000.0, 1500.0 if slow else 1000.0, lengths.digest)
            for lengths in task.batches
            for _ in range(task.step_pairs)
        ]
        tuner.report(Report(task=task.id, worker=WORKER.id, outcome="measured", pairs=pairs))
    pruned = [row for row in overview(tuner)["decisions"] if row["kind"] == "prune"]
    assert pruned and all(row["speedup"] is None for row in pruned)


def test_typical_pair_is_the_one_nearest_to_the_ratio_in_either_direction() -> None:
    pairs = [Pair(610.0, 10.0, "a"), Pair(1260.0, 1000.0, "b"), Pair(202_388.0, 202_000.0, "c")]
    assert typical(pairs, 1.25) == pairs[1]
    assert typical(pairs, None) is None and typical([], 1.2) is None


def test_span_needs_two_steps() -> None:
    assert span([]) is span([1.2]) is None
    assert span([1.2, 0.9, 1.0]) == (0.9, 1.2)


def test_an_overview_of_the_heaviest_buckets_says_of_how_many(
    tuner: Tuner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(view, "MAX_BUCKETS", 2)
    for number, keys in enumerate([300, 3000, 30000]):
        tuner.ingest(message(number, records=[record(i, lengths=([1], [keys])) for i in range(3)]))
        shown = overview(tuner)
        assert shown["bucket_count"] == number + 1
        assert len(shown["buckets"]) == min(number + 1, 2)
