"""Times of every config of a grid on ten steps of four buckets: what searches are judged by.

The search itself needs no GPU then: it asks the record. `--set rules` has a smaller grid on more
and other buckets: what the planner's own rules are judged by.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from collections.abc import Sequence
from typing import Any

import torch

from benchmarks.gpu.common import machine as machine_report
from benchmarks.gpu.common.compiled import compile_together, workers
from benchmarks.gpu.common.machines import Backend, backend
from benchmarks.gpu.common.output import Output, add_output
from benchmarks.gpu.common.timing import ColdTimer
from benchmarks.gpu.truth import grid as grids
from benchmarks.gpu.truth.buckets import RULES, TINY, TRAFFIC, Traffic
from benchmarks.gpu.truth.grid import Grid
from benchmarks.gpu.truth.measure import Steps, check, measure, ratios
from pod_integrate.devices.cuda import limits
from pod_integrate.devices.cuda.choices import tiles_of
from pod_integrate.devices.cuda.variants import Variant
from pod_integrate.model.batches import Lengths

SCHEMA = 1
_CHUNK, _TINY_STEPS = 24, 3
# By name: buckets, the grid, and the file that results go to.
_SETS = {"searches": (TRAFFIC, Grid(), "truth"), "rules": (RULES, grids.RULES, "rules")}


def build(machine: Backend, traffic: Sequence[Traffic], grid: Grid, jobs: int) -> float:
    """Compile the variants of all geometries at once; seconds that it took."""
    wanted: list[Variant] = []
    for each in traffic:
        default = limits.default_tiles(machine.arch, each.head_dim)
        configs = (default, *map(tiles_of, grid.tiles))
        wanted.extend(Variant.of(config, each.geometry) for config in configs)
    return compile_together(machine, wanted, jobs)


class Truth:
    """The document of one bucket under way.

    cells  numbers of the rows of the grid's configs, in the order of Grid.configs
    rows   time over the default's beside it in units of 1e-4, calls of a step by blanks, steps by
           commas; null where the time was over or the config failed
    steps  `q/kv` of each request
    """

    def __init__(self, machine: Backend, traffic: Traffic, grid: Grid, steps: int) -> None:
        self.machine, self.traffic = machine, traffic
        self.steps = traffic.steps(steps)
        self.default = limits.default_tiles(machine.arch, traffic.head_dim)
        configs = grid.configs(self.default)
        geometry, sms = traffic.geometry, machine.sms
        stands = grids.rows([self.default, *configs], self.steps, geometry, sms)
        self.rows = list(dict.fromkeys(stands.values()))
        number = {config: i for i, config in enumerate(self.rows)}
        self.document: dict[str, Any] = {
            "name": traffic.name,
            "geometry": str(geometry),
            "bucket": str(traffic.bucket),
            "steps": [_text(step) for step in self.steps],
            "default": self.default.short(),
            "grid": grid._asdict(),
            "cells": " ".join(str(number[stands[config]]) for config in configs),
            "default_row": number[stands[self.default]],
            "rows": [None] * len(self.rows),
            "errors": {},
        }

    def run(self, timer: ColdTimer, rounds: int, until: float) -> None:
        """Measure rows in random order until the time is over; the default's always."""
        began = time.monotonic()
        steps = Steps(self.machine, self.traffic.geometry, self.steps)
        order = list(range(len(self.rows)))
        random.Random(0).shuffle(order)
        # The first look is at the default against itself.
        order.sort(key=lambda number: number != self.document["default_row"])
        defaults: list[list[float]] = [[] for _ in self.steps]
        for first in range(0, len(order), _CHUNK):
            if first and time.monotonic() > until:
                break
            self._chunk(order[first : first + _CHUNK], steps, timer, rounds, defaults)
        self.document["default_us"] = [round(statistics.median(times), 2) for times in defaults]
        missing = self.document["rows"].count(None) - len(self.document["errors"])
        self.document["left_out"] = missing
        self.document["seconds"] = round(time.monotonic() - began, 1)

    def _chunk(
        self, numbers: list[int], steps: Steps, timer: ColdTimer, rounds: int,
        defaults: list[list[float]],
    ) -> None:  # fmt: skip
        wanted = {self.rows[number]: number for number in numbers}
        wrong = check(self.machine, steps.case(0), self.default, list(wanted))
        self.document["errors"] |= {config.short(): text for config, text in wrong.items()}
        configs = [config for config in wanted if config not in wrong]
        found: list[list[str]] = [[] for _ in configs]
        for step in range(len(self.steps)):
            case = steps.case(step)
            times = measure(
                timer, self.machine, case, self.default, configs, rounds * self.traffic.repeats
            )
            for i, row in enumerate(found):
                row.append(" ".join(map(str, ratios(times, i))))
                defaults[step] += times.default[i]
        for config, row in zip(configs, found, strict=True):
            self.document["rows"][wanted[config]] = ", ".join(row)


def _text(step: Lengths) -> str:
    return " ".join(f"{q}/{kv}" for q, kv in zip(*step, strict=True))


def parse_step(text: str) -> Lengths:
    """Inverse of what a document has for a step."""
    return Lengths.of(*zip(*(map(int, row.split("/")) for row in text.split()), strict=True))


def summary(document: dict[str, Any]) -> str:
    """One line of a bucket: how far its default is from the best."""
    known = [row for row in document["rows"] if row]
    means = sorted(statistics.mean(map(int, row.replace(",", "").split())) / 1e4 for row in known)
    return (
        f"{document['name']:22s} {document['bucket']:16s} default "
        f"{statistics.mean(document['default_us']):8.1f} us, best {means[0]:.3f} of it, "
        f"{len(known)} rows for {len(document['cells'].split())} configs, "
        f"{document['left_out']} left out, {len(document['errors'])} failed, "
        f"{document['seconds']} s"
    )


def main(arguments: list[str] | None = None) -> None:
    """Compile, then measure each bucket within its share of the time; truth.json or rules.json."""
    parser = argparse.ArgumentParser(prog="truth", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--set", choices=_SETS, default="searches", help="of buckets, and a grid")
    parser.add_argument("--seconds", type=float, default=230.0, help="at most, all together")
    parser.add_argument("--steps", type=int, default=10, help="of each bucket")
    parser.add_argument("--rounds", type=int, default=2, help="over all configs, on each step")
    parser.add_argument("--tiles", type=int, default=0, help="only the first so many; 0: all")
    parser.add_argument("--bucket", action="append", help="part of a bucket's name; may repeat")
    parser.add_argument("--workers", type=int, default=workers())
    add_output(parser)
    options = parser.parse_args(arguments)
    machine = backend(options.backend)
    tiny = machine.tiny
    buckets, grid, name = _SETS[options.set]
    if tiny:
        buckets, grid = TINY, grids.TINY
    grid = grid._replace(tiles=grid.tiles[: options.tiles or None])
    wanted = options.bucket or [""]
    traffic = [t for t in buckets if any(part in t.name for part in wanted)]
    compiled = 0.0 if tiny else build(machine, traffic, grid, options.workers)
    document = {
        "schema": SCHEMA,
        "machine": machine_report.report(),
        "device": str(machine.runs.key),
        "rounds": options.rounds,
        "compile_seconds": round(compiled, 1),
        "buckets": [],
    }
    print(f"compiled in {compiled:.0f} s", flush=True)
    output, began = Output(options.out, name), time.monotonic()
    for number, each in enumerate(traffic, 1):
        # Traffic that is measured sooner leaves its time to the next one.
        until = began + (options.seconds - compiled) * number / len(traffic)
        with torch.inference_mode():
            truth = Truth(machine, each, grid, _TINY_STEPS if tiny else options.steps)
            truth.run(ColdTimer(machine, 1), options.rounds, until)
        document["buckets"].append(truth.document)
        output.save(document)
        print(summary(truth.document), flush=True)
        if not tiny:
            torch.cuda.empty_cache()
    document["clocks_after"] = machine_report.clocks()
    output.save(document)
