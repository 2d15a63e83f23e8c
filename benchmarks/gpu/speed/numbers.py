"""Times of the published cases: ours in every strategy, peers, and the distance to the floor.

Cold L2, CUDA events, medians. Work is done in the order of its value: first the default config and
the peers on all cases, then other configs. What is measured is saved every two seconds.

With --grid: the paper's sweep in random order, as much of it as there is time for, in grid.json;
with --default-only as well, no config but the default, in more cases.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
import time
from pathlib import Path

import torch

from benchmarks.gpu.common import machine as machine_report
from benchmarks.gpu.common.machines import Backend, backend
from benchmarks.gpu.common.output import Output, add_output
from benchmarks.gpu.common.timing import ColdTimer
from benchmarks.gpu.peers import peers
from benchmarks.gpu.speed import grid
from benchmarks.gpu.speed.cases import cases, default_of, find, make_case, sample, sized
from benchmarks.gpu.speed.measure import Numbers, alone, in_turn, others, ours, run
from benchmarks.gpu.speed.summary import summarize
from benchmarks.gpu.speed.sweep_space import few
from pod_integrate.model.floors import CaseSpec
from pod_integrate.terms.config import STRATEGIES, PodConfig

_SEED = 0
_REPEATS, _GRID_REPEATS = 30, 10
# The median of so many is within 1 % where the times of a call spread by 3 %.
_DEFAULT_REPEATS = 20


def first_pass(numbers: Numbers, spec: CaseSpec, tried: list[peers.Peer]) -> None:
    """The default config in every strategy, each op alone, and the peers."""
    machine, case = numbers.machine, make_case(spec, numbers.machine.device)
    base = default_of(machine, spec)
    for strategy in STRATEGIES:
        config = dataclasses.replace(base, strategy=strategy)  # type: ignore[arg-type]
        ours(numbers, spec, case, config, "default")
    for part in ("prefill", "decode"):
        alone(numbers, spec, base, part, label="default")
    others(numbers, spec, case, tried)
    numbers.case(spec)["clocks"] = machine_report.clocks()
    numbers.save()


def second_pass(numbers: Numbers, spec: CaseSpec) -> None:
    """Other configs, each in serial too, so that fused has the best serial to beat; streams."""
    machine, case = numbers.machine, make_case(spec, numbers.machine.device)
    base = default_of(machine, spec)
    configs = few(machine.arch, spec.head_dim)
    if machine.tiny:
        configs = configs[:2]
    for config in configs:
        if config != base:
            ours(numbers, spec, case, config, "tried")
    for config in dict.fromkeys(map(in_turn, configs)):
        ours(numbers, spec, case, config, "tried")
    runs = [run for run in numbers.case(spec)["runs"] if run.get("strategy") == "serial"]
    timed = [run for run in runs if "median_us" in run]
    if timed:
        best = PodConfig.from_dict(min(timed, key=lambda run: float(run["median_us"]))["config"])
        ours(numbers, spec, case, dataclasses.replace(best, strategy="streams"), "tried")


def main(arguments: list[str] | None = None) -> None:
    """Print one line per case and pass, save numbers.json or grid.json."""
    options = _parse(arguments)
    until = time.monotonic() + options.seconds
    chosen, tried = backend(options.backend), peers.usable(options.out)
    work = _grid if options.grid else _published
    numbers = work(options, chosen, until, tried)
    for key, value in numbers.document["summary"].items():
        if key != "by_case":
            print(f"{key}: {json.dumps(value)}")


def _published(
    options: argparse.Namespace, chosen: Backend, until: float, tried: list[peers.Peer]
) -> Numbers:
    wanted = [find(chosen, case) for case in options.cases] or cases(chosen)
    timer = ColdTimer(chosen, options.repeats or _REPEATS)
    numbers = Numbers(chosen, Output(options.out, "numbers"), timer, until, summarize)
    if options.cases:
        # For `record`: these rows replace those of a full run.
        numbers.document["rerun"] = [spec.name for spec in wanted]
    with torch.inference_mode():
        run(numbers, wanted, [functools.partial(first_pass, tried=tried), second_pass])
    return numbers


def _grid(
    options: argparse.Namespace, chosen: Backend, until: float, tried: list[peers.Peer]
) -> Numbers:
    # Before the new document replaces it.
    earlier = options.resume and grid.read(options.resume)
    wanted = [sized(chosen, spec) for spec in sample(_SEED)][: options.sample]
    measure = grid.defaults if options.default_only else grid.measure
    repeats = _DEFAULT_REPEATS if options.default_only else _GRID_REPEATS
    timer = ColdTimer(chosen, options.repeats or repeats)
    numbers = Numbers(chosen, Output(options.out, "grid"), timer, until, grid.distribution)
    configs = "default" if options.default_only else "few"
    numbers.document["sample"] = {"seed": _SEED, "of": len(sample(_SEED)), "configs": configs}
    if earlier:
        wanted = grid.resume(numbers, earlier, wanted)
    with torch.inference_mode():
        run(numbers, wanted, [functools.partial(measure, tried=tried)])
    return numbers


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="numbers", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--seconds", type=float, default=300.0, help="start nothing after these")
    parser.add_argument(
        "--repeats",
        type=int,
        help=f"of each time; {_REPEATS}, with --grid {_GRID_REPEATS}, with --default-only "
        f"{_DEFAULT_REPEATS}",
    )
    parser.add_argument(
        "--cases", nargs="+", default=[], metavar="CASE", help="only these: numbers or names"
    )
    parser.add_argument(
        "--grid", action="store_true", help="the paper's sweep in random order, as time allows"
    )
    parser.add_argument("--sample", type=int, help="with --grid, at most this many cases")
    parser.add_argument(
        "--default-only", action="store_true", help="with --grid: try no other config, more cases"
    )
    parser.add_argument(
        "--resume",
        type=Path,
        metavar="GRID.json",
        help="with --grid: go on after these cases, measured on such a GPU with this kernel",
    )
    add_output(parser)
    options = parser.parse_args(arguments)
    if options.grid and options.cases:
        parser.error("--grid draws its cases at random; leave out --cases")
    if not options.grid and (options.default_only or options.resume or options.sample):
        parser.error("--sample, --default-only and --resume go with --grid")
    if options.resume and not options.resume.is_file():
        parser.error(f"--resume {options.resume} is no file; give an earlier grid.json")
    return options
