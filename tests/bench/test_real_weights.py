"""The CPU's comparison over trained weights: resumed where it was cut off, both engines counted."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import pytest

from benchmarks import real_weights
from pod_integrate.demo.llama import make_demo_model


def test_transformers_answers_are_equal_and_asked_for_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make_demo_model(tmp_path / "m", layers=2)
    asked = [[5, 6, 7], list(range(90)), [9]]
    monkeypatch.setattr("pod_integrate.demo.smollm2.write_model", lambda *told: model)
    monkeypatch.setattr(real_weights, "prompts", lambda tokenizer, count: asked[:count])
    options = argparse.Namespace(out=tmp_path, weights=Path("w"), questions=3, new=6)
    found = real_weights.transformers_part(options)
    assert (found["answers"]["compared"], found["answers"]["equal"]) == (3, 3)
    assert found["hybrid"] > 0
    again = real_weights.transformers_part(options)
    assert again["answers"] == found["answers"] and again["steps"] == 0


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
    alone = real_weights.numbers({"sglang": parts["sglang"]})
    assert alone["real.requests_compared"][0] == 20
    assert alone["real.requests_compared"][1] == "answers, SGLang, fp32"
