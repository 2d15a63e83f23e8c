"""The agreement table: recorded whole, drawn from its result, and still what the model says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import kernel_model
from pod_integrate.model.agreement import pod, sweep
from pod_integrate.model.agreement.check import Agreement

ROOT = Path(__file__).resolve().parents[3]
RESULT = json.loads((ROOT / "benchmarks" / "results" / "kernel_model.json").read_text())


def test_page_is_drawn_from_the_result() -> None:
    page = (ROOT / "docs" / "model.md").read_text()
    assert kernel_model.render(page, RESULT) == page


def test_headline_counts_the_checks_of_the_result() -> None:
    headline = json.loads((ROOT / "benchmarks" / "results" / "headline.json").read_text())
    agreeing = sum(check["agrees"] for check in RESULT["checks"])
    assert RESULT["agreements"] == agreeing == headline["kernel.model_agreements"]["value"]
    assert headline["kernel.model_checks"]["value"] == len(RESULT["checks"])


@pytest.mark.parametrize(
    "group",
    [pod.wave_quantization, pod.split_limit, sweep.flashinfer],
    ids=lambda group: group.__name__,
)
def test_recorded_answers_are_what_the_model_says_now(group: object) -> None:
    recorded = {check["name"]: check for check in RESULT["checks"]}
    checks: list[Agreement] = list(group())  # type: ignore[operator]
    assert checks
    for check in checks:
        assert recorded[check.name] == check._asdict()
