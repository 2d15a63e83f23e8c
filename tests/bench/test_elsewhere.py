"""Acting where nothing was proven: when a guess acts, what is counted, and by whom it is judged."""

from __future__ import annotations

import numpy as np
import pytest
from test_regret import recorded

from benchmarks.regret.elsewhere import (
    Guess,
    calibrated,
    judge,
    lessons,
    summary,
    surprise,
    unproven,
)
from pod_integrate.replay.serving import Step


def guess(row: int, mean: float, spread: float) -> Guess:
    """Of one config."""
    return Guess(recorded(), np.array([mean]), np.array([spread]), [row])


def rows() -> tuple[int, int]:
    """Of the fastest config recorded, and of the slowest."""
    truth = recorded().truth
    return int(np.nanargmin(truth)), int(np.nanargmax(truth))


def test_a_guess_acts_only_while_all_of_its_interval_is_faster_than_the_default() -> None:
    found = guess(3, -0.05, 0.03)
    assert [found.chosen(k) for k in (0.0, 1.5, 2.0)] == [3, 3, None]


def test_of_several_the_surest_acts_and_not_the_one_that_looks_best() -> None:
    both = Guess(recorded(), np.array([-0.2, -0.1]), np.array([0.2, 0.01]), [4, 7])
    assert (both.chosen(0.0), both.chosen(1.0)) == (4, 7)


def test_each_step_is_a_look_up_that_wins_or_loses_by_what_was_recorded() -> None:
    best, worst = rows()
    won, lost = judge(guess(best, -0.1, 0.0), 1.0), judge(guess(worst, -0.1, 0.0), 1.0)
    assert won.saved == pytest.approx(1 - recorded().best)
    assert lost.lost == len(recorded().steps) and lost.saved < 0
    assert judge(guess(worst, 0.1, 0.0), 1.0) == (False, 0, 0.0)


def test_confidence_is_the_least_at_which_the_others_lose_little() -> None:
    best, worst = rows()
    assert calibrated([guess(best, -0.1, 0.0)]) == 0.0
    # Sure by one spread only, and wrong: it must not act.
    assert calibrated([guess(worst, -0.04, 0.03)]) == 1.5


def test_what_is_told_of_all_counts_buckets_that_keep_the_default() -> None:
    best, worst = rows()
    guesses = [guess(best, -0.1, 0.0), guess(worst, 0.1, 0.0)]
    told = summary(guesses, [judge(each, 1.0) for each in guesses])
    assert (told["acts_in"], told["lost_lookups_pct"]) == (1, 0.0)
    assert told["saved_pct"] == pytest.approx(100 * (1 - recorded().best) / 2, abs=0.01)


def test_a_bucket_is_taught_by_so_many_configs_of_so_many_others() -> None:
    others = [recorded(), recorded(), recorded()]
    taught = lessons(recorded(), others, (2, 5), 0)
    assert len(taught) == 10 and len({row for _, _, row in taught}) > 5


def test_time_before_a_proof_ends_with_it() -> None:
    one = Step([1], [2048])
    assert unproven([one] * 1000, recorded()) == {"100": 10.0, "550": 55.0}


def test_a_guess_that_is_sure_and_wrong_surprises_more_than_one_that_is_not_sure() -> None:
    best, _ = rows()
    true = float(np.log(recorded().best))
    right, wrong, unsure = (
        surprise(guess(best, mean, spread))
        for mean, spread in ((true, 0.01), (true + 0.1, 0.01), (true + 0.1, 0.1))
    )
    assert right < unsure < wrong
