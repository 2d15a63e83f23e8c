"""What Nsight Compute says of one case: pipes, DRAM, occupancy and stalls of the kernel."""

from __future__ import annotations

import argparse
import csv
import io
import shutil
import subprocess
import sys
from collections.abc import Iterable
from typing import Any

from .output import Output, add_output

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
# Shown on the terminal; the JSON holds all.
_SHOWN = (
    "throughput",
    "duration",
    "occupancy",
    "tensor",
    "dram",
    "registers",
    "stalled",
    "hit rate",
)
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
    command += [sys.executable, "-m", str(__package__), "once", "--case", case]
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


def main(arguments: list[str] | None = None) -> None:
    """Print the main metrics, save ncu.json."""
    parser = argparse.ArgumentParser(prog="ncu", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--case", action="append", help="part of a case's name; may repeat")
    parser.add_argument("--strategy", default="fused")
    parser.add_argument("--seconds", type=float, default=120.0, help="limit of one ncu run")
    add_output(parser)
    options = parser.parse_args(arguments)
    output = Output(options.out, "ncu")
    document: dict[str, Any] = {}
    # Sections exist on every GPU; a metric's name may not, and costs the run it is part of.
    selections = {
        "sections": [word for name in _SECTIONS for word in ("--section", name)],
        "metrics": ["--metrics", ",".join(_METRICS)],
    }
    for case in options.case or ["C0"]:
        for name, selection in selections.items():
            found = profile(case, options.strategy, options.seconds, selection)
            document.setdefault(case, {})[name] = found
            output.save(document)
            for metric, value in found.items():
                if metric == "error" or any(word in metric.lower() for word in _SHOWN):
                    print(f"{case} {metric}: {value}", flush=True)
