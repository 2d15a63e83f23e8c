"""The tuner's own search on a GPU: the traffic of a published case in, a promoted config out.

The tuner's core runs in this process with its replay measurement: verify, screen, confirm by the
sequential test, promote. Afterwards default and promoted are measured afresh.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.gpu.common import machine
from benchmarks.gpu.common.output import Output, add_output
from pod_integrate.devices.base import Device
from pod_integrate.devices.registry import device_named, target_of
from pod_integrate.model.floors import CASES, CaseSpec
from pod_integrate.terms.config import PodConfig
from pod_integrate.terms.trace import WIRE_VERSION, StepRecord, TraceMessage
from tuner.core import Tuner
from tuner.measure.bench import OpBench
from tuner.measure.worker import describe, measure
from tuner.messages import StepLengths, StudyKey
from tuner.settings import TunerSettings
from tuner.store.storage import Store
from tuner.view import overview as view

# Contexts of the case's steps: what is promoted has to be faster on all of them.
_STEPS, _SPREAD = 48, 0.1
_LAYERS = 32
_FINAL_PAIRS = 15


def message(spec: CaseSpec, device: Device) -> TraceMessage:
    """What a server would send whose steps are this batch, their contexts up to a tenth shorter."""
    key = device.key
    default = target_of(key).default_config(spec.geometry)
    records = [
        StepRecord(
            time=time.time(),
            step=step,
            q_lens=list(spec.lengths.q_lens),
            kv_lens=_contexts(spec, step),
            # Any time: there is no other traffic to compare with.
            step_us=2000.0,
            attention_us=1000.0,
            layers=_LAYERS,
            config="default",
            source="default",
        )
        for step in range(_STEPS)
    ]
    return TraceMessage(
        version=WIRE_VERSION,
        server="benchmark",
        sequence=0,
        geometry=str(spec.geometry),
        device=str(key),
        build=device.kernel_build,
        seen=_STEPS,
        dropped=0,
        table_version=0,
        configs={"default": default.to_dict()},
        records=records,
    )


def _contexts(spec: CaseSpec, step: int) -> list[int]:
    factor = 1 - _SPREAD * step / _STEPS
    lengths = zip(spec.lengths.q_lens, spec.lengths.kv_lens, strict=True)
    return [max(q_len, round(kv_len * factor)) for q_len, kv_len in lengths]


def tune(spec: CaseSpec, device: Device, *, trials: int, seconds: float) -> dict[str, Any]:
    """Search until the bucket rests or the time is over; then measure what was promoted."""
    bench, began = OpBench(device), time.monotonic()
    info = describe("benchmark", device)
    with tempfile.TemporaryDirectory() as folder:
        settings = TunerSettings(data_dir=Path(folder), trials=trials, seed=0)
        tuner = Tuner(settings, Store(settings.url))
        try:
            tuner.ingest(message(spec, device))
            tasks = 0
            while time.monotonic() - began < seconds:
                task = tuner.next_task(info)
                if task is None:
                    break
                tuner.report(measure(task, info.id, bench))
                tasks += 1
            found = _outcome(tuner, spec, info.device, info.build)
        finally:
            tuner.close()
    found |= {"tasks": tasks, "seconds": round(time.monotonic() - began, 1)}
    return found | _afresh(spec, device, bench, found["promoted"])


def _outcome(tuner: Tuner, spec: CaseSpec, device: str, build: str) -> dict[str, Any]:
    (row,) = view.overview(tuner).buckets
    key = StudyKey(str(spec.geometry), device, build, row.bucket)
    entry = tuner.tables.promoted(key)
    return {
        "bucket": row.bucket,
        "status": row.status,
        "promoted": entry.config.to_dict() if entry else None,
        "promoted_short": entry.config.short() if entry else "default",
        "trials": [
            {name: getattr(trial, name) for name in ("config_short", "state", "speedup", "reason")}
            for trial in view.trials(tuner, key).trials
        ],
    }


def _afresh(
    spec: CaseSpec, device: Device, bench: OpBench, promoted: dict[str, Any] | None
) -> dict[str, Any]:
    default = device.default_config(spec.geometry)
    chosen = default if promoted is None else PodConfig.from_dict(promoted)
    lengths = StepLengths(list(spec.lengths.q_lens), list(spec.lengths.kv_lens))
    pairs = bench.pairs(
        default, chosen, spec.geometry, lengths, count=_FINAL_PAIRS, seconds=10.0, layers=_LAYERS
    )
    return {
        "default_us": statistics.median(pair.baseline_us for pair in pairs),
        "tuned_us": statistics.median(pair.candidate_us for pair in pairs),
        "tuned_vs_default": statistics.median(pair.speedup for pair in pairs),
    }


def main(arguments: list[str] | None = None) -> None:
    """Tune the named cases and save tune.json."""
    parser = argparse.ArgumentParser(prog="tune", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--cases", default="table 8,FlashInfer 4K/4K", help="names, by commas")
    parser.add_argument("--trials", type=int, default=24, help="of each case")
    parser.add_argument("--seconds", type=float, default=90.0, help="of each case, at most")
    refused = "the tuner measures time: there is none on the emulated SM"
    add_output(parser, refused={"emulator": refused})
    options = parser.parse_args(arguments)
    device = device_named(options.backend)
    device.load()
    output = Output(options.out, "tune")
    document: dict[str, Any] = {"machine": machine.report(), "cases": {}}
    wanted = options.cases.split(",")
    for spec in (case for case in CASES if case.name in wanted):
        document["cases"][spec.name] = found = tune(
            spec, device, trials=options.trials, seconds=options.seconds
        )
        output.save(document)
        print(
            f"{spec.name:24s} default {found['default_us']:.0f} us, tuned {found['tuned_us']:.0f} "
            f"us ({found['tuned_vs_default']:.3f}x), {len(found['trials'])} trials in "
            f"{found['seconds']} s: {found['promoted_short']}",
            flush=True,
        )
