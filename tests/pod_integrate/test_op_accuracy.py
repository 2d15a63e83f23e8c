"""The CPU kernel under the law of accuracy_law.py: long, extreme, in every dtype, split and not."""

from __future__ import annotations

import pytest
import torch

from benchmarks.accuracy.accuracy_cases import (
    LONG,
    SHORT,
    AccuracyCase,
    extreme_cases,
    feature_cases,
    growth_cases,
)
from benchmarks.accuracy.accuracy_law import judge
from benchmarks.op_accuracy import attend
from pod_integrate.devices.cpu.processor import ISAS, isa

CPU = torch.device("cpu")
pytestmark = pytest.mark.usefixtures("one_thread_for_the_reference")
LEVELS = [level for level in ISAS if ISAS.index(level) >= ISAS.index(isa())]
FAST = [*growth_cases(SHORT), *extreme_cases(), *feature_cases((32, 48, 64, 128, 256))]
# Those where roundings of long sums drift; the benchmark runs the others too.
DRIFTING = [case for case in growth_cases(LONG) if case.dtype == "fp32"]


@pytest.mark.parametrize("case", FAST, ids=lambda case: case.name)
def test_error_is_within_the_law(case: AccuracyCase) -> None:
    found = judge(case, attend)
    assert found.holds, found


@pytest.mark.parametrize("case", DRIFTING, ids=lambda case: case.name)
def test_error_at_128k_keys_is_within_the_same_law(case: AccuracyCase) -> None:
    found = judge(case, attend)
    assert found.holds, found


@pytest.mark.parametrize("level", [level for level in LEVELS if level != isa()])
def test_error_is_within_the_law_on_lower_instruction_sets(
    level: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POD_ATTN_ISA", level)
    verdicts = [judge(case, attend) for case in FAST[::5]]
    assert not [found for found in verdicts if not found.holds]
