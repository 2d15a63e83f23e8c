"""An invented truth, to try searches before a GPU has measured one: `python -m ...invented FILE`.

The cost model's times, disturbed: every tile and every config is off by some per cent, and configs
differ from step to step. Nothing of it is measured, and a search that asks the cost model is
flattered by it.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.gpu.truth.buckets import TRAFFIC, Traffic
from benchmarks.gpu.truth.grid import Grid, rows
from benchmarks.gpu.truth.truth import SCHEMA
from pod_integrate.devices.registry import target_of
from pod_integrate.model.devices import DEVICES
from pod_integrate.model.simulate import simulate

INVENTED = "invented: the cost model's times, disturbed"
_DEVICE = DEVICES["h200"]
# Standard deviations of logarithms: of tiles, of configs, of a config from step to step, of calls.
_TILE, _CONFIG, _STEP, _CALL = 0.04, 0.02, 0.015, 0.007
_STEPS, _CALLS = 10, 2


def invent(traffic: Traffic, grid: Grid, seed: int) -> dict[str, Any]:
    """As a measured bucket's document; one step is simulated, the others resemble it."""
    rng, geometry = np.random.default_rng(seed), traffic.geometry
    default = target_of(_DEVICE.key).default_config(geometry)
    steps, configs = traffic.steps(_STEPS), grid.configs(default)
    stands = rows(configs, steps, geometry, _DEVICE.sms)
    distinct = list(dict.fromkeys(stands.values()))
    number = {config: i for i, config in enumerate(distinct)}
    own = number[stands[default]]
    us = np.array([simulate(steps[0], geometry, config, _DEVICE).us for config in distinct])
    tiles = [(c.prefill, c.decode, c.ctas_per_sm, c.virtual_decode) for c in distinct]
    off = {tile: rng.normal(0, _TILE) for tile in dict.fromkeys(tiles)}
    log = np.log(us) + [off[tile] for tile in tiles] + rng.normal(0, _CONFIG, len(us))
    log -= log[own]
    by_step = log[:, None] + rng.normal(0, _STEP, (len(us), _STEPS))
    by_step[own] = 0
    calls = by_step[..., None] + rng.normal(0, _CALL, (*by_step.shape, _CALLS))
    return {
        "name": traffic.name,
        "geometry": str(geometry),
        "bucket": str(traffic.bucket),
        "steps": [" ".join(f"{q}/{kv}" for q, kv in zip(*s, strict=True)) for s in steps],
        "grid": grid._asdict(),
        "cells": " ".join(str(number[stands[config]]) for config in configs),
        "rows": [_row(row) for row in np.round(1e4 * np.exp(calls)).astype(int)],
        "default": default.short(),
        "default_us": [round(float(us[own]), 2)] * _STEPS,
    }


def _row(calls: Any) -> str:
    return ", ".join(" ".join(map(str, step)) for step in calls)


def document(traffic: list[Traffic], grid: Grid) -> dict[str, Any]:
    """As a measured one."""
    return {
        "schema": SCHEMA,
        "machine": {"invented": INVENTED},
        "device": str(_DEVICE.key),
        "buckets": [invent(each, grid, seed) for seed, each in enumerate(traffic)],
    }


if __name__ == "__main__":
    # The long chunk takes the model minutes.
    chosen = [traffic for traffic in TRAFFIC if "long" not in traffic.name]
    Path(sys.argv[1]).write_text(json.dumps(document(chosen, Grid()), indent=1) + "\n")
