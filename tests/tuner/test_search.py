"""The core's decisions over steps that really differ: made-up landscapes, no kernel, no clock."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tuner_support import (
    BUCKET,
    KEY,
    SCOPE,
    STEP,
    WORKER,
    Clock,
    RecordedBench,
    SteppedBench,
    bucket,
    drive,
    kinds,
    make_tuner,
    message,
    overview,
    record,
    split_matters,
)

from pod_integrate.terms.config import PodConfig
from pod_integrate.terms.keys import Bucket
from pod_integrate.terms.table import MIN_STEPS, ConfigTable, TableEntry
from tuner.core import Tuner
from tuner.messages import Pair, Report
from tuner.phases import SCREEN, Duel, Phase, Recheck


@contextmanager
def tuned(bench: SteppedBench, **settings: Any) -> Iterator[Tuner]:
    """A tuner after its search of one bucket, 64 distinct steps of it traced."""
    tuner = make_tuner(Path(), database_url="sqlite://", seed=bench.seed, **settings)
    tuner.ingest(message())
    drive(tuner, bench)
    yield tuner
    tuner.close()


def entry_of(tuner: Tuner) -> TableEntry | None:
    body = tuner.table(SCOPE)
    return ConfigTable.from_json(body).entries.get(Bucket.parse(BUCKET)) if body else None


def steps_by_phase(tuner: Tuner) -> dict[tuple[int, Phase], set[str]]:
    """Digests of the steps that each phase of each trial was measured on."""
    (campaign,) = tuner.search.campaigns.values()
    return {
        (trial.number, phase): {pair.batch for pair in pairs}
        for trial in campaign.trials.values()
        for phase, pairs in trial.pairs.items()
    }


def no_gain(_config: PodConfig) -> float:
    return 0.0


@pytest.mark.parametrize("sd", [0.01, 0.025, 0.05])
def test_configs_that_gain_on_some_steps_and_lose_on_others_are_not_promoted(sd: float) -> None:
    promoted = 0
    for seed in range(8):
        with tuned(SteppedBench(no_gain, sd=sd, seed=seed), trials=8) as tuner:
            promoted += "promote" in kinds(tuner)
    # Counting pairs promotes in 10, 82 and 98 of 100.
    assert promoted <= 1


def test_a_real_gain_is_found_among_steps_that_differ() -> None:
    def gain(config: PodConfig) -> float:
        return 0.08 if split_matters(config) < 1000 else 0.0

    found = 0
    for seed in range(4):
        with tuned(SteppedBench(gain, sd=0.025, seed=seed)) as tuner:
            entry = entry_of(tuner)
            found += entry is not None and gain(entry.config) > 0
    assert found == 4


def test_a_promotion_states_its_distinct_steps_none_of_which_chose_it(tuner: Tuner) -> None:
    tuner.ingest(message())
    drive(tuner, SteppedBench(lambda c: 0.1 * (split_matters(c) < 1000), sd=0.02, seed=1))
    entry = entry_of(tuner)
    assert entry is not None
    number, steps = entry.evidence.trial, steps_by_phase(tuner)
    (campaign,) = tuner.search.campaigns.values()
    confirmed = steps[number, Duel(campaign.trials[number].confirmation)]
    assert entry.evidence.steps == len(confirmed) >= MIN_STEPS
    assert not confirmed & steps[number, SCREEN]
    assert bucket(tuner)["proven_steps"] == entry.evidence.steps
    decision = next(d for d in overview(tuner)["decisions"] if d["kind"] == "promote")
    assert decision["steps"] == entry.evidence.steps


def test_candidates_of_one_group_are_screened_on_the_same_steps(tuner: Tuner) -> None:
    tuner.ingest(message())
    drive(tuner, SteppedBench(no_gain, sd=0.0, seed=1), tasks=8)
    screened = [steps for (_, phase), steps in steps_by_phase(tuner).items() if phase == SCREEN]
    assert len(screened) == 8 and all(steps == screened[0] for steps in screened)
    assert len(screened[0]) == tuner.settings.screen_steps


@pytest.mark.parametrize(("distinct", "works"), [(11, False), (12, True)])
def test_a_bucket_with_too_few_distinct_steps_is_not_tuned(
    tuner: Tuner, distinct: int, works: bool
) -> None:
    tuner.ingest(message(records=[record(i) for i in range(distinct)] * 5))
    assert (tuner.next_task(WORKER) is not None) == works


def test_a_duel_that_has_used_all_steps_waits_for_new_ones(tmp_path: Path, clock: Clock) -> None:
    # Eight steps besides those of the screening, while so much confidence takes more.
    tuner = make_tuner(tmp_path, clock, confidence=0.999)
    bench = SteppedBench(lambda c: 0.1 * (split_matters(c) < 1000), sd=0.0, seed=1)
    tuner.ingest(message(records=[record(i) for i in range(12)]))
    drive(tuner, bench)
    assert entry_of(tuner) is None
    tuner.ingest(message(1, records=[record(i) for i in range(30, 60)]))
    clock.now += 60
    drive(tuner, bench)
    entry = entry_of(tuner)
    assert entry is not None and entry.evidence.steps > MIN_STEPS
    tuner.close()


def test_pairs_of_steps_that_were_not_asked_for_prove_nothing(tuner: Tuner) -> None:
    tuner.ingest(message())
    task = tuner.next_task(WORKER)
    assert task is not None
    made_up = [Pair(9000.0, 1000.0, f"{i:08x}") for i in range(50)]
    asked = Pair(1000.0, 1000.0, task.batches[0].digest)
    tuner.report(
        Report(task=task.id, worker=WORKER.id, outcome="measured", pairs=[*made_up, asked])
    )
    assert overview(tuner)["totals"]["pairs"] == 1


def test_steps_are_drawn_in_proportion_to_their_time(tuner: Tuner) -> None:
    heavy = [record(i, attention_us=9000.0) for i in range(0, 64, 2)]
    light = [record(i, attention_us=1000.0) for i in range(1, 64, 2)]
    tuner.ingest(message(records=heavy + light))
    drive(tuner, SteppedBench(no_gain, sd=0.0, seed=1), tasks=60)
    by_group = [steps for (_, phase), steps in steps_by_phase(tuner).items() if phase == SCREEN]
    with tuner.store.read() as tx:
        pool = tuner.traffic.pool(tx, KEY, tuner.clock())
    even = {sample.lengths.digest for sample in pool if sample.attention_us > 5000}
    drawn = [digest for steps in by_group for digest in steps]
    assert sum(digest in even for digest in drawn) >= 0.7 * len(drawn)


def recheck_after(tuner: Tuner, clock: Clock, seconds: float) -> bool:
    clock.now += seconds
    task = tuner.next_task(WORKER)
    return task is not None and task.phase.startswith("recheck")


def test_a_promotion_is_checked_again_soon_and_then_less_and_less_often(
    tuner: Tuner, clock: Clock
) -> None:
    bench = SteppedBench(lambda c: 0.1 * (split_matters(c) < 1000), sd=0.0, seed=1)
    tuner.ingest(message())
    drive(tuner, bench)
    first = tuner.settings.recheck_seconds / 16
    assert not recheck_after(tuner, clock, first - 1)
    assert recheck_after(tuner, clock, 2)
    clock.now += tuner.settings.lease_seconds + 1
    drive(tuner, bench)
    assert not recheck_after(tuner, clock, first + 1)
    assert recheck_after(tuner, clock, first)


def test_a_recheck_is_on_steps_that_neither_chose_nor_confirmed(tuner: Tuner, clock: Clock) -> None:
    bench = SteppedBench(lambda c: 0.1 * (split_matters(c) < 1000), sd=0.0, seed=1)
    tuner.ingest(message())
    drive(tuner, bench)
    clock.now += tuner.settings.recheck_seconds
    drive(tuner, bench)
    steps = steps_by_phase(tuner)
    ((number, phase),) = [key for key in steps if isinstance(key[1], Recheck)]
    others = [taken for (n, p), taken in steps.items() if n == number and p != phase]
    assert len(steps[number, phase]) >= MIN_STEPS
    assert not steps[number, phase] & set().union(*others)


@pytest.mark.parametrize("gain", [-0.03, -0.01])
def test_what_fresh_steps_refute_is_rolled_back(tuner: Tuner, clock: Clock, gain: float) -> None:
    """A promotion by luck: on the steps that follow it is slower, by more or by less."""
    tuner.ingest(message())
    drive(tuner, RecordedBench(split_matters))
    assert entry_of(tuner) is not None
    clock.now += tuner.settings.recheck_seconds
    unlucky: Callable[[PodConfig], float] = lambda c: gain * (split_matters(c) < 1000)  # noqa: E731
    drive(tuner, SteppedBench(unlucky, sd=0.01, seed=3), tasks=8)
    assert entry_of(tuner) is None and "rollback" in kinds(tuner)


def test_a_due_recheck_goes_before_the_search_of_a_heavier_bucket(
    tuner: Tuner, clock: Clock
) -> None:
    bench = SteppedBench(lambda c: 0.1 * (split_matters(c) < 1000), sd=0.0, seed=1)
    tuner.ingest(message())
    drive(tuner, bench)
    heavy = [record(i, lengths=(STEP[0], [500 + i] * 5), attention_us=9e4) for i in range(50)]
    tuner.ingest(message(1, records=heavy))
    task = tuner.next_task(WORKER)
    assert task is not None and task.bucket != BUCKET
    clock.now += tuner.settings.recheck_seconds
    task = tuner.next_task(WORKER)
    assert task is not None and (task.bucket, task.key) == (BUCKET, KEY)
    assert task.phase.startswith("recheck")
