"""What a batch's attention draws: watts, SM clock and joules of each op alone, and of both.

    python -m benchmarks.gpu power

Every kind of call is repeated for a while, nothing between, as a server's layers do, and
nvidia-smi is asked meanwhile. A GPU at its power limit turns its clock down: then time is energy,
and a launch is as quick as it is frugal. `energy_us` is the time in which the limit pays for the
joules of both ops alone, less those of idling for the time saved: a launch of both that takes less
does the same work with fewer joules, at a lower clock.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch

from benchmarks.gpu.common import machine as machine_report
from benchmarks.gpu.common.machines import Backend, backend
from benchmarks.gpu.common.output import Output, add_output
from benchmarks.gpu.speed.cases import make_case, sized
from benchmarks.gpu.speed.host import kinds
from pod_integrate.errors import PodAttentionError
from pod_integrate.model.floors import CASES, CaseSpec

_WANTED = ("C0", "C1", "figure 14, Yi-6B", "figure 14, Llama-3-8B", "FlashInfer 4K/4K")
_FIELDS = "power.draw.instant,clocks.sm,power.limit"
_EVERY_MS = 20
# Of a time during which clocks settle.
_LEFT_OUT = 0.4


class MeterError(PodAttentionError):
    """nvidia-smi told nothing that can be used."""


class Sample(NamedTuple):
    """One answer of nvidia-smi: watts, MHz, watts allowed."""

    watts: float
    mhz: float
    limit: float


def parse(text: str) -> list[Sample]:
    """Samples of nvidia-smi's CSV without units; lines that a kill cut off are left out."""
    found = []
    for line in text.splitlines():
        with contextlib.suppress(ValueError, TypeError):
            found.append(Sample(*(float(field) for field in line.split(","))))
    return found


@contextlib.contextmanager
def meter() -> Iterator[Callable[[], str]]:
    """nvidia-smi asked every _EVERY_MS while inside; the function ends it and gives its lines."""
    command = ["nvidia-smi", f"--query-gpu={_FIELDS}", "--format=csv,noheader,nounits"]
    # Not by number: nvidia-smi counts GPUs that CUDA_VISIBLE_DEVICES hides.
    gpu = f"GPU-{torch.cuda.get_device_properties().uuid}"
    command += ["--loop-ms", str(_EVERY_MS), "--id", gpu]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:

        def stop() -> str:
            process.terminate()
            return process.communicate()[0]

        yield stop
    finally:
        process.kill()
        process.wait()


def drawn(samples: list[Sample], calls: int, seconds: float) -> dict[str, float]:
    """Medians over the samples after clocks have settled; `calls` took `seconds` in all.

    Raises MeterError without enough samples.
    """
    kept = samples[int(len(samples) * _LEFT_OUT) :]
    if len(kept) < 5:
        raise MeterError(
            f"nvidia-smi gave {len(samples)} samples of {_FIELDS} in {seconds:.1f} s; at least 9 "
            "are needed: try longer --each, or see whether it can read this GPU's power"
        )
    watts = statistics.median(s.watts for s in kept)
    us = seconds / calls * 1e6
    return {
        "us": round(us, 2),
        "watts": round(watts, 1),
        "ghz": round(statistics.median(s.mhz for s in kept) / 1e3, 3),
        "joules": watts * us / 1e6,
        "limit": kept[-1].limit,
    }


def repeat(machine: Backend, work: Callable[[], object], seconds: float) -> tuple[int, float]:
    """Calls and seconds of `work` queued again and again for about so long."""
    machine.synchronize()
    begin, calls = time.perf_counter(), 0
    while time.perf_counter() - begin < seconds:
        for _ in range(8):
            work()
        calls += 8
        machine.synchronize()
    return calls, time.perf_counter() - begin


def energy_us(found: dict[str, dict[str, float]], idle_watts: float) -> float:
    """The time of both ops at once were their joules those of each alone; see the module.

    With t that time, limit * t = joules of both alone - idle * (us of both alone - t).
    """
    alone = [found["prefill alone"], found["decode alone"]]
    joules, us = (sum(entry[name] for entry in alone) for name in ("joules", "us"))
    limit = alone[0]["limit"]
    return (joules * 1e6 - idle_watts * us) / (limit - idle_watts)


def measure(machine: Backend, spec: CaseSpec, each: float) -> dict[str, Any]:
    """Every kind of call of `host` on the case, by name."""
    cases = {part: make_case(spec, machine.device, part) for part in ("all", "prefill", "decode")}
    found = {}
    for name, (part, config) in kinds(machine, spec).items():
        work = functools.partial(machine.attend, cases[part], config)
        work()
        with meter() as stop:
            calls, seconds = repeat(machine, work, each)
            found[name] = drawn(parse(stop()), calls, seconds)
    return found


def idle(seconds: float = 1.0) -> float:
    """Watts while nothing runs, some time after the last call."""
    time.sleep(seconds)
    with meter() as stop:
        time.sleep(seconds)
        return statistics.median(sample.watts for sample in parse(stop()))


def main(arguments: list[str] | None = None) -> None:
    """Print a line per kind of call, save power.json after each case."""
    options = _parse(arguments)
    machine, output = backend(options.backend), Output(options.out, "power")
    document: dict[str, Any] = {"machine": machine_report.report(), "cases": {}}
    torch.zeros(1, device=machine.device)
    document["idle_watts"] = idle()
    with torch.inference_mode():
        for spec in (spec for spec in CASES if spec.name in options.cases):
            entry = measure(machine, sized(machine, spec), options.each)
            floor = energy_us(entry, document["idle_watts"])
            document["cases"][spec.name] = {"calls": entry, "energy_us": round(floor, 1)}
            output.save(document)
            for name, told in entry.items():
                shown = "{us:.1f} us, {watts:.0f} W of {limit:.0f}, {ghz:.2f} GHz".format(**told)
                print(f"{spec.name}, {name}: {shown}, {told['joules']:.3f} J", flush=True)
            print(f"{spec.name}: {floor:.0f} us by energy", flush=True)


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="power", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = [spec.name for spec in CASES]
    parser.add_argument(
        "--cases", nargs="+", default=list(_WANTED), choices=names, metavar="CASE",
        help=f"of the published ones: {', '.join(names)}",
    )  # fmt: skip
    parser.add_argument("--each", type=float, default=1.2, help="seconds per kind of call")
    add_output(parser, refused={"emulator": "the emulated SM draws no power of its own"})
    return parser.parse_args(arguments)
