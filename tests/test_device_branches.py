"""Kinds of devices are told apart in pod_integrate/devices only."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.device_branches import device_branches


def test_no_module_of_the_packages_branches_by_kind_of_device() -> None:
    found = device_branches()
    assert [branch for branch in found if not branch.startswith("benchmarks/")] == []


def test_benchmarks_branch_only_where_a_script_starts_an_engine_or_parses_its_options() -> None:
    files = {branch.split(":")[0] for branch in device_branches()}
    assert files <= {
        "benchmarks/gpu/correctness/conformance.py",
        "benchmarks/gpu/correctness/conformance_run.py",
        "benchmarks/gpu/engines/hf.py",
        "benchmarks/gpu/engines/job.py",
        "benchmarks/gpu/engines/sglang.py",
        "benchmarks/gpu/engines/traces.py",
        "benchmarks/gpu/peers/torch_sdpa.py",
        "benchmarks/gpu/speed/tune.py",
        "benchmarks/gpu/visit/prebuild.py",
    }


@pytest.mark.parametrize(
    "condition",
    [
        'device.type == "cuda"',
        'q.device.type not in ("cpu", "cuda")',
        'key.capability.startswith("sm")',
        "q.is_cuda",
        "self._on_cpu",
        "not torch.cuda.is_available()",
        "isinstance(machine, Cuda)",
    ],
)
def test_a_branch_by_kind_is_noticed_wherever_it_stands(tmp_path: Path, condition: str) -> None:
    (tmp_path / "tuner").mkdir()
    (tmp_path / "tuner" / "a.py").write_text(
        f"if {condition}:\n    pass\nx = 1 if {condition} else 2\nif wide and ({condition}): pass\n"
    )
    devices = tmp_path / "pod_integrate" / "devices"
    devices.mkdir(parents=True)
    (devices / "b.py").write_text(f"if {condition}: pass\n")
    found = device_branches(tmp_path)
    assert [branch.split(":")[:2] for branch in found] == [
        ["tuner/a.py", line] for line in ("1", "3", "4")
    ]
