"""What is filed of transformers after a visit to a GPU."""

from __future__ import annotations

from typing import Any

from benchmarks.gpu.visit import headlines, tables

HF: dict[str, Any] = {
    "runs": {
        "sdpa": {"seconds": 9.0, "tokens_per_second": 3, "answers_equal": 1, "tokens_equal": 1},
        "pod": {"seconds": 3.0, "tokens_per_second": 9, "answers_equal": 0.5, "tokens_equal": 0.7},
    },
    "logits": {
        "fp32_margin": {"median": 0.2},
        "sdpa": {"logit_mean": 0.02, "logit_max": 0.1, "kl_mean": 1e-5, "top1_equal": 0.99},
        "pod": {"logit_mean": 0.01, "logit_max": 0.1, "kl_mean": 1e-5, "top1_equal": 0.99},
    },
    "differences": {"pod": {"near_ties": 0.96, "gap_median": 0.005}},
}


def test_transformers_rows_and_headlines_come_from_the_document() -> None:
    drawn = tables.transformers(HF)
    assert "| `pod` | 9 | 50% | 70% | 96% | 0.005 |" in drawn
    assert "| `pod` | 0.01 | 0.1 | 1e-05 | 99.0% |" in drawn
    assert "| `sdpa` | 3 | 100% | 100% | - | - |" in tables.transformers({"runs": HF["runs"]})
    found = {name: value for name, value, _, _ in headlines.headlines({"hf": HF})}
    assert found["gpu.generate_batch_speedup_vs_sdpa"] == 3
    assert found["gpu.logit_error_vs_sdpa"] == 0.5
    assert found["gpu.differences_near_ties"] == 0.96
