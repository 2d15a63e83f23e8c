"""Tunables of one case, measured: the default, what a short search finds, and the best of all.

Every config is timed on a cold L2; the search and the exhaustive part share their measurements.
What an exhaustive search could not measure in time is counted.
"""

from __future__ import annotations

import argparse
import dataclasses
import random
import time
from typing import Any

import torch

from benchmarks.gpu.common import machine as machine_report
from benchmarks.gpu.common.machines import Backend, backend
from benchmarks.gpu.common.output import Output, add_output
from benchmarks.gpu.common.timing import ColdTimer
from benchmarks.gpu.speed.cases import default_of, find, make_case
from benchmarks.gpu.speed.sweep_space import settings, sweep_variants
from pod_integrate.devices.cuda.variants import with_tiles
from pod_integrate.measure.accuracy import BF16_TOLERANCE
from pod_integrate.measure.batches import Case
from pod_integrate.model.floors import CaseSpec
from pod_integrate.terms.config import PodConfig

_TRIALS = 40
_ROUNDS = 2
_EMULATED_SETTINGS = 4
_COORDINATES = (
    ("decode_split_tokens",),
    ("prefill_ctas", "decode_ctas"),
    ("max_prefill_waves",),
)
Setting = dict[str, Any]


class Sweep:
    """Measurements of one case by config, made once each."""

    def __init__(self, machine: Backend, spec: CaseSpec, timer: ColdTimer, until: float) -> None:
        self.machine, self.spec = machine, spec
        self.case: Case = make_case(spec, machine.device)
        self.default = default_of(machine, spec)
        self.times: dict[PodConfig, float] = {}
        self.errors: dict[str, str] = {}
        self._timer, self._until = timer, until
        self._want = machine.attend(self.case, self.default).out

    @property
    def out_of_time(self) -> bool:
        """Whether no further config should be measured."""
        return time.monotonic() > self._until

    def measure(self, config: PodConfig) -> float:
        """Median us; infinite for a config that fails or answers something else."""
        if config not in self.times:
            try:
                self.times[config] = self._measure(config)
            except Exception as error:
                self.errors[config.short()] = f"{type(error).__name__}: {error}"[:400]
                self.times[config] = float("inf")
        return self.times[config]

    def _measure(self, config: PodConfig) -> float:
        out = self.machine.attend(self.case, config).out
        found = float((out.float() - self._want.float()).abs().max())
        assert found < BF16_TOLERANCE, f"differs from the default config's answer by {found}"
        return self._timer.time(lambda: self.machine.attend(self.case, config)).median_us

    def best(self) -> PodConfig:
        """The fastest config so far."""
        return min(self.times, key=lambda config: self.times[config])


def space(machine: Backend, spec: CaseSpec) -> tuple[list[PodConfig], list[Setting]]:
    """Compiled halves of the configs, the default's first, and run-time settings."""
    if machine.tiny:
        return [default_of(machine, spec)], list(settings())[:_EMULATED_SETTINGS]
    return [variant.config() for variant in sweep_variants(machine.arch)], list(settings())


def descend(sweep: Sweep, tiles: list[PodConfig], choices: list[Setting], trials: int) -> PodConfig:
    """One coordinate after the other from the default, twice around, at most `trials` configs."""
    best = sweep.default
    before = len(sweep.times)
    sweep.measure(best)
    for _ in range(_ROUNDS):
        options = [with_tiles(best, tile) for tile in tiles]
        best = _try(sweep, best, options, before + trials)
        for names in _COORDINATES:
            values = dict.fromkeys(tuple(choice[name] for name in names) for choice in choices)
            options = [
                dataclasses.replace(best, **dict(zip(names, value, strict=True)))
                for value in values
            ]
            best = _try(sweep, best, options, before + trials)
    return best


def _try(sweep: Sweep, best: PodConfig, options: list[PodConfig], limit: int) -> PodConfig:
    for config in options:
        if len(sweep.times) < limit and not sweep.out_of_time:
            sweep.measure(config)
    return min([best, *options], key=lambda config: sweep.times.get(config, float("inf")))


def exhaust(sweep: Sweep, tiles: list[PodConfig], choices: list[Setting]) -> int:
    """Every combination in random order until the time is over; how many were left out."""
    every = [dataclasses.replace(tile, **choice) for tile in tiles for choice in choices]
    random.Random(0).shuffle(every)
    for i, config in enumerate(every):
        if sweep.out_of_time:
            return len(every) - i
        sweep.measure(config)
    return 0


def run(machine: Backend, spec: CaseSpec, timer: ColdTimer, seconds: float) -> dict[str, Any]:
    """Default, searched and exhaustive best of one case."""
    began = time.monotonic()
    sweep = Sweep(machine, spec, timer, began + seconds)
    tiles, choices = space(machine, spec)
    default_us = sweep.measure(sweep.default)
    tuned = descend(sweep, tiles, choices, _TRIALS)
    result: dict[str, Any] = {
        "case": spec.name,
        "default": {"us": default_us, "config": sweep.default.short()},
        "tuned": {"us": sweep.measure(tuned), "config": tuned.short(), "trials": len(sweep.times)},
    }
    result["left_out"] = exhaust(sweep, tiles, choices)
    best = sweep.best()
    result["best"] = {"us": sweep.times[best], "config": best.short(), "full": best.to_dict()}
    # Once more, side by side: the least of many noisy times is too small.
    result["again"] = {
        name: timer.time(lambda config=config: machine.attend(sweep.case, config))._asdict()  # type: ignore[misc]
        for name, config in (("default", sweep.default), ("tuned", tuned), ("best", best))
    }
    result["measured"] = len(sweep.times)
    result["errors"] = sweep.errors
    result["times"] = {config.short(): us for config, us in sweep.times.items() if us < 1e12}
    result["seconds"] = round(time.monotonic() - began, 1)
    return result


def main(arguments: list[str] | None = None) -> None:
    """Print and save default, tuned and best of each case; sweep.json."""
    parser = argparse.ArgumentParser(prog="sweep", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--case", action="append", help="part of a case's name; may repeat")
    parser.add_argument("--seconds", type=float, default=120.0, help="of each case")
    parser.add_argument("--repeats", type=int, default=10)
    add_output(parser)
    options = parser.parse_args(arguments)
    chosen = backend(options.backend)
    timer = ColdTimer(chosen, options.repeats)
    output = Output(options.out, "sweep")
    document: dict[str, Any] = {"machine": machine_report.report(), "cases": []}
    for name in options.case or ["C0", "figure 14, Llama"]:
        spec = find(chosen, name)
        with torch.inference_mode():
            result = run(chosen, spec, timer, options.seconds)
        document["cases"].append(result)
        output.save(document)
        print(
            f"{spec.name}: default {result['default']['us']} us, tuned "
            f"{result['tuned']['us']} us [{result['tuned']['config']}], best "
            f"{result['best']['us']} us [{result['best']['config']}] of "
            f"{result['measured']}, {result['left_out']} left out",
            flush=True,
        )
