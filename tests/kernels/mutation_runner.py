"""Runs planted bugs one after the other and prints for each how it was caught, as JSON lines.

usage: mutation_runner.py NUMBER,NUMBER... VARIANT=LIBRARY...

Bug 0 is none. A bug may crash this process; whoever started it goes on with the next one.
"""

from __future__ import annotations

import ctypes
import dataclasses
import json
import math
import sys
from pathlib import Path
from typing import Any

import torch
from mutation_probes import (
    Probe,
    byte_probes,
    pair_probes,
    panel_probes,
    probes,
    turn_probes,
    wide_pair_probes,
)
from torch import Tensor

from pod_integrate.devices.cuda import kernel_library
from pod_integrate.devices.cuda.engines import pair_decodes, runs_both
from pod_integrate.devices.cuda.variants import Variant
from pod_integrate.devices.emulated import emulator
from pod_integrate.devices.emulated.cta_records import CtaRecord
from pod_integrate.devices.emulated.emulator import EmulatorError, Schedule
from pod_integrate.measure.accuracy import BF16_TOLERANCE
from pod_integrate.terms.config import PodConfig

SCHEDULES = (
    Schedule(order="ascending"),
    Schedule(order="descending", preempt_percent=20),
    Schedule(order="random", copies="early", preempt_percent=30, seed=7),
    Schedule(order="random", num_sms=3, preempt_percent=10, seed=11),
    # Takes the warpgroups of a CTA far apart.
    Schedule(order="random", preempt_percent=50, seed=1),
)
# Times 1 + |LSE|.
_LSE_TOLERANCE = 2e-5


def first_failure(probe: Probe, config: PodConfig, schedule: Schedule) -> str | None:
    """What is wrong with this call, or None."""
    config = dataclasses.replace(config, **probe.plan)
    try:
        got = emulator.attend(*probe.case, config=config, schedule=schedule, **probe.options)
    except EmulatorError as fault:
        return str(fault).splitlines()[0][:160]
    error = _largest_error(got.out, probe.answer.out)
    if error > BF16_TOLERANCE:
        return f"out is off by {error:.2g}"
    error = _largest_error(got.lse, probe.answer.lse, relative=True)
    if error > _LSE_TOLERANCE:
        return f"lse is off by {error:.2g}"
    if got.stats.ldmatrix_extra_wavefronts:
        return f"{got.stats.ldmatrix_extra_wavefronts} bank conflicts"
    return _schedule_failure(got.records, config, schedule)


def _largest_error(got: Tensor, exact: Tensor, relative: bool = False) -> float:
    """NaN is right where it is exact, and infinitely wrong elsewhere."""
    error = (got.double() - exact).abs() / (1 + exact.abs() if relative else 1)
    error[got.isnan() & exact.isnan()] = 0
    return float(error.nan_to_num(nan=math.inf).max())


def _schedule_failure(
    records: list[CtaRecord], config: PodConfig, schedule: Schedule
) -> str | None:
    for op in (0, 1):
        items = sorted(r.first_item + i for r in records if r.op == op for i in range(r.items))
        if items != list(range(len(items))):
            return f"items of op {op} run: {items[:8]}..."
    both = {r.op for r in records if r.items} == {0, 1}
    if both and config.prefill_ctas == config.decode_ctas == 1 and schedule.order == "ascending":
        for smid in range(schedule.num_sms):
            if {r.op for r in records if r.smid == smid and r.ticket < 2} != {0, 1}:
                return f"SM {smid} starts with one op only at a CTA ratio of 1:1"
    return None


def run(number: int, libraries: dict[str, Path], cases: list[Probe]) -> dict[str, Any]:
    """Try one bug until something notices it."""
    runs = 0
    for name, library in libraries.items():
        variant = Variant.parse(name)
        emulator.build = lambda *_, library=library, **__: library
        loaded = kernel_library.load(library).library
        ctypes.c_int.in_dll(loaded, "pod_mutant").value = number
        for probe in cases:
            for schedule in SCHEDULES:
                runs += 1
                why = first_failure(probe, variant.config(), schedule)
                if why is not None:
                    return {"number": number, "runs": runs, "shape": probe.name, "why": why}
    return {"number": number, "runs": runs, "shape": None, "why": None}


def main() -> None:
    numbers, *pairs = sys.argv[1:]
    torch.set_num_threads(1)
    libraries = {name: Path(path) for name, path in (pair.split("=", 1) for pair in pairs)}
    variant = Variant.parse(next(iter(libraries)))
    if variant.kv_bytes == 1:
        cases = wide_pair_probes() if runs_both(variant.config()) else byte_probes()
    elif variant.head_dim % 64:
        cases = panel_probes(variant.head_dim)
    elif not runs_both(variant.config()):
        cases = probes()
    else:
        dim = variant.head_dim
        cases = pair_probes() if pair_decodes(dim, variant.kv_bytes) else turn_probes(dim)
    for number in map(int, numbers.split(",")):
        print(json.dumps(run(number, libraries, cases)), flush=True)


if __name__ == "__main__":
    main()
