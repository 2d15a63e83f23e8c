"""How far two engines' scored answers are apart, from answers made by hand."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from benchmarks.gpu.engines.scores import Scored, apart, ask_all_scored


def scored(tokens: list[int], logprob: float, margins: list[float]) -> Scored:
    return Scored(tokens, [logprob] * len(tokens), margins)


def test_equal_answers_are_no_distance_apart() -> None:
    one = [scored([1, 2, 3], -0.5, [1.0, 2.0, 3.0])]
    found = apart(one, one)
    assert found["answers_equal"] == found["tokens_equal"] == 1.0
    assert found["logprob_max"] == found["noise"] == found["differences"] == 0
    assert "near_ties" not in found


def test_only_what_both_read_alike_is_compared() -> None:
    want = [scored([1, 2, 3, 4], -1.0, [4.0, 4.0, 0.01, 4.0])]
    # The third token differs: after it the two have read different things.
    got = [Scored([1, 2, 9, 9], [-1.1, -1.3, -50.0, -50.0], [4.1, 4.0, 0.02, 90.0])]
    found = apart(want, got)
    assert found["tokens_equal"] == 0.5 and found["differences"] == 1
    assert found["logprob_max"] == pytest.approx(0.3)
    assert found["logprob_mean"] == pytest.approx(0.2)
    assert found["noise"] == pytest.approx(0.1)
    assert found["near_ties"] == 1.0


def test_a_token_that_was_clear_and_flips_all_the_same_is_no_near_tie() -> None:
    want = [scored([1, 2], -1.0, [4.0, 3.0]), scored([5, 6], -1.0, [4.0, 0.05])]
    got = [scored([1, 3], -1.0, [4.1, 3.0]), scored([5, 7], -1.0, [4.0, 0.05])]
    found = apart(want, got)
    assert found["differences"] == 2 and found["near_ties"] == 0.5


def test_answers_that_part_at_once_have_no_distance() -> None:
    found = apart([scored([1], -1.0, [0.1])], [scored([2], -1.0, [0.1])])
    assert found["differences"] == 1 and found["first_tokens_equal"] == 0.0
    assert not {"noise", "near_ties", "logprob_max"} & set(found)


class Engine:
    """As SGLang's Engine answers with log-probabilities; what was asked is kept."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []

    async def async_generate(self, **asked: Any) -> dict[str, Any]:
        self.asked.append(asked)
        first = asked["input_ids"][0]
        await asyncio.sleep(0.01 / first)
        meta = {
            "output_token_logprobs": [(-0.5, first, None)],
            "output_top_logprobs": [[(-0.5, first, None), (-2.0, 7, None)]],
        }
        return {"output_ids": [first], "meta_info": meta}


def test_questions_go_out_together_and_answers_keep_their_order() -> None:
    engine = Engine()
    requests = [{"ids": [i], "new": 1} for i in (1, 2, 3)]
    found = asyncio.run(ask_all_scored(engine, requests))
    assert found == [Scored([i], [-0.5], [1.5]) for i in (1, 2, 3)]
    assert all(asked["sampling_params"]["temperature"] == 0 for asked in engine.asked)
