"""The op on a device against a float64 reference: every shape, feature, strategy and config.

The pass rule is that of the tests (pod_integrate.measure.accuracy); long and extreme inputs have
the law of accuracy_law. A failure is counted, named and followed by the next check.
"""

from __future__ import annotations

import argparse
import functools
import time
import traceback
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch

from benchmarks.gpu.common import machine as machine_report
from benchmarks.gpu.common.compiled import compile_together, workers
from benchmarks.gpu.common.machines import Backend, backend, moved
from benchmarks.gpu.common.output import Output, add_output
from benchmarks.gpu.correctness import device
from benchmarks.gpu.correctness.accuracy import AccuracyChecks
from benchmarks.gpu.correctness.cases import (
    Check,
    all_checks,
    byte_checks,
    feasible,
    tiles_checks,
    tiny_byte_checks,
    tiny_checks,
)
from pod_integrate.devices.cuda.variants import Variant
from pod_integrate.measure.accuracy import assert_matches_reference
from pod_integrate.measure.batches import Case, dequantised

_SAVE_EVERY = 20


class Tally:
    """Names of what passed and failed; failures with their text.

    told  what else the document says
    """

    def __init__(self, output: Output) -> None:
        self.passed: list[str] = []
        self.failed: dict[str, str] = {}
        self.not_run: list[str] = []
        self.told: dict[str, Any] = {}
        self._output = output
        self._began = time.monotonic()

    def run(self, name: str, check: Callable[[], None]) -> None:
        """Count one check; only a lost device ends the sweep."""
        try:
            check()
        except Exception as error:
            text = f"{type(error).__name__}: {error}"
            self.failed[name] = text[:600]
            print(f"FAILED {name}: {text[:300]}", flush=True)
            if not isinstance(error, AssertionError):
                print("".join(traceback.format_tb(error.__traceback__)[-4:]), flush=True)
            if _device_is_lost(error):
                raise
        else:
            self.passed.append(name)
        if (len(self.passed) + len(self.failed)) % _SAVE_EVERY == 0:
            self.save()

    def document(self) -> dict[str, Any]:
        """Counts and names."""
        return {
            **self.told,
            "passed": len(self.passed),
            "failed": len(self.failed),
            "not_run": len(self.not_run),
            "seconds": round(time.monotonic() - self._began, 1),
            "failures": self.failed,
            "not_run_names": self.not_run,
            "passed_names": self.passed,
        }

    def save(self) -> None:
        """Write what is known so far."""
        self._output.save(self.document())


def _device_is_lost(error: Exception) -> bool:
    # After these every later call fails for the same reason.
    text = str(error)
    lost = ("illegal memory access", "unspecified launch failure", "misaligned address")
    return any(sign in text for sign in (*lost, "illegal instruction", "device-side assert"))


def sweep(machine: Backend, checks: Iterable[Check], tally: Tally, until: float) -> None:
    """Run checks until the clock (time.monotonic) says `until`; the rest is listed as not run."""
    for check in checks:
        if not feasible(check, machine.arch) or time.monotonic() > until:
            tally.not_run.append(check.name)
            continue
        tally.run(check.name, lambda check=check: _one(machine, check))  # type: ignore[misc]


def accuracy(machine: Backend, tally: Tally, until: float) -> None:
    """As sweep, for the cases of the law."""
    checks = AccuracyChecks(machine)
    try:
        for name, check in checks:
            if time.monotonic() > until:
                tally.not_run.append(name)
            else:
                tally.run(name, check)
    finally:
        tally.told["accuracy"] = checks.document()


def _one(machine: Backend, check: Check) -> None:
    case = moved(check.make(), machine.device)
    features = check.features(machine.device)
    out = torch.full_like(case.q, float("nan"), memory_format=torch.contiguous_format)
    got = machine.attend(case, check.config, out=out, **features, **check.scales)
    machine.synchronize()
    exact = dequantised(case, **check.scales)
    assert_matches_reference(exact, got, rounded_weights=True, **features)


def _compiled(machine: Backend, checks: Iterable[Check]) -> float:
    wanted = [check for check in checks if feasible(check, machine.arch)]
    variants = (Variant.of(check.config, check.geometry) for check in wanted)
    return round(compile_together(machine, variants, workers()), 1)


def repeated(machine: Backend, case: Case, check: Check, times: int) -> None:
    """Every repeat and strategy gives the same bits; a moving answer is a race."""
    features = check.features(machine.device)
    first = machine.attend(case, check.config, **features)
    for _ in range(times):
        again = machine.attend(case, check.config, **features)
        assert torch.equal(again.out, first.out), "out differs between two runs on the same inputs"
        assert torch.equal(again.lse, first.lse), "lse differs between two runs on the same inputs"


def run(machine: Backend, output: Output, seconds: float) -> dict[str, Any]:
    """The whole sweep on a machine; device-only checks first, because they are few."""
    tally = Tally(output)
    tally.told["machine"] = machine_report.report()
    arch = machine.arch
    checks = list(all_checks(arch) if not machine.tiny else tiny_checks(arch))
    of_bytes = list(byte_checks(arch) if not machine.tiny else tiny_byte_checks(arch))
    if not machine.tiny:
        tally.told["compile_seconds"] = _compiled(machine, [*of_bytes, *checks])
    until = time.monotonic() + seconds
    try:
        if not machine.tiny:
            for name, check in device.device_checks(machine):
                tally.run(name, check)
        case = moved(checks[0].make(), machine.device)
        times = 50 if not machine.tiny else 1
        tally.run("same bits every time", lambda: repeated(machine, case, checks[0], times))
        accuracy(machine, tally, until)
        sweep(machine, [*of_bytes, *checks], tally, until)
    finally:
        tally.save()
    return tally.document()


def run_tiles(
    machine: Backend, output: Output, seconds: float, tiles: Sequence[str]
) -> dict[str, Any]:
    """Every shape with given tiles, and many times the first that each variant has."""
    tally = Tally(output)
    tally.told["machine"] = machine_report.report()
    every = tiles_checks(machine.arch, tiles, machine.tiny)
    checks = [check for check in every if feasible(check, machine.arch)]
    if not machine.tiny:
        tally.told["compile_seconds"] = _compiled(machine, checks)
    until = time.monotonic() + seconds
    times = 50 if not machine.tiny else 1
    first = {Variant.of(check.config, check.geometry): check for check in reversed(checks)}
    try:
        for variant, check in first.items():
            case = moved(check.make(), machine.device)
            name = f"same bits every time, {variant.name}"
            tally.run(name, functools.partial(repeated, machine, case, check, times))
        sweep(machine, checks, tally, until)
    finally:
        tally.save()
    return tally.document()


def main(arguments: list[str] | None = None) -> None:
    """Print failures and counts, save checks.json."""
    parser = argparse.ArgumentParser(prog="checks", description=(__doc__ or "").split("\n")[0])
    parser.add_argument(
        "--seconds",
        type=float,
        default=240.0,
        help="start no check after these; compiling comes first and is not counted",
    )
    parser.add_argument(
        "--tiles",
        nargs="+",
        default=[],
        metavar="NAME",
        help="only these tiles, as in a variant's name, into checks_tiles.json",
    )
    add_output(parser)
    options = parser.parse_args(arguments)
    machine = backend(options.backend)
    if options.tiles:
        output = Output(options.out, "checks_tiles")
        result = run_tiles(machine, output, options.seconds, options.tiles)
    else:
        result = run(machine, Output(options.out, "checks"), options.seconds)
    print(
        f"passed {result['passed']}, failed {result['failed']}, not run {result['not_run']} "
        f"in {result['seconds']} s; {result.get('accuracy', '')}"
    )
