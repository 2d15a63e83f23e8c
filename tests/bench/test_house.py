"""The counts of benchmarks/house.py find what is planted in a tree, and nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks import house

FILES = {
    "pod_integrate/__init__.py": "",
    "pod_integrate/op.py": 'SCHEMA = "float logit_cap"\n\n\ndef op(q, *, logit_cap): ...\n',
    "pod_integrate/devices/base.py": 'def kind(d):\n    return d.type == "cuda"\n',
    "tuner/__init__.py": "",
    "tuner/core.py": "from tuner import view\n\n\nclass Plan: ...\n",
    "tuner/view.py": "x: Any = 0\n",
    "benchmarks/gpu/__main__.py": "",
    "kernels/checks.h": "struct Plan {\n  double logit_cap;  // not a double logit_cap\n};\n",
}
PLACE = "pod_integrate/engines/here.py"


def counted(tree: Path, **more: str) -> dict[str, Any]:
    for name, text in {**FILES, **more}.items():
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text(text)
    return house.counts(tree)


def test_a_clean_tree_has_neither_circles_nor_branches_outside_of_devices(tmp_path: Path) -> None:
    counts = counted(tmp_path)
    assert counts["import_circles"] == []
    assert (counts["device_branches"], counts["device_branches_outside"]) == (1, 0)
    assert counts["modules_at_root"] == {"pod_integrate": 1, "tuner": 2, "benchmarks/gpu": 0}
    assert (counts["any"], counts["types_by_word"]) == (1, {"Plan": 2})
    assert counts["native_files"] == {"files": 1, "median": 3, "largest": 3}


def test_each_declaration_of_the_scalar_on_its_way_to_a_kernel_is_one(tmp_path: Path) -> None:
    places = ["pod_integrate/op.py:1", "pod_integrate/op.py:4", "kernels/checks.h:2"]
    assert counted(tmp_path)["signatures_per_scalar"] == places


@pytest.mark.parametrize("scalar", ["logit_cap", "k_scale", "v_scale"])
def test_a_scalar_of_the_op_is_declared_in_four_places_at_most(scalar: str) -> None:
    tree = Path(house.__file__).parents[1]
    found = house.signatures(tree, [*house.sources(tree)], scalar)
    assert 2 <= len(found) <= 4, found
    assert any(place.startswith("pod_integrate/op.py") for place in found)
    assert any(place.startswith("kernels/") for place in found)


@pytest.mark.parametrize(
    "late",
    ["from tuner import core", "import tuner.core", "from tuner.core import Plan"],
)
def test_a_circle_by_a_late_import_is_found(tmp_path: Path, late: str) -> None:
    counts = counted(tmp_path, **{"tuner/view.py": f"def f():\n    {late}\n"})
    assert counts["import_circles"] == [["tuner.core", "tuner.view"]]


def test_imports_for_the_type_checker_alone_make_no_circle(tmp_path: Path) -> None:
    text = "if TYPE_CHECKING:\n    from tuner import core\n"
    assert counted(tmp_path, **{"tuner/view.py": text})["import_circles"] == []


@pytest.mark.parametrize(
    "line",
    [
        'd.type == "cuda"',
        '"cpu" != d',
        'kind in ("cpu", "emulated")',
        "q.is_cuda",
        "not self._on_cpu",
        "torch.cuda.is_available()",
        "isinstance(machine, machines.Cuda)",
    ],
)
def test_each_way_to_ask_for_the_kind_of_device_counts(tmp_path: Path, line: str) -> None:
    counts = counted(tmp_path, **{PLACE: f"def f(d, kind, q, self, machine):\n    return {line}\n"})
    assert counts["device_branches_where"] == {PLACE: 1}


@pytest.mark.parametrize("line", ['d == "cpus"', 'f("cuda")', "d.on_cpu_count", "d.cuda()"])
def test_what_only_looks_like_asking_does_not_count(tmp_path: Path, line: str) -> None:
    assert counted(tmp_path, **{PLACE: f"x = {line}\n"})["device_branches_outside"] == 0
