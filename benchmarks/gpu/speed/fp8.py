"""Time over a cache of 8 bits against one of bf16: decodes, long and short, hybrids, chunks.

Both hold the same numbers, so that their answers must agree, and both run their default configs;
over the 8 bits other decode tiles are tried, and CTAs of a pair that run both ops. Cold L2, CUDA
events, calls of the two in turns.
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
import time
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch

from benchmarks.gpu.common import machine as machine_report
from benchmarks.gpu.common.compiled import compile_together, workers
from benchmarks.gpu.common.machines import Backend, backend
from benchmarks.gpu.common.output import Output, add_output
from benchmarks.gpu.common.timing import ColdTimer
from benchmarks.gpu.speed.cases import Part, make_case, sized
from benchmarks.gpu.speed.summary import geomean
from pod_integrate.devices.cuda import limits
from pod_integrate.devices.cuda.batch_tiles import all_of
from pod_integrate.devices.cuda.variants import Variant
from pod_integrate.errors import ConfigInfeasibleError
from pod_integrate.measure.accuracy import BF16_TOLERANCE
from pod_integrate.measure.batches import Case
from pod_integrate.model.floors import CaseSpec
from pod_integrate.terms.config import PodConfig, TileConfig
from pod_integrate.terms.keys import Geometry

_REPEATS = 30
_PARTS: tuple[Part, ...] = ("decode", "prefill")
_KIB = 1024
# Of these the first request, the chunk, is left out.
_DECODES = (
    CaseSpec("decode 4@32K, 32/8", 32, 8, 0, 0, 4, 32 * _KIB),
    CaseSpec("decode 16@32K, 32/8", 32, 8, 0, 0, 16, 32 * _KIB),
    CaseSpec("decode 32@32K, 32/8", 32, 8, 0, 0, 32, 32 * _KIB),
    CaseSpec("decode 32@32K, 16/4", 16, 4, 0, 0, 32, 32 * _KIB),
    CaseSpec("decode 32@32K, 8/1", 8, 1, 0, 0, 32, 32 * _KIB),
)
_HYBRID = (
    CaseSpec("hybrid 512@16K + 54@16K, 32/4", 32, 4, 512, 16 * _KIB, 54, 16 * _KIB),
    CaseSpec("hybrid 1K@12K + 80@12K, 16/4", 16, 4, 1024, 12 * _KIB, 80, 12 * _KIB),
    CaseSpec("hybrid 2K@16K + 64@16K, 32/8", 32, 8, 2048, 16 * _KIB, 64, 16 * _KIB),
    CaseSpec("hybrid 512@32K + 32@32K, 32/8", 32, 8, 512, 32 * _KIB, 32, 32 * _KIB),
)
# What a tile of long contexts may cost elsewhere.
_SHORT = (
    CaseSpec("short: decode 1@512, 32/8", 32, 8, 0, 0, 1, 512),
    CaseSpec("short: decode 8@1K, 32/8", 32, 8, 0, 0, 8, _KIB),
    CaseSpec("short: decode 64@2K, 32/8", 32, 8, 0, 0, 64, 2 * _KIB),
    CaseSpec("short: decode 128@700, 8/1", 8, 1, 0, 0, 128, 700),
    CaseSpec("short: hybrid 512@512 + 32@1K, 32/8", 32, 8, 512, 512, 32, _KIB),
    CaseSpec("short: hybrid 2K@2K + 64@2K, 32/8", 32, 8, 2048, 2 * _KIB, 64, 2 * _KIB),
)
# Of these the chunk only.
_PREFILL = (
    CaseSpec("prefill 2K@16K, 32/8", 32, 8, 2048, 16 * _KIB, 0, 0),
    CaseSpec("prefill 8K@8K, 32/8", 32, 8, 8 * _KIB, 8 * _KIB, 0, 0),
    CaseSpec("prefill 512@4K, 32/8", 32, 8, 512, 4 * _KIB, 0, 0),
    CaseSpec("prefill 128@2K, 32/8", 32, 8, 128, 2 * _KIB, 0, 0),
    CaseSpec("prefill 512@512, 32/8", 32, 8, 512, 512, 0, 0),
    CaseSpec("prefill 1K@1K, 32/8", 32, 8, _KIB, _KIB, 0, 0),
    CaseSpec("prefill 2K@2K, 8/1", 8, 1, 2 * _KIB, 2 * _KIB, 0, 0),
)
# Of a smaller head dim.
_NARROW = (
    CaseSpec("narrow: decode 32@16K, 64/8/64", 64, 8, 0, 0, 32, 16 * _KIB, 64),
    CaseSpec("narrow: decode 16@2K, 64/8/64", 64, 8, 0, 0, 16, 2 * _KIB, 64),
    CaseSpec("narrow: hybrid 1K@8K + 64@8K, 64/8/64", 64, 8, _KIB, 8 * _KIB, 64, 8 * _KIB, 64),
    CaseSpec("narrow: prefill 512@4K, 64/8/64", 64, 8, 512, 4 * _KIB, 0, 0, 64),
)
# kv_rows, stages, warps of decode tiles that are tried where they fit; and those of a pair's CTAs.
_TILES = ((64, 2, 4), (64, 4, 4), (128, 1, 4), (128, 2, 4), (128, 3, 4), (192, 1, 4), (256, 1, 4))
_PAIR_TILES = ((128, 2, 4), (192, 2, 4), (256, 1, 4))
_PAIR_PREFILL = TileConfig(q_rows=128, kv_rows=128, stages=2, warps=8)


class Pair(NamedTuple):
    """One batch over numbers of 8 bits, and over the same numbers in bf16."""

    quantised: Case
    plain: Case


def pair(machine: Backend, spec: CaseSpec) -> Pair:
    """Of a case; pages in random order."""
    part: Part = next((p for p in _PARTS if p in spec.name), "all")
    case = make_case(spec, machine.device, part)
    keys, values = (cache.to(torch.float8_e4m3fn) for cache in (case.k_cache, case.v_cache))
    plain = case._replace(k_cache=keys.to(case.q.dtype), v_cache=values.to(case.q.dtype))
    return Pair(case._replace(k_cache=keys, v_cache=values), plain)


def tried(machine: Backend, spec: CaseSpec) -> Iterator[PodConfig]:
    """Default tiles over 8 bits with other decode tiles, then CTAs of a pair."""
    default = limits.default_tiles(machine.arch, spec.head_dim, 1)
    both_ops = dataclasses.replace(default, prefill=_PAIR_PREFILL, ctas_per_sm=1)
    alone = "prefill" in spec.name
    found = [(default, tile) for tile in (() if machine.tiny or alone else _TILES)]
    pairs = _PAIR_TILES if "pair" in machine.arch.engines else ()
    found += [(both_ops, tile) for tile in pairs[: 1 if machine.tiny or alone else None]]
    for base, (kv_rows, stages, warps) in found:
        decode = TileConfig(q_rows=16, kv_rows=kv_rows, stages=stages, warps=warps)
        config = dataclasses.replace(base, decode=decode)
        try:
            limits.require_fits(config, machine.arch, spec.head_dim, 1)
        except ConfigInfeasibleError:
            continue
        if config != default:
            yield config


def variants(machine: Backend, specs: Sequence[CaseSpec], *, tries: bool) -> Iterator[Variant]:
    """What the cases run: both defaults, what batches run in their place, and what is tried."""
    for spec in specs:
        plain = Geometry.uniform((spec.num_q_heads, spec.num_kv_heads, spec.head_dim), "bf16")
        quantised = dataclasses.replace(plain, kv_dtype="e4m3")
        for geometry in (plain, quantised):
            default = machine.runs.default_config(geometry)
            for config in all_of(default, geometry, machine.runs.key):
                yield Variant.of(config, geometry)
        for config in tried(machine, spec) if tries else ():
            yield Variant.of(config, quantised)


def measure(machine: Backend, spec: CaseSpec, timer: ColdTimer, *, tries: bool) -> dict[str, Any]:
    """Medians in us of both defaults, calls in turns, and of other tiles over 8 bits."""
    both = pair(machine, spec)
    plain = limits.default_tiles(machine.arch, spec.head_dim)
    quantised = limits.default_tiles(machine.arch, spec.head_dim, 1)

    def run_plain() -> torch.Tensor:
        return machine.attend(both.plain, plain).out

    def run_quantised() -> torch.Tensor:
        return machine.attend(both.quantised, quantised).out

    # Also a warm-up.
    difference = float((run_plain().float() - run_quantised().float()).abs().max())
    times = timer.each([run_plain, run_quantised] * timer.repeats)
    bf16, e4m3 = (statistics.median(times[first::2]) for first in (0, 1))
    entry: dict[str, Any] = {
        "bf16_us": round(bf16, 2),
        "e4m3_us": round(e4m3, 2),
        "ratio": e4m3 / bf16,
        "difference": difference,
        "agree": difference < BF16_TOLERANCE,
        "config": quantised.to_dict(),
        "tried": {},
    }
    for config in tried(machine, spec) if tries else ():
        found = timer.time(lambda config=config: machine.attend(both.quantised, config))  # type: ignore[misc]
        entry["tried"][config.short()] = found.median_us
    return entry


def summarize(cases: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Geometric means of time over 8 bits / time over bf16, by kind; `best` with any tile tried."""
    summary: dict[str, Any] = {"agree": all(case["agree"] for case in cases.values())}
    for kind in ("decode", "hybrid", "short", "prefill", "narrow"):
        chosen = [case for name, case in cases.items() if name.startswith(kind)]
        if chosen:
            summary[kind] = geomean([case["ratio"] for case in chosen])
            best = [min([case["e4m3_us"], *case["tried"].values()]) for case in chosen]
            ratios = [us / case["bf16_us"] for us, case in zip(best, chosen, strict=True)]
            summary[f"{kind}_best"] = geomean(ratios)
            summary[f"{kind}_cases"] = len(chosen)
    return summary


def main(arguments: list[str] | None = None) -> None:
    """Print one line per case, save fp8.json after each."""
    parser = argparse.ArgumentParser(prog="fp8", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--seconds", type=float, default=120.0, help="start no case after these")
    parser.add_argument("--repeats", type=int, default=_REPEATS, help="of each time")
    parser.add_argument("--defaults", action="store_true", help="try no other tiles")
    add_output(parser)
    options = parser.parse_args(arguments)
    machine, output = backend(options.backend), Output(options.out, "fp8")
    specs = [sized(machine, s) for s in (*_DECODES, *_HYBRID, *_PREFILL, *_SHORT, *_NARROW)]
    tries = not options.defaults
    if not machine.tiny:
        compile_together(machine, variants(machine, specs, tries=tries), workers())
    timer, until = ColdTimer(machine, options.repeats), time.monotonic() + options.seconds
    document: dict[str, Any] = {"machine": machine_report.report(), "cases": {}, "not_run": []}
    with torch.inference_mode():
        for spec in specs:
            if time.monotonic() > until:
                document["not_run"].append(spec.name)
                continue
            entry = measure(machine, spec, timer, tries=tries)
            document["cases"][spec.name] = entry
            document["summary"] = summarize(document["cases"])
            output.save(document)
            print(
                f"{spec.name}: {entry['bf16_us']} us bf16, {entry['e4m3_us']} us e4m3, ratio "
                f"{entry['ratio']:.3f}, agree {entry['agree']}",
                flush=True,
            )
    output.save(document)
    print(document.get("summary"))
