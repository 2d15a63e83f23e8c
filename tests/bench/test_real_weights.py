"""The CPU's comparison over trained weights: resumed where it was cut off, both engines counted."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import pytest

from benchmarks import real_weights
from pod_integrate.demo import answers
from pod_integrate.demo.llama import make_demo_model

ASKED = [[5, 6, 7], list(range(90)), [9]]


@pytest.fixture
def options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> argparse.Namespace:
    model = make_demo_model(tmp_path / "m", layers=2)
    monkeypatch.setattr("pod_integrate.demo.smollm2.write_model", lambda *told: model)
    monkeypatch.setattr(real_weights, "prompts", lambda tokenizer: ASKED)
    weights = tmp_path / "weights"
    weights.write_bytes(b"a")
    return argparse.Namespace(out=tmp_path, weights=weights, questions=3, new=6, seconds=600.0)


def test_transformers_answers_are_equal_and_asked_for_once(
    options: argparse.Namespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = real_weights.transformers_part(options)
    assert (found["answers"]["compared"], found["answers"]["equal"]) == (3, 3)
    assert found["hybrid"] > 0
    monkeypatch.setattr("pod_integrate.demo.answers.alone", None)
    monkeypatch.setattr("pod_integrate.demo.answers.together", None)
    assert real_weights.transformers_part(options) == found
    options.questions = 2
    assert real_weights.transformers_part(options)["answers"]["compared"] == 2


def test_answers_of_other_weights_do_not_count(
    options: argparse.Namespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    real_weights.transformers_part(options)
    options.weights.write_bytes(b"b")
    monkeypatch.setattr("pod_integrate.demo.answers.alone", lambda *told: [1, 2])
    assert real_weights.transformers_part(options)["answers"]["equal"] == 0


def test_out_of_time_the_next_call_goes_on(
    options: argparse.Namespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = iter([0.0, 1.0, 2.0])
    with monkeypatch.context() as patch:
        patch.setattr("benchmarks.real_weights.time.monotonic", lambda: next(now))
        options.seconds = 1.5
        with pytest.raises(SystemExit, match="stock: 1 of 3 answers are kept"):
            real_weights.transformers_part(options)
    options.seconds, asked = 600.0, []
    alone = answers.alone

    def noted(model: Any, ids: list[int], tokens: int) -> list[int]:
        asked.append(ids)
        return alone(model, ids, tokens)

    monkeypatch.setattr(answers, "alone", noted)
    assert real_weights.transformers_part(options)["answers"]["equal"] == 3
    assert asked == ASKED[1:]


def test_headlines_sum_over_the_engines_that_were_run() -> None:
    parts: dict[str, Any] = {
        "transformers": {"answers": {"equal": 199, "compared": 200}},
        "sglang": {
            "compared": {"runs": {"pod, mixed": {"answers": {"equal": 20, "compared": 20}}}}
        },
    }
    found = real_weights.numbers(parts)
    assert found["real.requests_token_equal"][0] == 219
    assert found["real.requests_compared"][0] == 220
    assert found["real.requests_compared"][1] == "answers, transformers and SGLang, fp32"
    assert "real.cpu_perplexity_ratio" not in found
    runs = parts["sglang"]["compared"]["runs"]
    runs["pod, mixed"]["prefill"] = {"ratio": 1.0001, "tokens": 3996}
    told = real_weights.numbers(parts)["real.cpu_perplexity_ratio"]
    assert told[0] == 1.0001 and told[1].startswith("x, 3996 tokens")
    alone = real_weights.numbers({"sglang": parts["sglang"]})
    assert alone["real.requests_compared"][0] == 20
    assert alone["real.requests_compared"][1] == "answers, SGLang, fp32"
