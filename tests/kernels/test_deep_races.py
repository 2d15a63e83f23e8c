"""ThreadSanitizer watches the CUDA kernel on the emulated SM, and sees the races planted in it."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import mutations
import pair_mutations
import planting
import pytest
import wgmma_mutations
from emulator_build import TESTS, build_program

from pod_integrate.builds import native
from pod_integrate.devices.cuda.architectures import PrefillEngine
from pod_integrate.devices.cuda.variants import Variant

# Two row tiles per prefill warp, two stages, two decode items per CTA on two warps each.
VARIANT = Variant.parse("bf16-d64-p64x32s2w2-d16x32s2w2-c2-v2")
# The same with prefill on wgmma.
WGMMA_VARIANT = Variant.parse("bf16-d64-p128x64s2w4-d16x32s2w2-c2-v1")
# Both ops in a CTA that stays.
PAIR_VARIANT = Variant.parse("bf16-d64-p128x96s2w8-d16x64s1w4-c1-v1")
ENGINES: dict[Variant, PrefillEngine] = {
    VARIANT: "mma",
    WGMMA_VARIANT: "wgmma",
    PAIR_VARIANT: "pair",
}
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
    "CTA reads its ticket before the barrier",
    "CTA reads its items before the barrier",
)
PLANTED = (COUNTER, *(bug for bug in mutations.MUTATIONS if bug.name in BARRIERS))
WGMMA_BARRIERS = ("panels are multiplied before the barrier",)
WGMMA_PLANTED = tuple(bug for bug in wgmma_mutations.MUTATIONS if bug.name in WGMMA_BARRIERS)
PAIR_PLANTED = pair_mutations.RACES

pytestmark = [
    pytest.mark.deep,
    pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++"),
]


def build(name: str, cuda: Path, flags: Sequence[str] = (), *, variant: Variant = VARIANT) -> Path:
    sources = [cuda / "csrc" / "variant.cu", cuda / "csrc" / "plan.cpp"]
    includes = [f"-I{cuda / 'csrc'}", f"-I{cuda / 'include'}"]
    defines = variant.defines(ENGINES[variant])
    flags = [*flags, "-fsanitize=thread", "-DPOD_EMULATOR_TSAN", *defines, *includes]
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


@pytest.mark.parametrize("shape", ["hybrid", "decode"])
def test_kernel_has_no_race(shape: str) -> None:
    done = watch(build("kernel_races", native.sources_dir() / "cuda"), shape)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("shape", ["hybrid", "decode"])
def test_kernel_with_wgmma_has_no_race(shape: str) -> None:
    cuda = native.sources_dir() / "cuda"
    done = watch(build("kernel_races_wgmma", cuda, variant=WGMMA_VARIANT), shape)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("shape", ["hybrid", "decode", "tiles"])
def test_ctas_that_stay_have_no_race(shape: str) -> None:
    cuda = native.sources_dir() / "cuda"
    done = watch(build("kernel_races_pair", cuda, variant=PAIR_VARIANT), shape)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    cuda = planting.plant(tmp_path_factory.mktemp("races"), PLANTED)
    return build("kernel_races_planted", cuda, ["-DPOD_PLANTED"])


def test_every_race_that_is_named_is_planted() -> None:
    assert len(PLANTED) == 1 + len(BARRIERS)
    assert len(WGMMA_PLANTED) == len(WGMMA_BARRIERS)


@pytest.mark.parametrize("number", range(1, len(PLANTED) + 1), ids=[bug.name for bug in PLANTED])
def test_planted_race_is_reported(planted: Path, number: int) -> None:
    done = watch(planted, "hybrid", str(number))
    assert done.returncode == RACE_EXIT_CODE, done.stderr
    assert "WARNING: ThreadSanitizer: data race" in done.stderr


@pytest.fixture(scope="module")
def planted_in_wgmma(tmp_path_factory: pytest.TempPathFactory) -> Path:
    cuda = planting.plant(tmp_path_factory.mktemp("races"), WGMMA_PLANTED)
    return build("kernel_races_wgmma_planted", cuda, ["-DPOD_PLANTED"], variant=WGMMA_VARIANT)


@pytest.mark.parametrize(
    "number", range(1, len(WGMMA_PLANTED) + 1), ids=[bug.name for bug in WGMMA_PLANTED]
)
def test_planted_race_in_wgmma_is_reported(planted_in_wgmma: Path, number: int) -> None:
    done = watch(planted_in_wgmma, "hybrid", str(number))
    assert done.returncode == RACE_EXIT_CODE, done.stderr


@pytest.fixture(scope="module")
def planted_in_pair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    cuda = planting.plant(tmp_path_factory.mktemp("races"), PAIR_PLANTED)
    return build("kernel_races_pair_planted", cuda, ["-DPOD_PLANTED"], variant=PAIR_VARIANT)


@pytest.mark.parametrize(
    "number", range(1, len(PAIR_PLANTED) + 1), ids=[bug.name for bug in PAIR_PLANTED]
)
def test_planted_race_in_ctas_that_stay_is_reported(planted_in_pair: Path, number: int) -> None:
    done = watch(planted_in_pair, "tiles", str(number))
    assert done.returncode == RACE_EXIT_CODE, done.stderr
    assert "WARNING: ThreadSanitizer: data race" in done.stderr
