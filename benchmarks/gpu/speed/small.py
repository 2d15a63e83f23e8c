"""Small batches in CTAs that run both ops, against the default's tiles, in turns.

    python -m benchmarks.gpu small

What an op needs at least is short there, so that what a launch costs decides: how long a CTA takes
for its only item, and how many turns the items take. Cold L2, CUDA events, page size 16; prefill
alone, and beside decodes that read little; then a sample of other geometries and lengths. The rule
that chooses between the two (`heavy_prefill.py`) is set aside while they are timed, and compared
with the quicker of both.
"""

from __future__ import annotations

import argparse
import itertools
import random
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any
from unittest import mock

import numpy as np
import torch

from benchmarks.gpu.common import machine as machine_report
from benchmarks.gpu.common.compiled import compile_together, workers
from benchmarks.gpu.common.counts import count
from benchmarks.gpu.common.machines import Backend, backend
from benchmarks.gpu.common.output import Output, add_output
from benchmarks.gpu.common.timing import ColdTimer
from benchmarks.gpu.speed import batch_spec
from benchmarks.gpu.speed.batch_spec import GrammarSpec, spec_of
from benchmarks.gpu.speed.cases import default_of, make_case, sized
from benchmarks.gpu.speed.grammar_measure import medians
from benchmarks.gpu.speed.summary import geomean
from pod_integrate.devices.cuda import batch_tiles
from pod_integrate.devices.cuda.heavy_prefill import is_heavy
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
# The sample: every chunk beside every set of decodes, for more geometries, and a few tokens each.
_MORE_HEADS = (
    *((32, 8, 128), (32, 4, 128), (16, 8, 128), (64, 8, 128), (8, 1, 128), (16, 2, 128)),
    *((32, 32, 128), (64, 8, 64), (32, 8, 64), (14, 2, 64), (9, 3, 64), (16, 1, 64)),
    *((32, 32, 96), (24, 8, 96)),
)
_MORE_CHUNKS = ("q100", "q300", "q512", "q700s2000", "q256s3000", "q1k", "q1500", "q512s4k")
_MORE_DECODES = ("4q1s2000", "8q1s700", "16q1s1k", "24q1s1500", "48q1s1k", "16q1s4k")
_FEW_TOKENS = ("16q4s4k", "8q4s8k", "64q4s1k", "16q8s2k", "4q64s2k", "2q16s8k")
_SEED, _PAGE = 5, 16
TILES = ("default's tiles", "both ops in a CTA")
Small = CaseSpec | GrammarSpec


def specs() -> list[CaseSpec]:
    """Every chunk with every set of decodes; none of these: decodes is 0."""
    return [
        CaseSpec(f"{q}/{kv}/{d} {new}@{keys} + {n}@{at}", q, kv, new, keys, n, at, d, _PAGE)
        for (q, kv, d), (new, keys), (n, at) in itertools.product(_HEADS, _CHUNKS, _DECODES)
    ]


def sample() -> list[GrammarSpec]:
    """All of it in random order: as many as there is time for are a fair sample."""
    mixed = [f"{chunk}_{ones}" for chunk, ones in itertools.product(_MORE_CHUNKS, _MORE_DECODES)]
    every = itertools.product((*mixed, *_FEW_TOKENS), _MORE_HEADS)
    found = [spec_of(text, heads, _PAGE) for text, heads in every]
    random.Random(_SEED).shuffle(found)
    return found


def configs_of(machine: Backend, spec: Small) -> list[PodConfig]:
    """As TILES; the first leaves to the batch whether it runs as the second."""
    default = default_of(machine, spec)
    pair = with_tiles(default, pair_tiles(spec.head_dim))
    few = batch_tiles.few_config(pair, spec.geometry, machine.runs.key)
    return [default, few or pair]


def chosen(machine: Backend, spec: Small) -> str:
    """Which of TILES the default runs a batch with."""
    kinds = batch_tiles.others(default_of(machine, spec), spec.geometry, machine.runs.key)
    q_lens, kv_lens = map(np.array, spec.lengths)
    return TILES["heavy" in kinds and is_heavy(q_lens, kv_lens, spec.geometry)]


def measure(machine: Backend, spec: Small, timer: ColdTimer) -> dict[str, Any]:
    """Medians in us by TILES, which of them the default runs, by how much their answers differ."""
    case = make_case(spec, machine.device)

    def call(config: PodConfig) -> Callable[[], torch.Tensor]:
        return lambda: machine.attend(case, config).out

    calls = {
        name: call(config) for name, config in zip(TILES, configs_of(machine, spec), strict=True)
    }
    # No batch is heavy then; the second config names its tiles, which no rule replaces.
    with mock.patch.object(batch_tiles, "is_heavy", return_value=False):
        first, second = (one().float() for one in calls.values())
        us = medians(timer, calls, timer.repeats)
    difference = float((first - second).abs().max()) if first.numel() else 0.0
    return {"us": us, "chosen": chosen(machine, spec), "difference": difference}


def summarize(cases: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Whether answers agree; gains of CTAs for both ops, by what is chosen; what choosing loses.

    over_quicker  time of what is chosen over that of the quicker, geometric mean by head dim
    """
    by_choice = {name: [e for e in cases.values() if e["chosen"] == name] for name in TILES}
    dims: dict[str, list[float]] = {}
    for entry in cases.values():
        us = entry["us"]
        dims.setdefault(str(entry["head_dim"]), []).append(us[entry["chosen"]] / min(us.values()))
    return {
        "agree": all(e["difference"] < BF16_TOLERANCE for e in cases.values()) if cases else None,
        "batches": len(cases),
        "gain": {f"chosen: {name}": _spread(own) for name, own in by_choice.items() if own},
        "over_quicker": {dim: round(geomean(ratios), 4) for dim, ratios in sorted(dims.items())},
    }


def _spread(entries: Iterable[dict[str, Any]]) -> dict[str, float]:
    gains = [entry["us"][TILES[0]] / entry["us"][TILES[1]] for entry in entries]
    spread = {"geomean": geomean(gains), "min": min(gains), "max": max(gains)}
    return {"batches": len(gains), **{name: round(gain, 4) for name, gain in spread.items()}}


def main(arguments: list[str] | None = None) -> None:
    """Print one line per batch, save small.json."""
    options = _parse(arguments)
    machine, output = backend(options.backend), Output(options.out, "small")
    wanted = _wanted(machine, options)
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
            entry = {"head_dim": spec.head_dim, **measure(machine, spec, timer)}
            document["cases"][spec.name] = entry
            print(f"{spec.name}: {entry['us']}, chosen {entry['chosen']}", flush=True)
    document["summary"] = summarize(document["cases"])
    output.save(document)
    print(document["summary"])


def _wanted(machine: Backend, options: argparse.Namespace) -> list[Small]:
    grid, more = specs()[: options.limit], sample()[: options.sample]
    if not machine.tiny:
        return [*grid, *more]
    return [*(sized(machine, spec) for spec in grid), *map(batch_spec.tiny, more)]


def _variants(machine: Backend, wanted: Sequence[Small]) -> list[Variant]:
    """Of all configs, and of what batches run in their place."""
    found = {(c, s.geometry) for s in wanted for c in configs_of(machine, s)}
    every = ((each, g) for c, g in found for each in batch_tiles.all_of(c, g, machine.runs.key))
    return [Variant.of(each, geometry) for each, geometry in every]


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="small", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--repeats", type=count(), default=_REPEATS, help="of each time")
    add("--limit", type=count(0), default=999, help="batches to measure, of the grid")
    add("--sample", type=count(0), default=700, help="of the sample, beside them")
    parser.add_argument("--seconds", type=float, default=180.0, help="start no batch after these")
    add_output(parser)
    return parser.parse_args(arguments)
