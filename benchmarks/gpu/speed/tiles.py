"""Other tiles against the default config: the published cases and page size 1, calls in turns.

    python -m benchmarks.gpu tiles --tiles p128x128s2w8-d16x64s1w4-c1-v1 --splits 2048 4096

Cold L2, CUDA events; a call of every config in each turn, so that clocks favour none. Of the
default config the two launches of `serial` are timed as well. Answers are compared with the
default's. What each op attains beside the other is asked of the kernel in one call more, and in
one whose decodes read K and V out of L2, which tells what binds them.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import statistics
import time
from typing import Any

import torch

from benchmarks.gpu.common import machine as machine_report
from benchmarks.gpu.common.compiled import compile_together, workers
from benchmarks.gpu.common.machines import Backend, backend
from benchmarks.gpu.common.output import Output, add_output
from benchmarks.gpu.common.timing import ColdTimer
from benchmarks.gpu.speed.beside import both_ways
from benchmarks.gpu.speed.cases import Part, default_of, find, make_case, sized
from benchmarks.gpu.speed.summary import geomean
from pod_integrate.devices.cuda.choices import PAIRS, PAIRS_BELOW_128, tiles_of
from pod_integrate.devices.cuda.decode_rows import require_group
from pod_integrate.devices.cuda.limits import require_fits
from pod_integrate.devices.cuda.variants import Variant, with_tiles
from pod_integrate.errors import ConfigInfeasibleError
from pod_integrate.measure.accuracy import BF16_TOLERANCE
from pod_integrate.model.floors import CASES, CaseSpec, cost_of
from pod_integrate.terms.config import PodConfig

_REPEATS = 20
_PARTS: tuple[Part, ...] = ("all", "prefill", "decode")
# As SGLang has them: one token to a page. By these and the published cases the planner's choice of
# tiles is judged.
CASES_PAGE_1 = tuple(
    CaseSpec(f"{q}/{kv}/{d} {chunk}@{context} + {n}@{at}", q, kv, chunk, context, n, at, d, 1)
    for q, kv, d, chunk, context, n, at in (
        (32, 8, 128, 512, 8192, 64, 4096),
        (32, 8, 128, 2048, 2048, 32, 2048),
        (32, 8, 128, 4096, 8192, 128, 4096),
        (32, 8, 128, 8192, 8192, 16, 8192),
        (32, 8, 128, 8192, 8192, 64, 8192),
        (32, 8, 128, 128, 128, 8, 512),
        (32, 8, 128, 512, 512, 32, 1024),
        (32, 8, 128, 1024, 8192, 16, 8192),
        (32, 8, 128, 2048, 16384, 16, 16384),
        (32, 8, 128, 2048, 8192, 32, 8192),
        (8, 1, 128, 2048, 8192, 32, 8192),
        (8, 1, 128, 8192, 8192, 8, 8192),
        (16, 16, 128, 512, 2048, 32, 2048),
        (32, 32, 128, 4096, 4096, 16, 4096),
        (32, 8, 64, 4096, 8192, 128, 8192),
        (64, 8, 64, 2048, 8192, 64, 4096),
        (64, 8, 64, 512, 512, 8, 1024),
        (9, 3, 64, 1024, 2048, 64, 2048),
        (9, 3, 64, 2048, 2048, 16, 4096),
        (32, 32, 96, 2048, 2048, 16, 2048),
        (32, 32, 96, 512, 4096, 16, 4096),
        (32, 32, 96, 4096, 8192, 32, 4096),
        (32, 8, 96, 2048, 8192, 64, 4096),
    )
)
Configs = dict[str, PodConfig]


def configs_of(machine: Backend, spec: CaseSpec, tiles: list[str], splits: list[int]) -> Configs:
    """The default fused and serial, and the tiles that fit, with each length of decode items."""
    default = default_of(machine, spec)
    found = {
        "default": default,
        # Its own tiles in one launch, whatever it leaves to the batch.
        "1:1": dataclasses.replace(default, prefill_ctas=1, decode_ctas=1),
        "streams": dataclasses.replace(default, strategy="streams"),
        "serial": dataclasses.replace(default, strategy="serial"),
    }
    for name in tiles:
        config = with_tiles(default, tiles_of(name))
        try:
            require_fits(config, machine.arch, spec.head_dim)
            require_group(config, spec.geometry)
        except ConfigInfeasibleError:
            continue
        for split in splits:
            found[f"{name}, {split}"] = dataclasses.replace(config, decode_split_tokens=split)
    return found


def measure(
    machine: Backend, spec: CaseSpec, part: Part, configs: Configs, timer: ColdTimer
) -> dict[str, Any]:
    """Medians in us by config, of `part` of a case; what is off or fails is told in its place."""
    case = make_case(spec, machine.device, part)
    entry: dict[str, Any] = {"us": {}, "difference": {}, "errors": {}}
    answer = machine.attend(case, configs["default"]).out.float()
    running = {}
    for name, config in configs.items():
        try:
            out = machine.attend(case, config).out.float()
            machine.synchronize()
        except Exception as error:
            entry["errors"][name] = f"{type(error).__name__}: {error}"[:500]
            continue
        entry["difference"][name] = float((out - answer).abs().max())
        running[name] = functools.partial(machine.attend, case, config)
    times = timer.each(list(running.values()) * timer.repeats)
    for place, name in enumerate(running):
        entry["us"][name] = round(statistics.median(times[place :: len(running)]), 2)
    if part == "all":
        entry["beside"] = {
            name: both_ways(machine, spec, case, configs[name])
            for name in running
            if name not in ("streams", "serial")
        }
    return entry


def rates(spec: CaseSpec, us: dict[str, dict[str, float]]) -> dict[str, dict[str, float]]:
    """By config: TFLOP/s of the prefill alone, TB/s of the decodes alone, both of all at once."""
    cost = cost_of(spec.lengths, spec.geometry)
    tera = {"TFLOP/s": cost.prefill_flops / 1e6, "TB/s": cost.decode_bytes / 1e6}
    wanted = (("prefill", "TFLOP/s"), ("decode", "TB/s"), ("all", "TFLOP/s"), ("all", "TB/s"))
    return {
        f"{part}, {unit}": {name: round(tera[unit] / t, 3) for name, t in us[part].items()}
        for part, unit in wanted
        if part in us
    }


def summarize(cases: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Geometric mean of the default's time over each config's, of whole cases, and how many."""
    ratios: dict[str, list[float]] = {}
    for entry in cases.values():
        us = entry["parts"].get("all", {}).get("us", {})
        for name, t in us.items():
            ratios.setdefault(name, []).append(us["default"] / t)
    agree = [
        difference < BF16_TOLERANCE
        for entry in cases.values()
        for part in entry["parts"].values()
        for difference in part["difference"].values()
    ]
    means = {name: [round(geomean(found), 4), len(found)] for name, found in ratios.items()}
    return {"agree": all(agree), "default_over": means}


def _wanted(machine: Backend, limit: int, names: list[str]) -> list[CaseSpec]:
    if names:
        ours = {spec.name: sized(machine, spec) for spec in CASES_PAGE_1}
        return [ours[n] if n in ours else find(machine, n) for n in names][:limit]
    every = [*CASES, *CASES_PAGE_1]
    if machine.tiny:
        every = [spec._replace(page_size=min(spec.page_size, 16)) for spec in every]
    return [sized(machine, spec) for spec in every][:limit]


def main(arguments: list[str] | None = None) -> None:
    """Print one line per case and part, save tiles.json after each."""
    options = _parse(arguments)
    machine, output = backend(options.backend), Output(options.out, "tiles")
    wanted = _wanted(machine, options.limit, options.cases)
    configs = {spec: configs_of(machine, spec, options.tiles, options.splits) for spec in wanted}
    document: dict[str, Any] = {"machine": machine_report.report(), "cases": {}, "not_run": []}
    if not machine.tiny:
        variants = [
            Variant.of(c, s.geometry) for s, found in configs.items() for c in found.values()
        ]
        document["compile_seconds"] = round(compile_together(machine, variants, workers()), 1)
    timer, until = ColdTimer(machine, options.repeats), time.monotonic() + options.seconds
    with torch.inference_mode():
        for part in _PARTS:
            for spec in wanted:
                if time.monotonic() > until:
                    document["not_run"].append(f"{spec.name}, {part}")
                    continue
                entry = document["cases"].setdefault(spec.name, {"parts": {}})
                found = measure(machine, spec, part, configs[spec], timer)
                entry["parts"][part] = found
                entry["rates"] = rates(spec, {p: e["us"] for p, e in entry["parts"].items()})
                document["summary"] = summarize(document["cases"])
                output.save(document)
                print(f"{spec.name}, {part}: {found['us']} {found['errors'] or ''}", flush=True)
    output.save(document)
    print(document.get("summary"))


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="tiles", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--tiles",
        nargs="+",
        default=[*PAIRS, *PAIRS_BELOW_128],
        help="names as in a variant's (default: of CTAs that run both ops)",
    )
    parser.add_argument(
        "--splits", nargs="+", type=int, default=[4096], help="decode_split_tokens of them"
    )
    parser.add_argument(
        "--cases",
        nargs="+",
        default=[],
        metavar="CASE",
        help="these, as numbers --cases has them, or of page size 1 by their whole name",
    )
    parser.add_argument("--repeats", type=int, default=_REPEATS, help="of each time")
    parser.add_argument("--limit", type=int, default=99, help="cases to measure")
    parser.add_argument("--seconds", type=float, default=150.0, help="start no case after these")
    add_output(parser)
    return parser.parse_args(arguments)
