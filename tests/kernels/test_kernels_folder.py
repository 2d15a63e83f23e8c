"""kernels/ holds native sources only and never shadows an import package of that name."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
KERNELS = ROOT / "kernels"


def test_folder_holds_no_python() -> None:
    assert not list(KERNELS.rglob("*.py"))


@pytest.mark.parametrize("order", ["kernels first", "pod_integrate first"])
def test_import_of_kernels_from_the_root_is_not_ours(order: str) -> None:
    # A regular package, e.g. the library of that name, wins over a folder without __init__.py;
    # without one the folder is at most an empty namespace.
    check = """
spec = importlib.util.find_spec("kernels")
assert spec is None or spec.origin is None or "site-packages" in spec.origin, spec
"""
    ours = "from pod_integrate import hybrid_attention\nassert hybrid_attention\n"
    program = "import importlib.util\n" + (
        check + ours if order == "kernels first" else ours + check
    )
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True, timeout=120)


def test_headers_stay_small_and_say_what_they_are() -> None:
    for path in KERNELS.rglob("*.h"):
        lines = path.read_text().splitlines()
        assert len(lines) <= 250, f"{path.name} has {len(lines)} lines"
        assert lines[0].startswith(f"// {path.name}: "), path
        assert "#pragma once" in lines, path


def test_layers_point_one_way() -> None:
    # A header includes only what stands left of it; the scheduler never sees the compute core.
    order = [
        *(
            "launch",
            "vec",
            "softmax",
            "fma_block",
            "rows",
            "output",
            "long_sum",
            "prefill_item",
            "decode_item",
        ),
        *("plan", "pool", "sched", "worker", "checks"),
    ]
    for path in (KERNELS / "cpu").rglob("*.h"):
        mine = order.index(path.stem)
        for line in path.read_text().splitlines():
            if line.startswith('#include "pod/cpu/'):
                other = order.index(line.split("/")[-1].removesuffix('.h"'))
                assert other < mine, f"{path.name} includes {order[other]}.h"
                assert not (mine >= 9 and 0 < other < 9), f"{path.name} reaches into the core"
