"""What the times of a case come to: speed-ups over serial and peers, distance to the floor."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from benchmarks.gpu.speed.cases import Spec
from pod_integrate.measure.accuracy import BF16_TOLERANCE
from pod_integrate.model.floors import cost_of, floor_at

Runs = list[dict[str, Any]]
# Peers whose K and V lie contiguous: a server would have to copy its cache for them.
_CONTIGUOUS = "torch "


def floors(spec: Spec, ceilings: dict[str, float]) -> dict[str, float]:
    """Times in us below which no kernel goes, by the ceilings measured in the same run."""
    bandwidth = max(ceilings["copy_bytes"], ceilings["read_bytes"])
    floor = floor_at(cost_of(spec.lengths, spec.geometry), ceilings["bf16_flops"], bandwidth)
    ideal = max(floor.prefill_us, floor.decode_us)
    numbers = {**floor._asdict(), "serial_us": floor.serial_us, "fused_us": ideal}
    return {name: round(value, 2) for name, value in numbers.items()}


def of_case(entry: dict[str, Any]) -> dict[str, float]:
    """Ratios of one case; a ratio without both of its times is left out.

    fused_us              best fused config
    fused_default_us      fused, default config
    fused_vs_serial       best of our serial runs / best fused
    fused_vs_streams      best of our streams runs / best fused
    fused_vs_best_serial  fastest way of anybody who reads the paged cache to run prefill, then
                          decode / best fused
    fused_vs_contiguous_serial  the same with those who read K and V that lie contiguous, too
    fused_vs_batchpod     FlashInfer's BatchPOD / best fused
    default_vs_*          the same of the default config, which nobody chose with these times known
    floor_ratio           best fused / floor
    prefill_vs_fa3        FlashInfer's FlashAttention-3 / our prefill alone, default config
    decode_floor_ratio    our decode alone, default config / its floor
    """
    runs = [run for run in entry["runs"] if "median_us" in run and _is_right(run)]
    fused = _best(runs, strategy="fused")
    default = _best(runs, strategy="fused", label="default")
    times = {
        "fused_us": fused,
        "fused_default_us": default,
        "default_vs_serial": _best(runs, strategy="serial") / default,
        "default_vs_best_serial": _best_serial(runs) / default,
        "default_vs_contiguous_serial": _best_serial(runs, contiguous=True) / default,
        "default_vs_batchpod": _best(runs, name="flashinfer BatchPOD") / default,
        "default_vs_batchattention": _best(runs, name="flashinfer BatchAttention") / default,
        "serial_us": _best(runs, strategy="serial"),
        "best_serial_us": _best_serial(runs),
        "fused_vs_serial": _best(runs, strategy="serial") / fused,
        "fused_vs_streams": _best(runs, strategy="streams") / fused,
        "fused_vs_best_serial": _best_serial(runs) / fused,
        "fused_vs_contiguous_serial": _best_serial(runs, contiguous=True) / fused,
        "fused_vs_batchpod": _best(runs, name="flashinfer BatchPOD") / fused,
        "fused_vs_batchattention": _best(runs, name="flashinfer BatchAttention") / fused,
        "fused_vs_batchprefill": _all_rows(runs) / fused,
        "floor_ratio": fused / entry["floor"]["fused_us"],
        **_alone(runs, entry["floor"]),
    }
    return {name: round(value, 4) for name, value in times.items() if math.isfinite(value)}


def summarize(entries: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Ratios by case, and geometric means with the number of cases behind each."""
    by_case = {name: of_case(entry) for name, entry in entries.items()}
    summary: dict[str, Any] = {"by_case": by_case}
    names = sorted({name for ratios in by_case.values() for name in ratios})
    for name in names:
        if name.endswith("_us"):
            continue
        values = [ratios[name] for ratios in by_case.values() if name in ratios]
        summary[f"{name}_geomean"] = round(geomean(values), 4)
        summary[f"{name}_cases"] = len(values)
    return summary


def line(name: str, entry: dict[str, Any]) -> str:
    """One printable line of a case."""
    errors = [run["name"] for run in entry["runs"] if "error" in run]
    ratios = ", ".join(f"{key} {value:g}" for key, value in of_case(entry).items())
    failed = f"; failed: {', '.join(errors)}" if errors else ""
    return f"{name}: {ratios}{failed}{entry.get('error', '')}"


def _alone(runs: Runs, floor: dict[str, float]) -> dict[str, float]:
    prefill = _best(runs, name="ours prefill default")
    # No config that leaves the launch to the batch decodes otherwise.
    decode = _least(_best(runs, name=f"ours decode {label}") for label in ("default", "alone"))
    return {
        "prefill_vs_fa3": _best(runs, name="flashinfer prefill fa3") / prefill,
        "decode_floor_ratio": decode / floor.get("decode_us", math.nan),
    }


def _is_right(run: dict[str, Any]) -> bool:
    """Whether a peer's answer was ours; the time of another answer says nothing."""
    return float(run.get("difference", 0.0)) < BF16_TOLERANCE


def _best(runs: Runs, **wanted: str) -> float:
    return min(
        (
            float(run["median_us"])
            for run in runs
            if all(run.get(key) == value for key, value in wanted.items())
        ),
        default=math.nan,
    )


def _best_serial(runs: Runs, *, contiguous: bool = False) -> float:
    """Ours, FlashInfer's two kernels, or the fastest kernels of anybody for each part, added.

    contiguous  take part also those who cannot read a paged cache: torch's kernels, cuDNN's by it
    """
    fair = [run for run in runs if contiguous or not run["name"].startswith(_CONTIGUOUS)]
    parts = _best(fair, part="prefill") + _best(fair, part="decode")
    whole = [
        _best(runs, strategy="serial"),
        *(_best(runs, name=f"flashinfer {kernel} then decode") for kernel in ("fa2", "fa3")),
    ]
    return _least([parts, *whole])


def _all_rows(runs: Runs) -> float:
    kernels = ("fa2", "fa3")
    return _least(_best(runs, name=f"flashinfer prefill {k}, all rows") for k in kernels)


def _least(values: Iterable[float]) -> float:
    return min((value for value in values if math.isfinite(value)), default=math.nan)


def geomean(values: list[float]) -> float:
    """Geometric mean of at least one value."""
    return math.exp(sum(math.log(value) for value in values) / len(values))
