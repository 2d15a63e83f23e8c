"""The model against what our kernel was measured at on an H100."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pod_integrate.devices.registry import target_of
from pod_integrate.model.devices import DEVICES
from pod_integrate.model.floors import CASES, CaseSpec
from pod_integrate.model.simulate import simulate

NUMBERS = Path(__file__).resolve().parents[3] / "benchmarks" / "results" / "gpu_numbers.json"
H100 = DEVICES["h100"]
# One bound by prefill, one by decode, one by both.
CHOSEN = [case for case in CASES if case.name in ("figure 14, Yi-6B", "table 8", "C0")]


@pytest.mark.parametrize("case", CHOSEN, ids=lambda case: case.name)
def test_default_config_takes_what_was_measured_within_a_tenth(case: CaseSpec) -> None:
    runs = json.loads(NUMBERS.read_text())["cases"][case.name]["runs"]
    (measured,) = [run["median_us"] for run in runs if run["name"] == "ours fused default"]
    config = target_of(H100.key).default_config(case.geometry)
    assert simulate(case.lengths, case.geometry, config, H100).us == pytest.approx(
        measured, rel=0.1
    )
