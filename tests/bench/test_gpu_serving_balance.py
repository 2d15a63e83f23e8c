"""Rates of a server that goes on for ever, from stretches made by hand."""

from __future__ import annotations

import random

import pytest

from benchmarks.gpu.engines.serving_balance import MOST_CORRECTED, Load, balanced, measured
from benchmarks.gpu.engines.serving_figures import Timed

# 100 tokens after the first one; the cache is no limit.
LOAD = Load(1000.0, 101.0, 64.0)


def step(kind: str, ms: float, tokens: int = 1000, decodes: int = 10) -> Timed:
    chunks = [] if kind == "decode" else [[tokens, tokens]]
    return Timed(ms * 0.9, ms * 0.1, chunks, 0 if kind == "prefill" else decodes, 50_000)


def test_a_steady_stretch_needs_no_correction() -> None:
    # A prompt, then its 100 tokens in 10 decode steps.
    steps = ([step("prefill", 100.0)] + [step("decode", 10.0)] * 10) * 5
    found = balanced(steps, LOAD)
    assert found["steady"] == pytest.approx(5 * 101 / 1.0)
    assert found["correction"] == pytest.approx(0.0, abs=1e-9)
    assert found["spread"] == pytest.approx(0.0, abs=1e-9)
    assert found["measured"] == pytest.approx(found["steady"])
    assert "refused" not in found


def test_answers_that_a_stretch_lacks_are_paid_for_in_decode_steps() -> None:
    whole = ([step("prefill", 100.0)] + [step("decode", 10.0)] * 10) * 10
    found = balanced(whole[:-6], LOAD)
    assert found["steady"] == pytest.approx(10 * 101 / 2.0)
    assert found["correction"] == pytest.approx(found["steady"] / found["measured"] - 1.0)
    assert 0.01 < found["correction"] < MOST_CORRECTED
    with pytest.raises(ValueError, match="no step"):
        balanced([], LOAD)
    with pytest.raises(ValueError, match="no step"):
        measured([], LOAD)


def served(load: Load, chunk: int, begun: int, seconds: float) -> list[Timed]:
    """Steps of a server that mixes, from `begun` running requests, when its cache has room.

    A step takes 10 ms, 1 ms for each running request, and more at a prompt's end.
    """
    draw = random.Random(0)
    left = [draw.randrange(1, int(load.answer)) for _ in range(begun)]
    place, total, steps = 0, 0.0, []
    while total < 1e3 * seconds:
        q = chunk - len(left)
        ms = 10.0 + len(left) + 5.0 * place / load.prompt
        steps.append(Timed(ms - 0.2, 0.2, [[q, place + q]], len(left), 1050 * len(left)))
        left, place, total = [one - 1 for one in left if one > 1], place + q, total + ms
        if place >= load.prompt:
            place -= int(load.prompt)
            left.append(int(load.answer) - 1)
    return steps


@pytest.mark.parametrize("begun", [17, 23, 29])
def test_a_stretch_of_hybrid_steps_alone_is_balanced_by_requests_that_run(begun: int) -> None:
    # 23 requests finish beside the prompts that steps of 250 tokens have room for.
    assert LOAD.running(250) == pytest.approx(22.7, abs=0.1)
    truth = measured(served(LOAD, 250, 23, 120.0), LOAD)["measured"]
    stretch = balanced(served(LOAD, 250, begun, 12.0), LOAD)
    assert "refused" not in stretch
    assert stretch["steady"] == pytest.approx(truth, rel=0.01)
    assert 0.0 <= stretch["spread"] < 0.02


def test_what_a_stretch_begins_with_is_seen_in_what_was_measured() -> None:
    truth = measured(served(LOAD, 250, 23, 120.0), LOAD)["measured"]
    assert measured(served(LOAD, 250, 40, 2.0), LOAD)["measured"] > 1.1 * truth
    found = balanced(served(LOAD, 250, 40, 1.0), LOAD)
    assert "no more than 10% is corrected: lengthen --stretch" in found["refused"]


def test_hybrid_steps_alone_are_refused_where_the_long_run_has_others() -> None:
    steps = served(LOAD, 250, 20, 10.0)
    found = balanced(steps, LOAD._replace(room=20.0))
    assert found["steady"] == found["measured"] and "spread" not in found
    assert "it held 0 decode-only steps" in found["refused"]
    assert "23 requests would have to run" in found["refused"]
    assert "the cache holds 20: lengthen --stretch" in found["refused"]


def test_a_stretch_of_prompts_alone_is_refused() -> None:
    found = balanced([step("prefill", 100.0)] * 20, LOAD)
    assert "it held 0 hybrid steps and 0 decode-only ones" in found["refused"]
    found = balanced([step("decode", 10.0)] * 20, LOAD)
    assert found["refused"]


def test_more_decode_steps_than_there_were_are_not_taken_away() -> None:
    # One in ten steps is decode-only, and more tokens are in excess than these gave.
    steps = served(LOAD, 250, 34, 3.0)
    more = step("decode", 9.0, decodes=20)
    mixed = [one for at, own in enumerate(steps) for one in (own, more)[: 2 - bool(at % 10)]]
    found = balanced(mixed, LOAD)
    alone = balanced(steps, LOAD)
    assert found["steady"] == pytest.approx(alone["steady"])


def test_a_stretch_that_changes_has_a_spread_and_is_refused() -> None:
    slow = ([step("prefill", 100.0)] + [step("decode", 10.0)] * 10) * 5
    quick = ([step("prefill", 50.0)] + [step("decode", 5.0)] * 10) * 10
    found = balanced(slow + quick, LOAD)
    assert found["spread"] > 0.1
    assert "its standard error is" in found["refused"]
