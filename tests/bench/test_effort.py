"""Which bucket gets the next trial, and what that leaves lost."""

from __future__ import annotations

import numpy as np
import pytest
from test_regret import H200, recorded

from benchmarks.gpu.truth.buckets import TRAFFIC
from benchmarks.regret.effort import Way, by_trials, lost, way
from tuner.search.gains import UNKNOWN_GAIN, promised
from tuner.search.study import Study

SPENT = Way([0.0] * 40, [0.0] * 40)
OPEN = Way([0.1] * 20 + [0.0] * 20, [0.05] * 20 + [0.0] * 20)
EVEN = np.array([0.5, 0.5])


def test_trials_go_where_the_surrogate_expects_something() -> None:
    expected, blind = (lost([SPENT, OPEN], EVEN, 30, rule) for rule in (promised, by_trials))
    assert expected.index(0.0) <= 22 and 0.0 not in blind
    assert expected[0] == pytest.approx(0.05)


def test_a_heavier_bucket_is_served_first() -> None:
    found = lost([OPEN, Way([0.1] * 40, OPEN.expects)], np.array([0.9, 0.1]), 21, promised)
    assert found[-1] == pytest.approx(0.1 * 0.1)


def test_a_promise_is_what_is_expected_once_there_is_such_a_thing() -> None:
    assert promised(0.0, None) == UNKNOWN_GAIN > promised(1.0, None) > 0
    assert promised(5.0, 0.1) > promised(0.0, None) > promised(0.0, 0.001) > promised(0.0, 0.0) > 0
    assert promised(0.0, 9.0) == 1.0


def test_a_study_expects_something_once_its_guesses_are_told_and_less_in_the_end() -> None:
    study = Study(
        TRAFFIC[3].geometry, H200, trials=[], neighbours=[], seed=0, bucket=TRAFFIC[3].bucket
    )
    found = []
    for _ in range(60):
        proposal = study.propose()
        assert proposal is not None
        found.append(study.expects)
        if not proposal.infeasible:
            config = proposal.config
            study.tell(config, 0.1 * (config.strategy != "serial") + 0.05 * config.ctas_per_sm)
    known = [each for each in found if each is not None]
    assert found[0] is None and 40 <= len(known) < 60
    assert 0 <= known[-1] < 0.1 * max(known)


def test_what_was_expected_is_kept_for_every_trial() -> None:
    found = way(recorded(), 0, 20)
    assert len(found.expects) == len(found.regrets) == 20 and found.expects[0] is None
