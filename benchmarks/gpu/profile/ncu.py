"""What Nsight Compute says of a case: tensor pipes, DRAM, occupancy and stalls of the kernel."""

from __future__ import annotations

import argparse
import csv
import io
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable
from typing import Any

from benchmarks.gpu.common import machine
from benchmarks.gpu.common.output import Output, add_output

_SECTIONS = (
    *("SpeedOfLight", "Occupancy", "LaunchStats", "WarpStateStats"),
    *("ComputeWorkloadAnalysis", "MemoryWorkloadAnalysis", "SchedulerStats"),
)
_METRICS = (
    "sm__pipe_tensor_cycles_active.avg.pct_of_peak_sustained_active",
    "sm__inst_executed_pipe_tensor.sum",
    "dram__throughput.avg.pct_of_peak_sustained_elapsed",
    "dram__bytes_read.sum",
    "sm__warps_active.avg.pct_of_peak_sustained_active",
    "gpu__time_duration.sum",
)
# By name in the summary: section and metric, without the unit. All that ncu said is saved too.
_SUMMARY = {
    "duration_us": ("metrics", "gpu__time_duration.sum"),
    "tensor_pipe_pct": ("metrics", _METRICS[0]),
    "dram_pct": ("metrics", "dram__throughput.avg.pct_of_peak_sustained_elapsed"),
    "dram_read_bytes": ("metrics", "dram__bytes_read.sum"),
    "l2_hit_pct": ("Memory Workload Analysis", "L2 Hit Rate"),
    "issue_slots_pct": ("Compute Workload Analysis", "Issue Slots Busy"),
    "occupancy_pct": ("Occupancy", "Achieved Occupancy"),
    "occupancy_limit_pct": ("Occupancy", "Theoretical Occupancy"),
    "registers": ("Launch Statistics", "Registers Per Thread"),
    "spilling_requests": ("Memory Workload Analysis", "Local Memory Spilling Requests"),
}
_STALL = "Warp State Statistics / Stall "
_NUMBER = re.compile(r"[\d,.]+")
# To microseconds and bytes.
_UNITS = {"ns": 1e-3, "us": 1.0, "ms": 1e3, "Kbyte": 1e3, "Mbyte": 1e6, "Gbyte": 1e9}
_WARMUP = 2
_TEXT = 1500


def profile(case: str, strategy: str, seconds: float, selection: Iterable[str]) -> dict[str, Any]:
    """Metrics of the third launch of the kernel, by name; `error` when ncu could not."""
    tool = shutil.which("ncu")
    if tool is None:
        return {"error": "no ncu in PATH; add Nsight Compute's folder to it"}
    command = [tool, "--clock-control", "none", "--csv", "--page", "details"]
    command += ["--print-details", "all", "-k", "regex:pod_kernel"]
    command += ["--launch-skip", str(_WARMUP), "--launch-count", "1", *selection]
    command += [sys.executable, "-m", "benchmarks.gpu", "once", "--case", case]
    command += ["--strategy", strategy, "--repeats", str(_WARMUP + 1)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=False)
    except subprocess.TimeoutExpired:
        return {"error": f"stopped after {seconds} s"}
    metrics = parse(done.stdout)
    if metrics:
        return metrics
    return {"error": f"exit code {done.returncode}: {(done.stdout + done.stderr)[-_TEXT:]}"}


def parse(text: str) -> dict[str, str]:
    """`section / metric (unit)` to value, of ncu's CSV; what stands before the CSV is skipped."""
    lines = [line for line in text.splitlines() if line.startswith('"')]
    rows = csv.DictReader(io.StringIO("\n".join(lines)))
    metrics: dict[str, str] = {}
    for row in rows:
        if row.get("Metric Name") and row.get("Metric Value"):
            unit = f" ({row['Metric Unit']})" if row.get("Metric Unit") else ""
            section = row.get("Section Name") or "metrics"
            metrics[f"{section} / {row['Metric Name']}{unit}"] = row["Metric Value"]
    return metrics


def summary(sections: dict[str, str], metrics: dict[str, str]) -> dict[str, Any]:
    """The few numbers that say what bounds the kernel; one that ncu did not report is None.

    stalls  cycles between two instructions of a warp by reason, the longest first
    """
    found: dict[str, Any] = {}
    for name, (section, metric) in _SUMMARY.items():
        source = metrics if section == "metrics" else sections
        found[name] = next(
            (
                _number(value) * _UNITS.get(_unit(key), 1.0)
                for key, value in source.items()
                if _NUMBER.fullmatch(value)
                and re.sub(r" \([^()]*\)$", "", key).endswith(f"/ {metric}")
                and (section == "metrics" or key.startswith(section))
            ),
            None,
        )
    stalls = {
        key.removeprefix(_STALL).rsplit(" (", 1)[0]: _number(value)
        for key, value in sections.items()
        if key.startswith(_STALL) and _NUMBER.fullmatch(value)
    }
    ordered = sorted(stalls.items(), key=lambda item: -item[1])
    found["stalls"] = {name: cycles for name, cycles in ordered if cycles > 0}
    return found


def _unit(key: str) -> str:
    unit = re.search(r"\(([^()]*)\)$", key)
    return unit[1] if unit else ""


def _number(text: str) -> float:
    return float(text.replace(",", ""))


def main(arguments: list[str] | None = None) -> None:
    """Print the summaries as one JSON, save them and all that ncu said in ncu.json."""
    parser = argparse.ArgumentParser(prog="ncu", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--case", action="append", help="number or part of a name; may repeat")
    parser.add_argument("--strategy", default="fused")
    parser.add_argument("--seconds", type=float, default=120.0, help="limit of one ncu run")
    add_output(parser)
    options = parser.parse_args(arguments)
    output = Output(options.out, "ncu")
    document: dict[str, Any] = {"machine": machine.report(), "summary": {}, "cases": {}}
    # Sections exist on every GPU; a metric's name may not, and costs the run it is part of.
    selections = {
        "sections": [word for name in _SECTIONS for word in ("--section", name)],
        "metrics": ["--metrics", ",".join(_METRICS)],
    }
    failed = []
    for case in options.case or ["C0"]:
        found = {
            name: profile(case, options.strategy, options.seconds, selection)
            for name, selection in selections.items()
        }
        failed += [f"{case}: {said['error']}" for said in found.values() if "error" in said]
        document["cases"][case] = found
        document["summary"][case] = summary(found["sections"], found["metrics"])
        output.save(document)
    print(json.dumps(document["summary"], indent=1))
    if failed:
        sys.exit("ncu: " + "; ".join(failed))
