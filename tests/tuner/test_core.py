"""The core: from traces to tables with recorded times."""

from __future__ import annotations

import pytest
from tuner_support import (
    BUCKET,
    BUILD,
    DEFAULT,
    DEVICE,
    GEOMETRY,
    KEY,
    SCOPE,
    STEP,
    STEPS,
    WORKER,
    Clock,
    RecordedBench,
    bucket,
    drive,
    kinds,
    message,
    nothing_matters,
    overview,
    record,
    split_matters,
    trials,
)

from pod_integrate.live.registry import ActiveTable
from pod_integrate.terms.config import PodConfig
from pod_integrate.terms.keys import Bucket
from pod_integrate.terms.table import MIN_STEPS, ConfigTable
from tuner.core import Tuner


def test_a_better_config_is_found_and_published_with_evidence(tuner: Tuner) -> None:
    tuner.ingest(message())
    drive(tuner, RecordedBench(split_matters))
    body = tuner.table(SCOPE)
    assert body is not None
    table = ActiveTable(GEOMETRY, DEVICE, BUILD).offer(body)
    entry = table.entries[Bucket.parse(BUCKET)]
    assert split_matters(entry.config) == 500.0
    assert entry.evidence.lower_bound > 1.02
    assert entry.evidence.median_speedup == pytest.approx(2.0, rel=0.1)
    assert entry.evidence.steps >= MIN_STEPS and entry.evidence.build == BUILD
    assert entry.evidence.pairs == tuner.settings.step_pairs * entry.evidence.steps
    assert bucket(tuner)["status"] == "promoted"
    assert bucket(tuner)["expected_saving_share"] == pytest.approx(0.5, abs=0.05)


def test_the_default_is_measured_first_against_itself(tuner: Tuner) -> None:
    tuner.ingest(message())
    task = tuner.next_task(WORKER)
    assert task is not None and task.number == 0
    assert task.baseline == task.candidate == DEFAULT.to_dict()


def test_when_nothing_is_better_the_default_is_best_and_nothing_is_published(
    tuner: Tuner,
) -> None:
    tuner.ingest(message())
    drive(tuner, RecordedBench(nothing_matters))
    assert tuner.table(SCOPE) is None
    row = bucket(tuner)
    assert row["status"] == "default is best" and row["default_us"] > 0
    assert row["best_config"] is None and row["speedup"] is None
    assert kinds(tuner)[-1] == "keep" and "promote" not in kinds(tuner)
    assert tuner.next_task(WORKER) is None


def test_a_resting_bucket_is_opened_again_later(tuner: Tuner, clock: Clock) -> None:
    tuner.ingest(message())
    drive(tuner, RecordedBench(nothing_matters))
    before = bucket(tuner)["trials"]
    clock.now += tuner.settings.revisit_seconds + 1
    drive(tuner, RecordedBench(nothing_matters))
    assert bucket(tuner)["trials"] > before


def test_every_candidate_is_verified_and_a_wrong_one_is_pruned_with_an_alert(
    tuner: Tuner,
) -> None:
    tuner.ingest(message())
    bench = RecordedBench(split_matters, wrong=lambda config: split_matters(config) < 1000)
    drive(tuner, bench)
    found = trials(tuner, KEY)["trials"]
    wrong = [t for t in found if t["reason"].startswith("mismatch")]
    assert wrong and all(t["state"] == "pruned" and t["speedup"] is None for t in wrong)
    assert tuner.table(SCOPE) is None
    assert overview(tuner)["totals"]["alerts"] == len(wrong)
    measured = {t["config_short"] for t in found if t["pairs"]}
    assert measured <= {config.short() for config in bench.verified}


def test_infeasible_configs_are_filed_as_pruned_and_never_measured(tuner: Tuner) -> None:
    wide = GEOMETRY.__class__(
        num_q_heads=8, num_kv_heads=4, head_dim=512, dtype="fp32", kv_dtype="fp32", page_size=1
    )
    tuner.ingest(message(geometry=str(wide)))
    drive(tuner, RecordedBench(nothing_matters))
    found = trials(tuner, KEY._replace(geometry=str(wide)))["trials"]
    refused = [t for t in found if t["reason"].startswith("infeasible")]
    assert refused and all(t["state"] == "pruned" and t["pairs"] == 0 for t in refused)


def test_no_config_is_tried_twice(tuner: Tuner) -> None:
    tuner.ingest(message())
    drive(tuner, RecordedBench(nothing_matters))
    configs = [str(t["config"]) for t in trials(tuner, KEY)["trials"]]
    assert len(configs) == len(set(configs)) >= 12


def test_a_later_candidate_must_beat_the_promoted_one(tuner: Tuner, clock: Clock) -> None:
    tuner.ingest(message())
    drive(tuner, RecordedBench(split_matters))
    first = bucket(tuner)["best_config_short"]
    clock.now += tuner.settings.revisit_seconds + 1
    drive(tuner, RecordedBench(split_matters))
    assert bucket(tuner)["best_config_short"] == first
    assert kinds(tuner).count("promote") == 1


def test_a_promotion_that_turns_bad_is_rolled_back(tuner: Tuner, clock: Clock) -> None:
    tuner.ingest(message())
    drive(tuner, RecordedBench(split_matters))
    version = ConfigTable.from_json(tuner.table(SCOPE) or b"").version
    clock.now += tuner.settings.recheck_seconds + 1
    drive(tuner, RecordedBench(lambda config: 1500.0 - split_matters(config)), tasks=40)
    table = ConfigTable.from_json(tuner.table(SCOPE) or b"")
    assert table.version == version + 1 and not table.entries
    assert "rollback" in kinds(tuner)
    assert overview(tuner)["totals"]["rollbacks"] == 1


def test_a_promotion_that_stays_good_survives_its_recheck(tuner: Tuner, clock: Clock) -> None:
    tuner.ingest(message())
    bench = RecordedBench(split_matters)
    drive(tuner, bench)
    clock.now += tuner.settings.recheck_seconds + 1
    assert drive(tuner, bench) > 0
    assert tuner.next_task(WORKER) is None
    assert bucket(tuner)["status"] == "promoted"


def test_the_bucket_that_costs_most_time_is_tuned_first(tuner: Tuner) -> None:
    light = [record(1 + i, lengths=([1, 1], [64, 64 + i]), attention_us=10.0) for i in range(100)]
    heavy = [record(1 + i, attention_us=4000.0) for i in range(20)]
    tuner.ingest(message(records=light + heavy))
    task = tuner.next_task(WORKER)
    assert task is not None and task.bucket == BUCKET
    shares = [row["time_share"] for row in overview(tuner)["buckets"]]
    assert shares[0] == pytest.approx(80000 / 81000) and sum(shares) == pytest.approx(1.0)


def test_old_traffic_fades(tuner: Tuner, clock: Clock) -> None:
    tuner.ingest(message(0))
    clock.now += 20 * tuner.settings.half_life_seconds
    tuner.ingest(message(1, records=[record(lengths=([1], [64]), attention_us=10.0)] * 4))
    assert overview(tuner)["buckets"][0]["bucket"] == "d1@64"


def test_a_repost_is_counted_once_and_a_restarted_server_is_not_a_repost(tuner: Tuner) -> None:
    assert tuner.ingest(message()) == (STEPS, False)
    assert tuner.ingest(message()) == (0, True)
    assert tuner.ingest(message(records=[record(99)] * 4)) == (4, False)
    assert overview(tuner)["totals"]["records"] == STEPS + 4


def test_unknown_values_are_null_never_a_number(tuner: Tuner) -> None:
    tuner.ingest(message(records=[record(attention_us=0.0, step_us=0.0)] * 3))
    row = bucket(tuner)
    unknown = ("attention_us_median", "default_us", "best_us", "speedup")
    assert {row[name] for name in unknown} == {None}
    # Shares come from the cost model then: it is the only bucket.
    assert row["time_share"] == 1.0
    tuner.housekeeping()
    point = overview(tuner)["history"][-1]
    assert point["attention_us_default"] is None and point["records"] == 3


def test_history_estimates_what_tuning_saves(tuner: Tuner) -> None:
    tuner.ingest(message())
    drive(tuner, RecordedBench(split_matters))
    tuner.housekeeping()
    point = overview(tuner)["history"][-1]
    assert point["attention_us_default"] == pytest.approx(4000.0)
    assert point["attention_us_tuned"] == pytest.approx(2000.0, rel=0.1)


def test_another_bucket_starts_from_what_its_neighbour_promoted(tuner: Tuner) -> None:
    tuner.ingest(message(0))
    drive(tuner, RecordedBench(split_matters))
    near = [
        record(i, lengths=(STEP[0], [500 + i] * 5), attention_us=9000.0) for i in range(50)
    ]  # fmt: skip
    tuner.ingest(message(1, records=near))
    drive(tuner, RecordedBench(split_matters), tasks=4)
    table = ConfigTable.from_json(tuner.table(SCOPE) or b"")
    promoted = next(iter(table.entries.values())).config
    tried = trials(tuner, KEY._replace(bucket="p128@512+d4@512"))["trials"]
    assert PodConfig.from_dict(tried[1]["config"]) == promoted
