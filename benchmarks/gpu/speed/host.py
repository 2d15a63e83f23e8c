"""What a layer's attention costs the host: time to queue a call, and time that its stream sees.

A step's layers share a plan, so calls here share one batch. Batches are small, so that the device
waits for the host, as it does under a small model: then the time between two events around a call
is that of the host, whatever the kernels take. `queue_us` is the host's own; `stream_us` is from
event to event, `kernels_us` that of the same calls queued ahead while the device was kept busy.
Kinds of calls take turns, since a host is at times slower by half for a second.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import itertools
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch

from benchmarks.gpu.common import machine as machine_report
from benchmarks.gpu.common.machines import Backend, backend
from benchmarks.gpu.common.output import Output, add_output
from benchmarks.gpu.speed.cases import Part, default_of, make_case, sized
from pod_integrate.model.floors import CaseSpec
from pod_integrate.terms.config import PodConfig

# Rounds enough for each kind to come first as often.
_CALLS, _ROUNDS = 32, 18
# Of SmolLM2-135M and of Llama-3-8B: a chunk beside running requests.
SPECS = (
    CaseSpec("9/3 heads of 64", 9, 3, 512, 512, 16, 512, head_dim=64, page_size=1),
    CaseSpec("32/8 heads of 128", 32, 8, 128, 128, 8, 256, page_size=1),
)
_BUSY_CYCLES = 40_000_000
Work = Callable[[], object]


def kinds(machine: Backend, spec: CaseSpec) -> dict[str, tuple[Part, PodConfig]]:
    """Name of a call -> which requests it attends, with which config."""
    default = default_of(machine, spec)
    mixed = dataclasses.replace(default, prefill_ctas=1, decode_ctas=1)
    return {
        "default": ("all", default),
        "one launch": ("all", mixed),
        "side by side": ("all", dataclasses.replace(default, strategy="streams")),
        "one after the other": ("all", dataclasses.replace(default, strategy="serial")),
        "prefill alone": ("prefill", default),
        "decode alone": ("decode", default),
    }


def queue_us(machine: Backend, work: Work) -> list[float]:
    """Microseconds of the host per call of one step."""
    machine.synchronize()
    begin = time.perf_counter()
    for _ in range(_CALLS):
        work()
    found = (time.perf_counter() - begin) / _CALLS * 1e6
    machine.synchronize()
    return [found]


def stream_us(machine: Backend, work: Work, *, ahead: bool) -> list[float]:
    """Microseconds between events around each call of one step.

    ahead  the device is kept busy until all are queued: what is left is its own time
    """
    events = [torch.cuda.Event(enable_timing=True) for _ in range(_CALLS + 1)]
    machine.synchronize()
    if ahead:
        torch.cuda._sleep(_BUSY_CYCLES)
    events[0].record()
    for event in events[1:]:
        work()
        event.record()
    machine.synchronize()
    return [a.elapsed_time(b) * 1e3 for a, b in zip(events, events[1:], strict=False)]


def measure(machine: Backend, spec: CaseSpec) -> dict[str, dict[str, float]]:
    """Median times of every kind of call, in turns."""
    takes: dict[str, Callable[[Work], list[float]]] = {
        "queue_us": functools.partial(queue_us, machine)
    }
    if not machine.tiny:
        takes["stream_us"] = functools.partial(stream_us, machine, ahead=False)
        takes["kernels_us"] = functools.partial(stream_us, machine, ahead=True)
    calls: dict[str, Work] = {}
    for name, (part, config) in kinds(machine, spec).items():
        case = make_case(spec, machine.device, part)
        calls[name] = functools.partial(machine.attend, case, config)
        calls[name]()
    found: dict[str, dict[str, list[float]]] = {
        name: {take: [] for take in takes} for name in calls
    }
    for number, (take, times) in itertools.product(range(_ROUNDS), takes.items()):
        # The first after a pause takes longer.
        first = number % len(calls)
        names = list(calls)
        for name in names[first:] + names[:first]:
            found[name][take] += times(calls[name])
    return {
        name: {take: round(statistics.median(values), 2) for take, values in own.items()}
        for name, own in found.items()
    }


def main(arguments: list[str] | None = None) -> None:
    """Print one line per call, save host.json."""
    parser = argparse.ArgumentParser(prog="host", description=(__doc__ or "").split("\n")[0])
    add_output(parser)
    options = parser.parse_args(arguments)
    machine, output = backend(options.backend), Output(options.out, "host")
    document: dict[str, Any] = {"machine": machine_report.report(), "cases": {}}
    with torch.inference_mode():
        for spec in (sized(machine, spec) for spec in SPECS):
            document["cases"][spec.name] = found = measure(machine, spec)
            output.save(document)
            for name, times in found.items():
                print(f"{spec.name}, {name}: {times}", flush=True)
