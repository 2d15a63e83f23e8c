"""ThreadSanitizer watches the CUDA kernel on the emulated SM, and sees the races planted in it."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import mutations
import pair_mutations
import planting
import pytest
import wgmma_mutations
from emulator_build import TESTS, TSAN_FLAGS, build_program

from pod_integrate.builds import native
from pod_integrate.devices.cuda.architectures import PrefillEngine
from pod_integrate.devices.cuda.variants import Variant

RACE_EXIT_CODE = 66
COUNTER = planting.Mutation(
    "counter without an atomic",
    "ptx/sync.cuh",
    "return emulator::atomic_add(gmem, value);",
    "if (!{on}) return emulator::atomic_add(gmem, value);\n"
    "  const int old = *gmem;\n  *gmem = old + value;\n  return old;",
)
BARRIERS = (
    "K tile read, and V overwritten, before the barrier",
    "V tile read, and K overwritten, before the barrier",
    "decode reads Q without a barrier",
    "decode warps meet without a barrier",
    "CTA reads what it works on before the barrier",
)
WGMMA_BARRIERS = ("panels are multiplied before the barrier",)


class Watched(NamedTuple):
    """A kernel: batches in which it has no race, and bugs that are one in the batch `in_shape`."""

    engine: PrefillEngine
    variant: Variant
    shapes: tuple[str, ...]
    planted: tuple[planting.Mutation, ...]
    in_shape: str


WATCHED = (
    # Two row tiles per prefill warp, two stages, two decode items per CTA on two warps each.
    Watched(
        "mma",
        Variant.parse("bf16-d64-p64x32s2w2-d16x32s2w2-c2-v2"),
        ("hybrid", "decode"),
        (COUNTER, *(bug for bug in mutations.MUTATIONS if bug.name in BARRIERS)),
        "hybrid",
    ),
    # The same with prefill on wgmma.
    Watched(
        "wgmma",
        Variant.parse("bf16-d64-p128x64s2w4-d16x32s2w2-c2-v1"),
        ("hybrid", "decode"),
        tuple(bug for bug in wgmma_mutations.MUTATIONS if bug.name in WGMMA_BARRIERS),
        "hybrid",
    ),
    # Both ops in a CTA that stays.
    Watched(
        "pair",
        Variant.parse("bf16-d64-p128x96s2w8-d16x64s1w4-c1-v1"),
        ("hybrid", "decode", "tiles"),
        pair_mutations.RACES,
        "tiles",
    ),
)

pytestmark = [
    pytest.mark.deep,
    pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++"),
]


def build(kernel: Watched, cuda: Path, flags: Sequence[str] = ()) -> Path:
    csrc = cuda / "csrc"
    sources = [csrc / name for name in ("variant.cu", "plan.cpp", "cuts.cpp", "ranges.cpp")]
    includes = [f"-I{cuda / 'csrc'}", f"-I{cuda / 'include'}"]
    defines = kernel.variant.defines(kernel.engine)
    name = "_".join(["kernel_races", kernel.engine, *(["planted"] if flags else [])])
    flags = [*flags, *TSAN_FLAGS, *defines, *includes]
    return build_program(name, [*sources, TESTS / "kernel_races.cpp"], flags)


def watch(program: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    # ThreadSanitizer's map of addresses does not hold with much address randomization.
    without_randomization = ["setarch", "-R"] if shutil.which("setarch") else []
    options = f"exitcode={RACE_EXIT_CODE} atexit_sleep_ms=0 halt_on_error=1"
    return subprocess.run(
        [*without_randomization, str(program), *arguments],
        capture_output=True,
        text=True,
        timeout=300,
        env=os.environ | {"TSAN_OPTIONS": options},
    )


@pytest.mark.parametrize(
    ("kernel", "shape"),
    [
        pytest.param(kernel, shape, id=f"{kernel.engine} {shape}")
        for kernel in WATCHED
        for shape in kernel.shapes
    ],
)
def test_kernel_has_no_race(kernel: Watched, shape: str) -> None:
    done = watch(build(kernel, native.sources_dir() / "cuda"), shape)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Watched], Path]:
    @functools.cache
    def built(kernel: Watched) -> Path:
        cuda = planting.plant(tmp_path_factory.mktemp("races"), kernel.planted)
        return build(kernel, cuda, ["-DPOD_PLANTED"])

    return built


def test_every_race_that_is_named_is_planted() -> None:
    mma, wgmma, pair = WATCHED
    assert len(mma.planted) == 1 + len(BARRIERS)
    assert len(wgmma.planted) == len(WGMMA_BARRIERS)
    assert pair.planted


@pytest.mark.parametrize(
    ("kernel", "number"),
    [
        pytest.param(kernel, number, id=f"{kernel.engine} {kernel.planted[number - 1].name}")
        for kernel in WATCHED
        for number in range(1, len(kernel.planted) + 1)
    ],
)
def test_planted_race_is_reported(
    planted: Callable[[Watched], Path], kernel: Watched, number: int
) -> None:
    done = watch(planted(kernel), kernel.in_shape, str(number))
    assert done.returncode == RACE_EXIT_CODE, done.stderr
    assert "WARNING: ThreadSanitizer: data race" in done.stderr
