"""Variables that nobody has set hold NaN: the emulated suite passes all the same.

clang's -ftrivial-auto-var-init=pattern fills them; g++ leaves whatever the stack held, often 0.
"""

from __future__ import annotations

import ctypes
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import planting
import pytest
import test_emulated_kernel as suite

from pod_integrate.builds import native
from pod_integrate.devices.cuda import kernel_library
from pod_integrate.devices.cuda.variants import Variant
from pod_integrate.devices.emulated import emulator
from pod_integrate.devices.emulated.emulator_build import build_changed

# The last prefills on wgmma.
VARIANTS = (
    "bf16-d64-p64x32s1w4-d16x64s1w4-c2-v1",
    "bf16-d96-p64x32s1w2-d16x32s3w1-c2-v2",
    "fp16-d64-p128x64s2w4-d16x64s1w4-c2-v1",
)
# What is unset depends little on who runs first.
SCHEDULES = ("ascending", "random late")
PLANTED = (
    planting.Mutation(
        "output accumulators not set",
        "softmax.cuh",
        "Fragment::for_each(o, [](float& x) { x = 0.f; });",
        "if (!{on}) Fragment::for_each(o, [](float& x) { x = 0.f; });",
    ),
    planting.Mutation(
        "row sums not set",
        "softmax.cuh",
        "l[tile][half] = lost[tile][half] = 0.f;",
        "if (!{on}) l[tile][half] = lost[tile][half] = 0.f;",
    ),
    planting.Mutation(
        "score accumulators not set",
        "mma/products.cuh",
        "s[tile][n][j] = 0.f;",
        "if (!{on}) s[tile][n][j] = 0.f;",
    ),
)
_FLAGS = (
    "-std=c++17 -O2 -fPIC -fvisibility=hidden -ffp-contract=fast -Wall -Wextra "
    "-Wno-unknown-pragmas -fno-sanitize=undefined -ftrivial-auto-var-init=pattern -nostdinc++"
).split()

pytestmark = [
    pytest.mark.deep,
    pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++"),
]


def clang() -> list[str]:
    """clang out of the zig wheel, with the C++ library that g++ links."""
    said = subprocess.run(
        ["g++", "-E", "-x", "c++", "-", "-v"], input="", capture_output=True, text=True, check=True
    ).stderr
    folders = [line.strip() for line in said.splitlines() if line.startswith(" /")]
    headers = [f"-I{folder}" for folder in folders if "c++" in Path(folder).parts]
    wide = ["-march=x86_64_v3"] if platform.machine() == "x86_64" else []
    return [sys.executable, "-m", "ziglang", "c++", *_FLAGS, *wide, *headers]


@contextmanager
def running(library: Path) -> Iterator[ctypes.CDLL]:
    """Emulated calls run `library`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(emulator, "build", lambda _, **__: library)
        yield kernel_library.load(library).library


@pytest.fixture(scope="module", params=VARIANTS)
def variant(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, Path]:
    library = tmp_path_factory.mktemp("uninitialized") / f"{request.param}.so"
    build_changed(
        Variant.parse(request.param), native.sources_dir() / "cuda", library, compiler=clang()
    )
    return request.param, library


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("shape", suite.SHAPES.values(), ids=suite.SHAPES)
def test_nothing_depends_on_unset_variables(
    variant: tuple[str, Path], shape: suite.Shape, schedule: str
) -> None:
    name, library = variant
    with running(library):
        suite.test_matches_reference(name, shape, suite.SCHEDULES[schedule])


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("planted")
    cuda = planting.plant(folder, PLANTED)
    library = folder / "planted.so"
    build_changed(Variant.parse(VARIANTS[0]), cuda, library, compiler=clang())
    return library


@pytest.mark.parametrize("number", range(1, len(PLANTED) + 1), ids=[bug.name for bug in PLANTED])
def test_variable_that_is_not_set_is_noticed(planted: Path, number: int) -> None:
    shape, schedule = suite.SHAPES["hybrid"], suite.SCHEDULES["ascending"]
    with running(planted) as library:
        switch = ctypes.c_int.in_dll(library, "pod_mutant")
        switch.value = 0
        suite.test_matches_reference(VARIANTS[0], shape, schedule)
        switch.value = number
        with pytest.raises(AssertionError):
            suite.test_matches_reference(VARIANTS[0], shape, schedule)
