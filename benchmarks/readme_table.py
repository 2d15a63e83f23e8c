"""Draws the README's number table from benchmarks/results/headline.json.

python benchmarks/readme_table.py          rewrite the table in README.md
python benchmarks/readme_table.py --check  exit 1 when it is out of date
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
BEGIN, END = "<!-- headline:begin -->", "<!-- headline:end -->"

# What the README shows, in its order; a name without a result is shown as "-".
ROWS = {
    "sglang.requests_token_equal": "Requests whose greedy tokens equal SGLang's `torch_native`",
    "sglang.requests_compared": "... of requests compared, over all server variants",
    "sglang.model_families_equal": "Families of small random models whose tokens equal stock's",
    "sglang.model_families_tried": "... of families tried in SGLang on a CPU",
    "sglang.model_families_refused": "... of them refused at start-up, an alternative named",
    "hf.models_token_equal": "transformers models whose greedy tokens equal stock attention's",
    "hf.models_compared": "... of models compared, each on every version",
    "hf.scenarios_passed": "Scenarios of transformers' continuous-batching suite that pass",
    "hf.scenarios_run": "... of scenarios run",
    "hf.versions": "Versions of transformers in the two rows above",
    "hf.generate_batch_speedup_vs_sdpa": "`generate_batch` on POD against `sdpa`",
    "hf.gather_bytes_avoided_per_step": "K/V copies per step that `sdpa` makes and POD does not",
    "gpu.wrappers_equal": "PTX wrappers that compute on a GPU what they do emulated",
    "gpu.wrappers_total": "... of wrappers",
    "gpu.tests_passed": "Checks of the op passed on a GPU, none failed",
    "gpu.accuracy_cases": "Long and extreme inputs on a GPU, judged by the law of accuracy",
    "gpu.lse_error_ulp_max_128k": "... largest error of the LSE at 128K keys, in ulp",
    "gpu.fused_vs_serial_geomean": "Best fused config against our best serial, 12 cases",
    "gpu.fused_vs_best_serial_geomean": "... against anybody's best serial (without cuDNN)",
    "gpu.fused_vs_flashinfer_batchpod_geomean": "... against FlashInfer's BatchPOD",
    "gpu.fused_vs_flashinfer_batchattention_geomean": "... against FlashInfer's BatchAttention",
    "gpu.default_vs_serial_geomean": "Default fused config against our best serial",
    "gpu.default_vs_best_serial_geomean": "... against anybody's best serial (without cuDNN)",
    "gpu.default_vs_flashinfer_batchpod_geomean": "... against FlashInfer's BatchPOD",
    "gpu.grid_fused_vs_serial_geomean": "Best fused against our best serial, paper's sweep",
    "gpu.grid_fused_vs_best_serial_geomean": "... against anybody's best serial (without cuDNN)",
    "gpu.grid_fused_vs_best_serial_below_1": "... share of cases where that serial is faster",
    "gpu.floor_ratio_geomean": "Best fused config, time above the roofline floor",
    "gpu.speed_after_numerics_geomean": "Speed of the kernel after its numerics were made exact",
    "gpu.corun_share": "Busy time in which an SM held both ops, mean of the cases",
    "gpu.generate_batch_speedup_vs_sdpa": "transformers' `generate_batch` on POD against `sdpa`",
    "gpu.logit_error_vs_sdpa": "... error of bf16 logits against fp32, over `sdpa`'s",
    "gpu.sglang_saturated_vs_fa3": "SGLang on POD against the better of two `fa3` servers",
    "trace.gpu_time_agreement_pct": "Attention time in a GPU server's traces, from the profiler's",
    "trace.gpu_overhead_pct": "... what tracing costs",
    "op.accuracy_cases": "Long and extreme inputs on a CPU, within the law of accuracy",
    "op.lse_error_ulp_max_128k": "... largest error of the LSE at 128K keys",
    "op.sdpa_loop_ratio_min": "Our op against a loop of torch SDPA, worst hybrid batch",
    "op.sdpa_loop_ratio_median": "... median hybrid batch",
    "kernel.emulated_cases": "Cases of the GPU kernel on emulated SMs that match float64",
    "kernel.mutations_caught": "Bugs planted in the GPU kernel that its tests catch",
    "kernel.mutations_total": "... of bugs planted",
    "kernel.variants_built": "Variants of the GPU kernel built, six architectures together",
    "kernel.variants_with_spills": "... of them with register spills",
    "kernel.model_agreements": "Published comparisons that the GPU kernel's cost model reproduces",
    "kernel.model_checks": "... of comparisons checked",
    "tuner.fuzz_requests": "Requests that no client should send, answered by the tuner",
    "tuner.fuzz_5xx": "... of them with a failure (5xx)",
    "demo.hybrid_step_share": "Hybrid steps in the demo",
    "demo.attention_speedup_tuned_vs_default": "Attention time in the demo, tuned vs default",
    "demo.seconds_to_summary": "Demo, from start to summary",
}


def table(headline: dict[str, dict[str, Any]]) -> str:
    """The Markdown table of ROWS."""
    lines = ["| what | value | machine | date | command |", "|---|---:|---|---|---|"]
    for name, text in ROWS.items():
        entry = headline.get(name, {})
        value = _value(entry.get("value"), entry.get("unit", ""))
        command = f"`{entry['command']}`" if "command" in entry else "-"
        cells = (text, value, entry.get("machine", "-"), entry.get("date", "-"), command)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _value(value: float | None, unit: str) -> str:
    if value is None:
        return "-"
    if unit == "share":
        return f"{100 * value:.0f} %"
    if unit.startswith("%"):
        return f"{value:.2g} {unit}"
    if unit == "ulp":
        return f"{value:.2f} ulp"
    if unit.split(",")[0] == "x":
        # What is divided by what stands behind the comma of the unit.
        return f"{value:.2f}x{unit[1:]}"
    return f"{value:.0f} {unit}".strip()


def render(readme: str, headline: dict[str, dict[str, Any]]) -> str:
    """README text with the table between its markers replaced."""
    head, rest = readme.split(BEGIN)
    _, tail = rest.split(END)
    return f"{head}{BEGIN}\n{table(headline)}\n{END}{tail}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing, exit 1 if stale")
    arguments = parser.parse_args()
    path = ROOT / "README.md"
    stored = ROOT / "benchmarks" / "results" / "headline.json"
    old = path.read_text()
    new = render(old, json.loads(stored.read_text()) if stored.exists() else {})
    if arguments.check and new != old:
        sys.exit("README.md is out of date: python benchmarks/readme_table.py")
    if new != old:
        path.write_text(new)


if __name__ == "__main__":
    main()
