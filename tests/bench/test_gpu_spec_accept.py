"""Accepted lengths of two engines: their ratio, and what it is worth."""

from __future__ import annotations

import random

import pytest

from benchmarks.gpu.engines.spec_accept import Verified, compared, verified


def answers(*steps: int, tokens: int = 60) -> list[Verified]:
    return verified([[number] * tokens for number in range(len(steps))], steps)


def test_the_ratio_is_of_tokens_per_step_over_all_passes() -> None:
    found = compared([answers(20, 20), answers(20, 20)], [answers(30, 20), answers(20, 20)])
    assert found["accept_length_ratio"] == pytest.approx(90 / 80)
    assert compared([answers(0, 0)], [answers(20, 20)]) == {}


def test_answers_that_are_equal_have_a_ratio_of_their_own() -> None:
    ours, theirs = answers(20, 60, 20), answers(20, 20, 22)
    theirs[1] = Verified([9] * 60, 20)
    found = compared([ours], [theirs])
    assert found["accept_length_ratio_equal"] == pytest.approx(42 / 40)
    assert found["accept_length_equal_answers"] == 2
    assert found["accept_length_ratio"] < 0.7


def test_no_error_is_said_where_nothing_differs() -> None:
    found = compared([answers(20, 25, 30)], [answers(20, 25, 30)])
    assert found["accept_length_error"] == pytest.approx(0.0, abs=1e-12)


def test_engines_of_the_same_kind_differ_by_about_their_error() -> None:
    draw, far = random.Random(0), 0
    for _ in range(200):
        both = [answers(*(draw.randrange(10, 40) for _ in range(32))) for _ in range(2)]
        found = compared(both[:1], both[1:])
        far += abs(found["accept_length_ratio"] - 1.0) > 2.0 * found["accept_length_error"]
    # Two standard errors hold 95 %.
    assert 2 <= far <= 24
