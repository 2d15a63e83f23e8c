"""The promotion test: never fooled by peeking, quick to see real gains."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tuner.model import Pair
from tuner.promote import (
    Verdict,
    bounds,
    judge,
    log_evidence,
    screened_out,
    spent_alpha,
)


def duel(rng: np.random.Generator, gain: float, *, noise: float, alpha: float) -> Verdict:
    """Look after every pair, stop at the first decision."""
    pairs: list[Pair] = []
    while True:
        noisy = gain * math.exp(noise * rng.standard_t(3) / 1.7)
        pairs.append(Pair(1000.0 * noisy, 1000.0))
        verdict = judge(pairs, alpha=alpha, min_speedup=1.02, max_pairs=100)
        if verdict.outcome != "open":
            return verdict


def test_peeking_after_every_pair_promotes_no_more_than_alpha_of_equal_configs() -> None:
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
    assert sum(v.outcome == "better" for v in verdicts) >= 54
    assert np.median([v.pairs for v in verdicts]) < 40


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
    pairs = [Pair(1005.0, 1000.0)] * 60
    verdict = judge(pairs, alpha=0.05, min_speedup=1.02, max_pairs=100)
    assert verdict.outcome == "not better"
    assert "below 1.020" in verdict.reason


def test_a_duel_without_decision_ends_and_keeps_the_default() -> None:
    pairs = [Pair(1500.0, 1000.0), Pair(1000.0, 1500.0)] * 50
    assert judge(pairs, alpha=0.05, min_speedup=1.02, max_pairs=100).outcome == "not better"


def test_a_recheck_needs_proof_of_harm_to_fail() -> None:
    worse, same = [Pair(900.0, 1000.0)] * 20, [Pair(1100.0, 1000.0), Pair(1000.0, 1100.0)] * 30
    assert (
        judge(worse, alpha=0.05, min_speedup=1.0, max_pairs=60, harm=True).outcome == "not better"
    )
    assert judge(same, alpha=0.05, min_speedup=1.0, max_pairs=60, harm=True).outcome == "better"


def test_screening_stops_early_only_for_clear_losers() -> None:
    assert screened_out([Pair(900.0, 1000.0)] * 3)
    assert not screened_out([Pair(900.0, 1000.0)] * 2)
    assert not screened_out([Pair(990.0, 1000.0)] * 6)
    assert not screened_out([Pair(900.0, 1000.0)] * 5 + [Pair(1001.0, 1000.0)])
