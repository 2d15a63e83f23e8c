"""Runs the CUDA kernel's tests on the emulated GPU and files what they proved.

    python benchmarks/kernel_proof.py

The emulated suite compares the kernel's own source with float64, shapes x variants x schedules; the
mutation test plants bugs in it one by one, and each must be noticed. Takes two minutes on two
cores, needs a checkout, and files nothing unless every test passes.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks import _results
from pod_integrate.builds import nvcc

COMMAND = "python benchmarks/kernel_proof.py"
FOLDER = Path(__file__).resolve().parent.parent / "tests" / "kernels"
SUITE, MUTATIONS = "test_emulated_kernel.py", "test_mutations.py"
_BUG = "::test_bug_is_caught["


class Counter:
    """A pytest plugin: passed tests by file, and how each planted bug was caught.

    passed  file name -> test cases that passed
    bugs    planted, caught or not
    caught  what the mutation test recorded: bug, shape and words of the first failure
    """

    def __init__(self) -> None:
        self.passed: dict[str, int] = {}
        self.bugs = 0
        self.caught: list[Any] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when != "call":
            return
        file = Path(report.fspath).name
        self.bugs += _BUG in report.nodeid
        if report.passed:
            self.passed[file] = self.passed.get(file, 0) + 1
            self.caught += [value for name, value in report.user_properties if name == "caught"]


def prove() -> Counter:
    """Run both files in this process; exits with pytest's code unless everything passed."""
    paths = [FOLDER / SUITE, FOLDER / MUTATIONS]
    missing = [str(path) for path in paths if not path.exists()]
    if missing:
        sys.exit(f"{', '.join(missing)} not found; run this in a checkout of the repository")
    counter = Counter()
    code = pytest.main([*map(str, paths)], plugins=[counter])
    if code != pytest.ExitCode.OK:
        print("tests failed: no result is written", file=sys.stderr)
        sys.exit(code)
    return counter


def main() -> None:
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    counter = prove()
    cases = counter.passed[SUITE]
    document = {
        "command": COMMAND,
        "library": nvcc.library_id(),
        "emulated_cases": cases,
        "mutations_total": counter.bugs,
        "mutations_caught": len(counter.caught),
        "mutations": [{key: bug[key] for key in ("bug", "shape", "why")} for bug in counter.caught],
    }
    path = _results.write("kernel_proof", document)
    _results.record_headline("kernel.emulated_cases", cases, "cases", COMMAND)
    _results.record_headline("kernel.mutations_caught", len(counter.caught), "bugs", COMMAND)
    _results.record_headline("kernel.mutations_total", counter.bugs, "bugs", COMMAND)
    print(f"{path}: {cases} cases pass, {len(counter.caught)} of {counter.bugs} bugs caught")


if __name__ == "__main__":
    main()
