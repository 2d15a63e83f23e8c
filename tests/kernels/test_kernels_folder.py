"""kernels/ holds native sources only and never shadows an import package of that name."""

from __future__ import annotations

import re
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


HEADERS = sorted(path for kind in ("*.h", "*.cuh") for path in KERNELS.rglob(kind))
SOURCES = sorted(path for kind in ("*.cpp", "*.cu") for path in KERNELS.rglob(kind))
MOST_LINES = 300
# Headers of more than 250 lines, each with its reason.
LONG_HEADERS = {
    "conformance/sections.cuh": "a table of sections, one for each wrapper and kind",
    "conformance/wgmma.cuh": "a table of cases, one for each instruction",
}


def relative(path: Path) -> str:
    return path.relative_to(KERNELS).as_posix()


def test_both_kinds_of_headers_and_sources_are_looked_at() -> None:
    assert {path.suffix for path in HEADERS} == {".h", ".cuh"}
    assert {path.suffix for path in SOURCES} == {".cpp", ".cu"}
    assert len(HEADERS) > 50 and len(SOURCES) > 15


@pytest.mark.parametrize("path", [*HEADERS, *SOURCES], ids=relative)
def test_native_file_is_small_and_says_what_it_is(path: Path) -> None:
    lines = path.read_text().splitlines()
    most = 250 if path in HEADERS and relative(path) not in LONG_HEADERS else MOST_LINES
    assert len(lines) <= most
    assert lines[0].startswith(f"// {path.name}: ")
    assert path in SOURCES or "#pragma once" in lines


def test_reasons_for_long_headers_are_still_needed() -> None:
    for name in LONG_HEADERS:
        assert len((KERNELS / name).read_text().splitlines()) > 250, name


def included(path: Path, root: str) -> list[str]:
    return re.findall(rf'^#include "{root}/(.+?)"', path.read_text(), re.MULTILINE)


def test_layers_of_the_cpu_kernel_point_one_way() -> None:
    # A header includes only what stands left of it; the scheduler never sees the compute core.
    order = [
        *("launch", "vec", "softmax", "fma_block", "rows", "output", "long_sum"),
        *("panel", "prefill_item", "decode_item"),
        *("plan", "pool", "sched", "worker", "checks"),
    ]
    for path in (KERNELS / "cpu").rglob("*.h"):
        mine = order.index(path.stem)
        for name in included(path, "pod/cpu"):
            other = order.index(name.removesuffix(".h"))
            assert other < mine, f"{path.name} includes {name}"
            reaches = mine >= order.index("plan") > other > 0
            assert not reaches, f"{path.name} reaches into the core"


# Layers of the CUDA kernel, lowest first; within a layer files in the order that they may include
# each other. `sched` decides and `op` computes: neither sees the other.
WORDS = ("config.h", "smem.h", "arguments.h")
LAYERS = (
    *(("ptx", "platform"), ("ptx", "launch"), ("ptx", "tensor_map"), ("ptx", ""), ("stamp", "")),
    *(
        ("layout", "fragment"),
        ("layout", "columns"),
        ("layout", "bytes"),
        ("layout", "swizzle"),
        ("layout", "rows"),
    ),
    *(("layout", "barriers"), ("layout", "scope"), ("layout", "panels")),
    *(("mask", ""), ("copy", ""), ("mma", "products"), ("mma", ""), ("softmax", "")),
    *(("lazy_softmax", ""), ("column_softmax", "")),
    *(("output", ""), ("combine", "")),
    *(
        ("op", "kv_loop"),
        ("op", "kv_turns"),
        ("op", "kv_ahead"),
        ("op", "panel_products"),
        ("op", "panel_ring"),
        ("op", "pair_ring"),
        ("op", "rows"),
        ("op", "column_math"),
        ("op", "start"),
        ("op", ""),
        ("op", "prefill_engine"),
    ),
    *(("sched", "fetch"), ("sched", ""), ("pair_cta", ""), ("pod_kernel", "")),
)


def layer(name: str) -> int:
    folder, _, file = name.removesuffix(".cuh").rpartition("/")
    key = (folder, file) if folder else (file, "")
    return LAYERS.index(key if key in LAYERS else (folder, ""))


def test_layers_of_the_cuda_kernel_point_one_way() -> None:
    pod = KERNELS / "cuda" / "include" / "pod"
    files = sorted(pod.rglob("*.cuh"))
    assert len(files) > 25
    for path in files:
        mine = path.relative_to(pod).as_posix()
        for name in included(path, "pod"):
            if name in WORDS or name.startswith("emulator/"):
                continue
            assert layer(name) < layer(mine), f"{mine} includes {name}"
            if mine.startswith("sched/"):
                assert name.startswith(("ptx/", "sched/")), f"{mine} decides, and includes {name}"


def test_hardware_has_one_door() -> None:
    for path in [*HEADERS, *SOURCES]:
        place = relative(path)
        if not place.startswith("cuda/include/pod/ptx/") and "cuda/" in place:
            assert not re.search(r"\basm\b|__CUDACC__", path.read_text()), place
        if "emulator/" in place or place.endswith("ptx/platform.cuh"):
            continue
        assert not included(path, "pod/emulator"), f"{place} knows the emulator"
