"""Bugs planted in the kernel are caught by running it, every one by name."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import mutations
import pytest

from pod_integrate.testing.emulator_build import build_changed
from pod_integrate.variants import Variant

# Every way of the kernel: Q in registers and in shared memory, one and two stages, decode items
# on one and on two warps, several of them in a CTA.
VARIANTS = (
    "bf16-d64-p64x32s2w2-d16x32s2w2-c2-v2",
    "bf16-d64-p32x32s1w2-d16x32s1w1-c2-v2",
)
RUNNER = Path(__file__).parent / "mutation_runner.py"


def run_all(pairs: list[str]) -> dict[int, dict[str, Any]]:
    """Results by number; a bug that ends the process is caught by that."""
    results: dict[int, dict[str, Any]] = {}
    last = len(mutations.MUTATIONS)
    while len(results) <= last:
        command = [sys.executable, str(RUNNER), str(len(results)), str(last), *pairs]
        done = subprocess.run(command, capture_output=True, text=True, timeout=600)
        for line in done.stdout.splitlines():
            result = json.loads(line)
            results[result["number"]] = result
        if len(results) <= last:
            assert results, done.stderr
            why = f"the process ended with {done.returncode}"
            results[len(results)] = {"number": len(results), "why": why, "shape": "?", "runs": 1}
    return results


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[int, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("mutations")
    cuda = mutations.plant(folder)
    libraries = {name: folder / f"{name}.so" for name in VARIANTS}
    with ThreadPoolExecutor(2) as pool:
        jobs = [
            pool.submit(build_changed, Variant.parse(name), cuda, path)
            for name, path in libraries.items()
        ]
        for job in jobs:
            job.result()
    return run_all([f"{name}={path}" for name, path in libraries.items()])


def test_kernel_without_a_bug_passes(results: dict[int, dict[str, Any]]) -> None:
    assert results[0]["why"] is None, results[0]


def test_there_are_enough_bugs_and_their_names_differ() -> None:
    names = [mutation.name for mutation in mutations.MUTATIONS]
    assert len(names) >= 20 and len(set(names)) == len(names)


@pytest.mark.parametrize(
    "number", range(1, len(mutations.MUTATIONS) + 1), ids=[m.name for m in mutations.MUTATIONS]
)
def test_bug_is_caught(
    results: dict[int, dict[str, Any]],
    number: int,
    record_property: Callable[[str, object], None],
) -> None:
    record_property("caught", {"bug": mutations.MUTATIONS[number - 1].name, **results[number]})
    assert results[number]["why"] is not None, f"passed {results[number]['runs']} runs"
