"""A promoted config that gains less than it did: seen soon, hardly ever by mistake."""

from __future__ import annotations

import itertools
import statistics

import numpy as np
import pytest
from tuner_support import BUCKET, KEY, SCOPE, RecordedBench, drive, message, overview, split_matters

from benchmarks.regret.drift import alarms, delay
from pod_integrate.terms.keys import Bucket
from pod_integrate.terms.table import ConfigTable
from tuner.core import Tuner
from tuner.messages import Pair, RecheckPairs
from tuner.search import drift
from tuner.search.drift import TOLERANCE, Falling
from tuner.search.gains import aged, watched


def first_alarm(below: float, length: int, rng: np.random.Generator) -> int:
    """Steps until the first alarm where each one is below the floor with this probability."""
    watch, floor = Falling(1.2), 1.2 * (1 - TOLERANCE)
    for number in itertools.count(1):
        if watch.add([floor - 0.1 if rng.random() < below else floor + 0.1]) or number >= length:
            return number
    raise AssertionError


def test_false_alarms_are_as_rare_as_said_at_the_edge_of_what_counts_as_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(drift, "RUN_LENGTH", 100)
    rng = np.random.default_rng(0)
    # Cut at eight times the length, the mean is less than it would be.
    found = [first_alarm(0.5, 800, rng) for _ in range(200)]
    assert statistics.fmean(found) >= 100
    assert statistics.median(first_alarm(0.9, 800, rng) for _ in range(50)) < 20


def test_a_gain_that_stays_raises_no_alarm_and_one_that_falls_does_within_a_hundred_steps() -> None:
    rng = np.random.default_rng(1)
    steps = 1.2 * np.exp(rng.normal(0, 0.03, 5000))
    assert alarms(steps, 1.2) == 0
    fallen = np.concatenate([steps[:1000], 0.93 * steps[1000:]])
    assert 8 <= delay(fallen, 1.2, 1000) <= 100
    # A small change is none, and more is no fall.
    assert alarms(0.99 * steps, 1.2) == alarms(1.1 * steps, 1.2) == 0


def test_what_lies_on_the_floor_says_nothing() -> None:
    watch = Falling(1.0)
    assert not watch.add([watch.floor] * 5000)


def test_a_watch_begins_anew_after_an_alarm() -> None:
    watch = Falling(1.0)
    assert watch.add([0.5] * 24) and not watch.add([0.5] * 10) and watch.add([0.5] * 20)


def test_a_promoted_config_that_gains_less_opens_the_search_and_stays(tuner: Tuner) -> None:
    tuner.ingest(message())
    drive(tuner, RecordedBench(split_matters))
    table = ConfigTable.from_json(tuner.table(SCOPE) or b"")
    trial = table.entries[Bucket.parse(BUCKET)].evidence.trial

    def recheck(speedup: float, first: int) -> str:
        pairs = [Pair(1000.0 * speedup, 1000.0, f"{first + i:08x}") for i in range(24)]
        return tuner.recheck(RecheckPairs(**KEY._asdict(), trial=trial, pairs=pairs))

    def reasons() -> list[str]:
        return [each["reason"] for each in overview(tuner)["decisions"] if "fell" in each["reason"]]

    asked = len(tuner.search.campaigns[KEY].trials)
    assert all(recheck(2.0, 1000 * i) == "kept" for i in range(3)) and not reasons()
    drive(tuner, RecordedBench(split_matters))
    assert len(tuner.search.campaigns[KEY].trials) == asked
    assert all(recheck(1.5, 100_000 * i) == "kept" for i in range(1, 3))
    assert len(reasons()) == 1 and "to 1.500" in reasons()[0]
    # A restart goes on with what was accepted: the same fall opens the search once.
    state = tuner.search.campaigns[KEY]._state
    assert state.promoted is not None and state._watch is not None
    again = watched(state.promoted)
    assert again.confirmed == state._watch.confirmed == 1.5
    assert again._sums == pytest.approx(state._watch._sums)
    assert ConfigTable.from_json(tuner.table(SCOPE) or b"").entries
    drive(tuner, RecordedBench(split_matters))
    assert len(tuner.search.campaigns[KEY].trials) > asked


def test_a_search_that_is_opened_again_tries_the_oldest_of_the_best_once_more(
    tuner: Tuner,
) -> None:
    tuner.ingest(message())
    drive(tuner, RecordedBench(split_matters))
    campaign = tuner.search.campaigns[KEY]
    before = list(campaign.trials.values())
    state = campaign._state
    chosen = aged(before, state.settings.revisit_trials)
    done = [t for t in before if t.state == "complete" and t.origin != "default"]
    assert len(chosen) == state.settings.revisit_trials // 4
    assert state.promoted is not None and state.promoted.config not in chosen
    # A barred one is not tried again, however good it was.
    state.study.shun(chosen[:1])
    state._extend()
    drive(tuner, RecordedBench(split_matters))
    again = [t for t in campaign.trials.values() if t.origin == "again"]
    assert [t.config for t in again] == chosen[1:] and len(done) > len(chosen)
