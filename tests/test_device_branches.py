"""Kinds of devices are told apart in pod_integrate/devices only."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.device_branches import device_branches


def test_no_module_of_the_packages_branches_by_kind_of_device() -> None:
    assert device_branches() == []


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
