"""The promotion test: never fooled by peeking, quick to see real gains."""

from __future__ import annotations

import math

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pod_integrate.terms.table import MIN_STEPS
from tuner.messages import LivePair, Pair
from tuner.search.judge import (
    Verdict,
    bounds,
    gained,
    judge,
    log_evidence,
    screened_out,
    spent_alpha,
    step_speedups,
)


def steps(*speedups: float) -> list[Pair]:
    """One pair on each of as many distinct steps."""
    return [Pair(1000.0 * speedup, 1000.0, f"{i}") for i, speedup in enumerate(speedups)]


def duel(rng: np.random.Generator, gain: float, *, noise: float, alpha: float) -> Verdict:
    """Look after every step, stop at the first decision."""
    speedups: list[float] = []
    while True:
        speedups.append(gain * math.exp(noise * rng.standard_t(3) / 1.7))
        verdict = judge(steps(*speedups), alpha=alpha, min_speedup=1.02, max_steps=40)
        if verdict.outcome != "open":
            return verdict


def test_peeking_after_every_step_promotes_no_more_than_alpha_of_equal_configs() -> None:
    rng = np.random.default_rng(3)
    verdicts = [duel(rng, 1.0, noise=0.05, alpha=0.05) for _ in range(200)]
    # 200 * 0.05 = 10 expected at most; a wrong test (repeated Wilcoxon) gives about 54.
    assert sum(v.outcome == "better" for v in verdicts) <= 15


def test_a_regression_is_never_promoted() -> None:
    rng = np.random.default_rng(4)
    verdicts = [duel(rng, 0.97, noise=0.05, alpha=0.05) for _ in range(100)]
    assert all(v.outcome == "not better" for v in verdicts)


def test_five_percent_is_found_in_most_duels() -> None:
    rng = np.random.default_rng(5)
    verdicts = [duel(rng, 1.05, noise=0.05, alpha=spent_alpha(0.05, 1)) for _ in range(60)]
    assert sum(v.outcome == "better" for v in verdicts) >= 48
    assert np.median([v.proof.steps for v in verdicts]) < 20


def test_the_lower_bound_holds_at_every_sample_size_at_once() -> None:
    rng = np.random.default_rng(6)
    broken = 0
    for _ in range(100):
        speedups = np.exp(0.05 * rng.standard_normal(80)).tolist()
        lowers = [bounds(speedups[:n], 0.1)[0] for n in range(1, 81)]
        broken += any(lower is not None and lower > 1.0 for lower in lowers)
    assert broken <= 18


@given(st.integers(0, 60), st.integers(0, 60))
def test_evidence_grows_with_wins_and_shrinks_with_losses(wins: int, losses: int) -> None:
    here = log_evidence(wins, losses)
    assert log_evidence(wins + 1, losses) > here or here == -math.inf
    assert log_evidence(wins, losses + 1) < here or here == -math.inf


@given(st.integers(1, 40))
def test_evidence_is_a_martingale_under_the_null(count: int) -> None:
    total = sum(
        math.comb(count, wins) * 0.5**count * math.exp(log_evidence(wins, count - wins))
        for wins in range(count + 1)
    )
    assert total == pytest.approx(1.0, rel=1e-6)


@settings(max_examples=60)
@given(st.lists(st.floats(0.2, 5.0), min_size=1, max_size=60), st.sampled_from([0.05, 0.01]))
def test_bounds_enclose_the_median(speedups: list[float], alpha: float) -> None:
    lower, upper = bounds(speedups, alpha)
    if lower is None:
        assert upper is None
    else:
        assert upper is not None
        assert lower <= float(np.median(speedups)) <= upper


def test_the_alpha_of_all_candidates_together_stays_below_alpha() -> None:
    assert sum(spent_alpha(0.05, k) for k in range(1, 10_000)) < 0.05


def test_a_sure_gain_below_the_minimum_is_not_promoted() -> None:
    verdict = judge(steps(*[1.005] * 30), alpha=0.05, min_speedup=1.02, max_steps=40)
    assert verdict.outcome == "not better"
    assert "below 1.020" in verdict.reason


def test_a_duel_without_decision_ends_and_keeps_the_default() -> None:
    pairs = steps(*[1.5, 1 / 1.5] * 20)
    assert judge(pairs, alpha=0.05, min_speedup=1.02, max_steps=40).outcome == "not better"


def recheck(*speedups: float) -> str:
    return judge(
        steps(*speedups), alpha=0.05, min_speedup=1.0, max_steps=24, harm=True
    ).outcome  # fmt: skip


def test_a_recheck_ends_early_only_with_proof() -> None:
    assert recheck(*[0.9] * 20) == "not better"
    assert recheck(*[1.1] * 8) == "better"
    assert recheck(*[0.99, 1.01] * 8) == "open"


def test_a_recheck_that_proves_nothing_keeps_only_what_is_no_slower() -> None:
    assert recheck(*[0.98, 1.03] * 12) == "better"
    assert recheck(*[0.97, 1.02] * 12) == "not better"
    # The median gains, all steps together lose.
    assert recheck(*[1.01] * 14, *[0.8] * 10) == "not better"


def test_pairs_of_one_step_are_one_observation_however_many() -> None:
    two = [Pair(1100.0, 1000.0, "a"), Pair(1120.0, 1000.0, "b")] * 100
    verdict = judge(two, alpha=0.05, min_speedup=1.02, max_steps=40)
    assert (verdict.outcome, verdict.proof.pairs, verdict.proof.steps) == ("open", 200, 2)
    assert step_speedups([Pair(3.0, 1.0, "a"), Pair(1.0, 1.0, "a"), Pair(2.0, 1.0, "a")]) == [2.0]


def test_pairs_that_do_not_name_their_step_count_as_nothing() -> None:
    unnamed = [Pair(2000.0, 1000.0)] * 100
    assert judge(unnamed, alpha=0.05, min_speedup=1.02, max_steps=40).proof.steps == 0


@pytest.mark.parametrize("count", range(1, MIN_STEPS))
def test_fewer_than_eight_distinct_steps_promote_nothing(count: int) -> None:
    surest = steps(*[2.0] * count)
    assert judge(surest, alpha=0.4, min_speedup=1.02, max_steps=40).outcome == "open"
    for harm in (False, True):
        ended = judge(surest, alpha=0.4, min_speedup=1.0, max_steps=count, harm=harm)
        assert ended.outcome == "not better"


def test_a_gain_of_most_steps_that_the_others_eat_up_is_not_promoted() -> None:
    mixed = steps(*[1.05] * 32, *[0.6] * 8)
    sure, _ = bounds([pair.speedup for pair in mixed], 0.05)
    assert sure is not None and sure > 1.02
    assert judge(mixed, alpha=0.05, min_speedup=1.02, max_steps=40).outcome == "not better"


def test_screening_stops_early_only_for_clear_losers() -> None:
    assert screened_out(steps(*[0.9] * 3))
    assert not screened_out(steps(*[0.9] * 2))
    assert not screened_out([Pair(900.0, 1000.0, "a")] * 9)
    assert not screened_out(steps(*[0.99] * 6))
    assert not screened_out(steps(*[0.9] * 5, 1.001))


def test_live_steps_gain_by_their_times_and_replayed_ones_alike() -> None:
    fast = [Pair(100.0, 50.0, f"f{i}") for i in range(9)]
    slow = Pair(10_000.0, 20_000.0, "slow")
    assert gained([*fast, slow]) > 1
    live = [LivePair(*msgspec.structs.astuple(pair)) for pair in [*fast, slow]]
    assert gained(live) == pytest.approx(10_900 / 20_450)


@pytest.mark.parametrize(("speedup", "outcome"), [(0.92, "not better"), (0.97, "open")])
def test_a_promotion_that_is_much_slower_goes_after_eight_steps(
    speedup: float, outcome: str
) -> None:
    pairs = [Pair(speedup, 1.0, f"{i}") for i in range(7)] + [Pair(1.1, 1.0, "x")]
    verdict = judge(pairs, alpha=0.05, min_speedup=1.0, max_steps=24, harm=True)
    assert verdict.outcome == outcome and verdict.proof.steps == MIN_STEPS
