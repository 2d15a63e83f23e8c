"""The emulated GPU, by the C++ cases of emulator_*.cpp."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from emulator_build import TESTS, TSAN_FLAGS, build_program

_NAMES = ("unit", "machine", "shared", "matrices", "barriers", "misuse")
_WGMMA = ("wgmma", "wgmma_async", "wgmma_misuse", "wgmma_swapped")
_COPIES = ("mbarriers", "boxes", "boxes_misuse", "dependents")
UNITS = [TESTS / f"emulator_{name}.cpp" for name in (*_NAMES, *_WGMMA, *_COPIES)]
CASES = [name for path in UNITS for name in re.findall(r"^CASE\((\w+)\)", path.read_text(), re.M)]

RACES = TESTS / "emulator_races.cpp"
RACY = [name for name in re.findall(r"^void (\w+)\(\)", RACES.read_text(), re.M) if name != "clean"]
RACE_EXIT_CODE = 66

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")


def run_cases(program: Path) -> dict[str, str]:
    done = subprocess.run([program], capture_output=True, text=True, timeout=120)
    assert not done.stderr, done.stderr
    assert done.returncode in (0, 1), f"the program ended with {done.returncode}: {done.stdout}"
    return dict(line.split("\t", 1) for line in done.stdout.splitlines() if "\t" in line)


@pytest.fixture(scope="module")
def outcomes() -> dict[str, str]:
    return run_cases(build_program("emulator_unit", UNITS))


@pytest.mark.parametrize("case", CASES)
def test_case_holds(outcomes: dict[str, str], case: str) -> None:
    assert outcomes.get(case, "did not run") == "ok"


def test_all_cases_hold_with_the_portable_switch_between_fibers() -> None:
    program = build_program("emulator_portable", UNITS, ["-DPOD_EMULATOR_UCONTEXT", "-O0"])
    assert run_cases(program) == dict.fromkeys(CASES, "ok")


@pytest.fixture(scope="module")
def races() -> Path:
    return build_program("emulator_races", [RACES], TSAN_FLAGS)


def run_races(program: Path, kernel: str) -> subprocess.CompletedProcess[str]:
    # ThreadSanitizer's map of addresses does not hold with much address randomization.
    without_randomization = ["setarch", "-R"] if shutil.which("setarch") else []
    return subprocess.run(
        [*without_randomization, str(program), kernel],
        capture_output=True,
        text=True,
        timeout=120,
        env={"TSAN_OPTIONS": f"exitcode={RACE_EXIT_CODE} atexit_sleep_ms=0"},
    )


def test_thread_sanitizer_finds_nothing_in_a_clean_pipeline(races: Path) -> None:
    done = run_races(races, "clean")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("kernel", RACY)
def test_thread_sanitizer_finds_the_race(races: Path, kernel: str) -> None:
    done = run_races(races, kernel)
    assert done.returncode == RACE_EXIT_CODE, done.stderr
    assert "WARNING: ThreadSanitizer: data race" in done.stderr
    assert kernel in done.stderr, "the report names the kernel"
