"""Bugs planted in the kernel are caught by running it, every one by name."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import ahead_mutations
import byte_mutations
import column_mutations
import merge_mutations
import mutations
import narrow_mutations
import pair_mutations
import pair_ring_mutations
import panel_mutations
import planting
import pytest
import softmax_mutations
import stay_mutations
import turn_mutations
import wgmma_mutations
import wide_pair_mutations

from pod_integrate.builds import native
from pod_integrate.devices.cuda.variants import Variant
from pod_integrate.devices.emulated.emulator_build import build_changed

# Every way of the kernel: Q in registers and in shared memory, one and two stages, decode items
# on one and on two warps, several of them in a CTA.
VARIANTS = (
    "bf16-d64-p64x32s2w2-d16x32s2w2-c2-v2",
    "bf16-d64-p32x32s1w2-d16x32s1w1-c2-v2",
)
# Prefill on wgmma, which the others are too small for.
WGMMA_VARIANTS = ("bf16-d64-p128x64s2w4-d16x32s2w2-c2-v1",)
# Decode on it, two blocks of keys to a tile.
COLUMN_VARIANTS = ("bf16-d64-p128x64s2w4-d16x128s1w4-c2-v1",)
# The same with tiles of 8 query rows.
NARROW_VARIANTS = ("bf16-d64-p128x64s2w4-d8x128s1w4-c2-v1",)
# Panels of 32 columns.
PANEL_VARIANTS = ("bf16-d96-p128x64s2w4-d16x64s1w4-c2-v1",)
# Both ops in a CTA that stays.
PAIR_VARIANTS = ("bf16-d64-p128x96s2w8-d16x64s1w4-c1-v1",)
# The same, its decodes' keys a tile ahead of their values.
AHEAD_VARIANTS = ("bf16-d64-p128x96s2w8-d16x64s2w4-c1-v1",)
# And one op at a time.
TURN_VARIANTS = ("bf16-d256-p128x64s2w8-d16x64s1w4-c1-v1",)
# K and V of 8 bits; on wgmma those, too, are widened on their way.
BYTE_VARIANTS = ("bf16-kve4m3-d64-p64x32s2w2-d16x32s2w2-c2-v2",)
WIDE_VARIANTS = ("bf16-kve4m3-d64-p128x64s2w4-d16x32s2w2-c2-v1",)
# The same in a CTA that stays, whose decode items reach over the places where bytes land.
WIDE_PAIR_VARIANTS = ("bf16-kve4m3-d64-p128x64s2w8-d16x128s2w4-c1-v1",)
COMMON = (
    *mutations.MUTATIONS,
    *softmax_mutations.MUTATIONS,
    *merge_mutations.MUTATIONS,
)
WGMMA = (*wgmma_mutations.MUTATIONS, *softmax_mutations.LAZY_MUTATIONS)
PAIR = (
    *pair_ring_mutations.MUTATIONS,
    *pair_mutations.MUTATIONS,
    *stay_mutations.MUTATIONS,
)
# Bugs, and the variants that they show in.
SHOWN = (
    (COMMON, VARIANTS),
    (WGMMA, WGMMA_VARIANTS),
    (column_mutations.MUTATIONS, COLUMN_VARIANTS),
    (narrow_mutations.MUTATIONS, NARROW_VARIANTS),
    (panel_mutations.MUTATIONS, PANEL_VARIANTS),
    (PAIR, PAIR_VARIANTS),
    (ahead_mutations.MUTATIONS, AHEAD_VARIANTS),
    (turn_mutations.MUTATIONS, TURN_VARIANTS),
    (byte_mutations.MUTATIONS, BYTE_VARIANTS),
    (byte_mutations.WIDE_MUTATIONS, WIDE_VARIANTS),
    (wide_pair_mutations.MUTATIONS, WIDE_PAIR_VARIANTS),
)
BUGS = tuple(bug for bugs, _ in SHOWN for bug in bugs)
RUNNER = Path(__file__).parent / "mutation_runner.py"


def run_all(numbers: Sequence[int], libraries: dict[str, Path]) -> dict[int, dict[str, Any]]:
    """Results by number; a bug that ends the process is caught by that."""
    results: dict[int, dict[str, Any]] = {}
    pairs = [f"{name}={path}" for name, path in libraries.items()]
    while len(results) < len(numbers):
        left = ",".join(map(str, numbers[len(results) :]))
        command = [sys.executable, str(RUNNER), left, *pairs]
        done = subprocess.run(command, capture_output=True, text=True, timeout=600)
        for line in done.stdout.splitlines():
            result = json.loads(line)
            results[result["number"]] = result
        if len(results) < len(numbers):
            assert results, done.stderr
            number = numbers[len(results)]
            why = f"the process ended with {done.returncode}"
            results[number] = {"number": number, "why": why, "shape": "?", "runs": 1}
    return results


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[int, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("mutations")
    cuda = planting.plant(folder, BUGS)
    names = [name for _, variants in SHOWN for name in variants]
    libraries = {name: folder / f"{name}.so" for name in names}
    with ThreadPoolExecutor(2) as pool:
        jobs = [
            pool.submit(build_changed, Variant.parse(name), cuda, path)
            for name, path in libraries.items()
        ]
        for job in jobs:
            job.result()
    found: dict[int, dict[str, Any]] = {}
    first = 1
    for place, (bugs, variants) in enumerate(SHOWN):
        chosen = {name: libraries[name] for name in variants}
        ran = run_all([0, *range(first, first + len(bugs))], chosen)
        # 0 and below: no bug, by place.
        found[-place] = ran.pop(0)
        found |= ran
        first += len(bugs)
    return found


@pytest.mark.parametrize("place", range(len(SHOWN)))
def test_kernel_without_a_bug_passes(results: dict[int, dict[str, Any]], place: int) -> None:
    assert results[-place]["why"] is None, results[-place]


# Headers without a bug of their own, and why none can be planted that a run would show.
UNPLANTED = {
    "ptx/platform.cuh": "says which compiler reads the kernel",
    "ptx/async_copy.cuh": "an instruction each, compared with a GPU's by kernels/conformance",
    "ptx/box_copy.cuh": "an instruction each, compared with a GPU's by kernels/conformance",
    "ptx/launch.cuh": "an instruction each, compared with a GPU's by kernels/conformance",
    "ptx/dependents.cuh": "an instruction each, compared with a GPU's by kernels/conformance",
    "ptx/ldmatrix.cuh": "an instruction each, compared with a GPU's by kernels/conformance",
    "ptx/math.cuh": "an instruction each, compared with a GPU's by kernels/conformance",
    "ptx/mbarrier.cuh": "an instruction each, compared with a GPU's by kernels/conformance",
    "ptx/mma.cuh": "an instruction each, compared with a GPU's by kernels/conformance",
    "ptx/registers.cuh": "an instruction each, compared with a GPU's by kernels/conformance",
    "ptx/shared.cuh": "an instruction each, compared with a GPU's by kernels/conformance",
    "ptx/sync.cuh": "an instruction each, compared with a GPU's by kernels/conformance",
    "ptx/tensor_map.cuh": "what a driver is told, compared with a GPU's by kernels/conformance",
    "ptx/wgmma.cuh": "an instruction each, compared with a GPU's by kernels/conformance",
    "stamp.cuh": "a launch of its own beside attention, run by the tests of captured steps' times",
    "op/prefill_engine.cuh": "names the items of each engine, which are planted",
    "layout/scope.cuh": "names barriers; those who wait at them are planted",
}


def test_every_header_of_the_kernel_has_a_bug_or_a_reason_for_none() -> None:
    pod = native.sources_dir() / "cuda" / "include" / "pod"
    headers = {path.relative_to(pod).as_posix() for path in pod.rglob("*.cuh")}
    planted = {bug.file for bug in BUGS}
    assert headers - planted == set(UNPLANTED)
    assert len({bug.name for bug in BUGS}) == len(BUGS)


@pytest.mark.parametrize("number", range(1, len(BUGS) + 1), ids=[bug.name for bug in BUGS])
def test_bug_is_caught(
    results: dict[int, dict[str, Any]],
    number: int,
    record_property: Callable[[str, object], None],
) -> None:
    record_property("caught", {"bug": BUGS[number - 1].name, **results[number]})
    assert results[number]["why"] is not None, f"passed {results[number]['runs']} runs"
