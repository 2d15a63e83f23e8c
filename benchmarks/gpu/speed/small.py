"""Small batches in CTAs that run both ops, against the default's tiles in one launch, in turns.

    python -m benchmarks.gpu small

What an op needs at least is short there, so that what a launch costs decides: how long a CTA takes
for its only item, and how many turns the items take. Cold L2, CUDA events, page size 16; prefill
alone, and beside decodes that read little.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import itertools
import statistics
import time
from typing import Any

import torch

from benchmarks.gpu.common import machine as machine_report
from benchmarks.gpu.common.compiled import compile_together, workers
from benchmarks.gpu.common.machines import Backend, backend
from benchmarks.gpu.common.output import Output, add_output
from benchmarks.gpu.common.timing import ColdTimer
from benchmarks.gpu.speed.cases import default_of, make_case, sized
from benchmarks.gpu.speed.summary import geomean
from pod_integrate.devices.cuda.batch_tiles import all_of
from pod_integrate.devices.cuda.limits import pair_tiles
from pod_integrate.devices.cuda.variants import Variant, with_tiles
from pod_integrate.measure.accuracy import BF16_TOLERANCE
from pod_integrate.model.floors import CaseSpec
from pod_integrate.terms.config import PodConfig

_REPEATS = 12
_HEADS = ((32, 8, 128), (8, 1, 128), (16, 16, 128), (64, 8, 64), (9, 3, 64), (32, 32, 96))
_CHUNKS = (
    *((n, n) for n in (64, 128, 256, 512, 768, 1024)),
    *((128, 2048), (256, 4096), (512, 2048)),
)
_DECODES = ((0, 0), (4, 1024), (16, 1024), (32, 2048))
TILES = ("1:1", "both ops in a CTA")
CONFIGS = ("default", *TILES)


def specs() -> list[CaseSpec]:
    """Every chunk with every set of decodes; none of these: decodes is 0."""
    return [
        CaseSpec(f"{q}/{kv}/{d} {new}@{keys} + {n}@{at}", q, kv, new, keys, n, at, d, 16)
        for (q, kv, d), (new, keys), (n, at) in itertools.product(_HEADS, _CHUNKS, _DECODES)
    ]


def configs_of(machine: Backend, spec: CaseSpec) -> list[PodConfig]:
    """As CONFIGS: the default, which leaves it to the batch, and two that do not."""
    default = default_of(machine, spec)
    closed = dataclasses.replace(default, prefill_ctas=1, decode_ctas=1)
    return [default, closed, with_tiles(closed, pair_tiles(spec.head_dim))]


def measure(machine: Backend, spec: CaseSpec, timer: ColdTimer) -> dict[str, Any]:
    """Medians in us by CONFIGS, and by how much their answers differ."""
    case = make_case(spec, machine.device)
    calls = [functools.partial(machine.attend, case, c) for c in configs_of(machine, spec)]
    answers = [call().out.float() for call in calls]
    times = timer.each(calls * timer.repeats)
    us = {
        name: round(statistics.median(times[i :: len(CONFIGS)]), 2)
        for i, name in enumerate(CONFIGS)
    }
    return {"us": us, "difference": max(float((x - answers[0]).abs().max()) for x in answers)}


def summarize(cases: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Whether the answers agree, and the geometric mean, least and most of the gains."""
    gains = [entry["us"][TILES[0]] / entry["us"][TILES[1]] for entry in cases.values()]
    spread = {"geomean": geomean(gains), "min": min(gains), "max": max(gains)} if gains else None
    return {
        "agree": all(entry["difference"] < BF16_TOLERANCE for entry in cases.values()),
        "batches": len(gains),
        "gain": spread and {name: round(gain, 4) for name, gain in spread.items()},
    }


def main(arguments: list[str] | None = None) -> None:
    """Print one line per batch, save small.json."""
    options = _parse(arguments)
    machine, output = backend(options.backend), Output(options.out, "small")
    wanted = [sized(machine, spec) if machine.tiny else spec for spec in specs()][: options.limit]
    document: dict[str, Any] = {"machine": machine_report.report(), "cases": {}, "not_run": []}
    if not machine.tiny:
        document["compile_seconds"] = round(
            compile_together(machine, _variants(machine, wanted), workers()), 1
        )
    timer, until = ColdTimer(machine, options.repeats), time.monotonic() + options.seconds
    with torch.inference_mode():
        for spec in wanted:
            if time.monotonic() > until:
                document["not_run"].append(spec.name)
                continue
            entry = document["cases"][spec.name] = measure(machine, spec, timer)
            print(f"{spec.name}: {entry['us']}", flush=True)
    document["summary"] = summarize(document["cases"])
    output.save(document)
    print(document["summary"])


def _variants(machine: Backend, wanted: list[CaseSpec]) -> list[Variant]:
    """Of all configs, and of what batches run in their place."""
    found = {(c, s.geometry) for s in wanted for c in configs_of(machine, s)}
    return [Variant.of(each, g) for c, g in found for each in all_of(c, g, machine.runs.key)]


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="small", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=_REPEATS, help="of each time")
    parser.add_argument("--limit", type=int, default=999, help="batches to measure")
    parser.add_argument("--seconds", type=float, default=120.0, help="start no batch after these")
    add_output(parser)
    return parser.parse_args(arguments)
