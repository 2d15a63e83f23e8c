"""The law of accuracy on a device: which cases, and what becomes of a wrong answer."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from benchmarks.gpu.common.machines import Emulator
from benchmarks.gpu.common.output import Output
from benchmarks.gpu.correctness import accuracy, checks
from pod_integrate.devices.cuda import variants
from pod_integrate.devices.cuda.limits import ARCHITECTURES
from pod_integrate.devices.cuda.variants import Variant
from pod_integrate.op import Result

MACHINE = Emulator()


def test_accuracy_of_a_device_is_judged_case_by_case(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    attend, calls = MACHINE.attend, iter(range(100))

    def first_is_wrong(case: Any, config: Any, **features: Any) -> Result:
        out, lse = attend(case, config, **features)
        return Result(out, lse + 0.01 * (next(calls) == 0))

    monkeypatch.setattr(MACHINE, "attend", first_is_wrong)
    tally = checks.Tally(Output(tmp_path, "checks"))
    checks.accuracy(MACHINE, tally, time.monotonic() + 60)
    found = tally.document()["accuracy"]
    assert found["cases"] == found["within"] + 1 == len(tally.passed) + 1 > 1
    (name,) = tally.failed
    assert name.removeprefix("accuracy | ") == next(iter(found["worst_lse"]))


@pytest.mark.parametrize("arch", ARCHITECTURES.values(), ids=lambda arch: arch.name)
def test_accuracy_cases_of_a_device_are_many_and_use_shipped_variants(arch: Any) -> None:
    cases = accuracy.accuracy_cases()
    assert len({case.name for case in cases}) == len(cases) > 300
    shipped = variants.shipped(arch)
    for case in cases:
        assert Variant.of(accuracy.config_of(case, arch), case.geometry) in shipped
