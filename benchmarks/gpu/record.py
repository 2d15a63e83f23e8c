"""Files what a visit to a GPU left: results/gpu_*.json, headlines and the tables of docs/gpu.md.

Run it in a checkout, on any machine, with the folder that the other parts wrote to.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

from .. import _results
from . import record_tables
from .numbers_summary import summarize

_ROOT = Path(__file__).resolve().parents[2]
_RESULTS = _ROOT / "benchmarks" / "results"
_DOC, _SPREAD = _ROOT / "docs" / "gpu.md", _ROOT / "docs" / "gpu_spread.svg"
_PARTS = (
    "first_contact",
    "numbers",
    "tune",
    "sweep",
    "hf",
    "sglang",
    "ncu",
    "grid",
    "versus",
    "traces",
)
_NUMBERS, _CONTACT = "pod-attn bench gpu -- numbers", "pod-attn bench gpu -- first-contact"
Headline = tuple[str, float, str, str]
_GEOMEANS = {
    "gpu.fused_vs_serial_geomean": "fused_vs_serial",
    "gpu.fused_vs_best_serial_geomean": "fused_vs_best_serial",
    "gpu.fused_vs_flashinfer_batchpod_geomean": "fused_vs_batchpod",
    "gpu.fused_vs_flashinfer_batchattention_geomean": "fused_vs_batchattention",
    "gpu.default_vs_serial_geomean": "default_vs_serial",
    "gpu.default_vs_best_serial_geomean": "default_vs_best_serial",
    "gpu.default_vs_flashinfer_batchpod_geomean": "default_vs_batchpod",
}
_GRID = "pod-attn bench gpu -- numbers --grid"
_HF = "pod-attn bench gpu -- hf"
_SGLANG = "pod-attn bench gpu -- sglang --quick"
_TRACES = "pod-attn bench gpu -- traces"
_VERSUS = "python -m benchmarks.gpu versus --label {label} before=TREE after=."


def slim(document: dict[str, Any]) -> dict[str, Any]:
    """Numbers without the hundreds of configs that were tried and lost."""
    for entry in document["cases"].values():
        if "configs_tried" in entry:
            # Recorded before, and merged.
            continue
        tried = [run for run in entry["runs"] if run.get("label") == "tried" and "median_us" in run]
        best: dict[str, dict[str, Any]] = {}
        for run in tried:
            known = best.get(run["strategy"])
            if known is None or run["median_us"] < known["median_us"]:
                best[run["strategy"]] = run
        kept = [run for run in entry["runs"] if run.get("label") != "tried"]
        entry["runs"] = kept + list(best.values())
        entry["configs_tried"] = len(tried)
    return document


def merged(rerun: dict[str, Any], recorded: dict[str, Any], gpu: str) -> dict[str, Any]:
    """Recorded numbers with the cases of `rerun` replaced; each of those names its own run.

    Raises ValueError when the two come from different GPUs.
    """
    if recorded["gpu"] != gpu:
        raise ValueError(
            f"single cases were measured again on {gpu}, the recorded ones on {recorded['gpu']}; "
            "measure all of them there: numbers without --cases"
        )
    told = ("utc", "kernel_build", "host_build", "clocks")
    machine = {name: rerun["machine"].get(name) for name in told}
    again = {
        name: {**rerun["cases"][name], "machine": machine}
        for name in rerun["rerun"]
        if name in rerun["cases"]
    }
    kept = {name: value for name, value in recorded.items() if name not in ("gpu", "date")}
    return {**kept, "cases": {**recorded["cases"], **again}}


def headlines(documents: dict[str, dict[str, Any]]) -> list[Headline]:
    """(name, value, unit, command) of what the folder holds."""
    found: list[Headline] = []
    steps = documents.get("first_contact", {}).get("steps", {})
    if "result" in steps.get("conformance", {}):
        result = steps["conformance"]["result"]
        for name in ("wrappers_equal", "wrappers_total"):
            found.append((f"gpu.{name}", result[name], "wrappers", _CONTACT))
    if "result" in steps.get("checks", {}):
        found.append(("gpu.tests_passed", steps["checks"]["result"]["passed"], "checks", _CONTACT))
    if "result" in steps.get("corun", {}):
        shares = [case["fused"]["of_busy"] for case in steps["corun"]["result"]["cases"]]
        found.append(("gpu.corun_share", statistics.mean(shares), "share", _CONTACT))
    summary = documents.get("numbers", {}).get("summary", {})
    for name, key in _GEOMEANS.items():
        if f"{key}_geomean" in summary:
            found.append((name, summary[f"{key}_geomean"], "x", _NUMBERS))
    if "floor_ratio_geomean" in summary:
        ratio = summary["floor_ratio_geomean"]
        found.append(("gpu.floor_ratio_geomean", ratio, "x, time / floor", _NUMBERS))
    parts = (_grid_headlines, _hf_headlines, _sglang_headlines, _versus_headlines, _trace_headlines)
    return found + [line for part in parts for line in part(documents)]


def _grid_headlines(documents: dict[str, dict[str, Any]]) -> list[Headline]:
    spread = documents.get("grid", {}).get("summary", {}).get("all", {})
    found: list[Headline] = []
    for name in ("fused_vs_serial", "fused_vs_best_serial", "fused_vs_batchpod"):
        if name in spread:
            unit = f"x, {spread[name]['cases']} cases"
            found.append((f"gpu.grid_{name}_geomean", spread[name]["geomean"], unit, _GRID))
            found.append((f"gpu.grid_{name}_below_1", spread[name]["below_1"], "share", _GRID))
    return found


def _hf_headlines(documents: dict[str, dict[str, Any]]) -> list[Headline]:
    document = documents.get("hf", {})
    found: list[Headline] = []
    runs, logits = document.get("runs", {}), document.get("logits", {})
    if {"pod", "sdpa"} <= set(runs):
        ratio = runs["sdpa"]["seconds"] / runs["pod"]["seconds"]
        found.append(("gpu.generate_batch_speedup_vs_sdpa", ratio, "x", _HF))
    if {"pod", "sdpa"} <= set(logits):
        error = logits["pod"]["logit_mean"] / logits["sdpa"]["logit_mean"]
        found.append(("gpu.logit_error_vs_sdpa", error, "x, mean error against fp32", _HF))
    if "near_ties" in document.get("differences", {}).get("pod", {}):
        share = document["differences"]["pod"]["near_ties"]
        found.append(("gpu.differences_near_ties", share, "share", _HF))
    return found


def _sglang_headlines(documents: dict[str, dict[str, Any]]) -> list[Headline]:
    runs = documents.get("sglang", {}).get("runs", {})
    rate = {
        name: run["saturated"]["output_tokens_per_second"]
        for name, run in runs.items()
        if run.get("saturated")
    }
    stock = [rate[name] for name in ("fa3, mixed", "fa3") if name in rate]
    if "pod, mixed" not in rate or not stock:
        return []
    unit = "x, output tokens/s, saturated"
    return [("gpu.sglang_saturated_vs_fa3", rate["pod, mixed"] / max(stock), unit, _SGLANG)]


def _versus_headlines(documents: dict[str, dict[str, Any]]) -> list[Headline]:
    document = documents.get("versus", {})
    found = document.get("compared", {}).get("after, fused")
    if found is None:
        return []
    name = f"gpu.speed_after_{document['label']}_geomean"
    unit = f"x, time before / after, {len(found['cases'])} cases"
    return [(name, found["geomean"], unit, _VERSUS.format(label=document["label"]))]


def _trace_headlines(documents: dict[str, dict[str, Any]]) -> list[Headline]:
    document = documents.get("traces", {})
    found: list[Headline] = []
    agreement = document.get("agreement", {})
    if "traced_over_profiled" in agreement:
        unit = f"% off the profiler's attention time, {agreement['steps']} steps"
        off = 100 * abs(agreement["traced_over_profiled"] - 1)
        found.append(("trace.gpu_time_agreement_pct", off, unit, _TRACES))
    if "overhead" in document:
        cost = 100 * document["overhead"]
        found.append(("trace.gpu_overhead_pct", cost, "% of output tokens/s", _TRACES))
    return found


def main(arguments: list[str] | None = None) -> None:
    """File the documents of a folder."""
    parser = argparse.ArgumentParser(prog="record", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("folder", type=Path, help="what --out of the other parts named")
    options = parser.parse_args(arguments)
    paths = {name: options.folder / f"{name}.json" for name in _PARTS}
    documents = {name: json.loads(p.read_text()) for name, p in paths.items() if p.exists()}
    reports = [d["machine"] for d in documents.values() if "utc" in d.get("machine", {})]
    if not reports:
        parser.error(f"{options.folder} holds no result of {', '.join(_PARTS)}")
    where, when = reports[0]["device"]["name"], reports[0]["utc"][:10]
    if "numbers" in documents:
        if "rerun" in documents["numbers"]:
            recorded = json.loads((_RESULTS / "gpu_numbers.json").read_text())
            documents["numbers"] = merged(documents["numbers"], recorded, where)
        documents["numbers"]["summary"] = summarize(documents["numbers"]["cases"])
    for name, document in documents.items():
        path = _RESULTS / f"gpu_{name}.json"
        kept = {"gpu": where, "date": when, **_kept(name, document)}
        path.write_text(json.dumps(kept, indent=1) + "\n")
    for name, value, unit, command in headlines(documents):
        _results.record_headline(name, value, unit, command, where=where, when=when)
        print(f"{name:48s} {value:.4g} {unit}")
    draw(documents)


def draw(documents: dict[str, dict[str, Any]]) -> None:
    """Replace the rows of docs/gpu.md of every document that is there."""
    text = _DOC.read_text()
    drawn = {
        "gpu": ("numbers", record_tables.cases),
        "gpu-grid": ("grid", record_tables.grid),
        "gpu-hf": ("hf", record_tables.transformers),
        "gpu-sglang": ("sglang", record_tables.sglang),
    }
    for mark, (name, table) in drawn.items():
        if name in documents:
            text = record_tables.replaced(text, mark, table(documents[name]))
    if "grid" in documents:
        _SPREAD.write_text(record_tables.spread_picture(documents["grid"]))
    _DOC.write_text(text)


def _kept(name: str, document: dict[str, Any]) -> dict[str, Any]:
    if name == "numbers":
        return slim(document)
    if name == "grid":
        return _without_configs(slim(document))
    if name == "sweep":
        return {**document, "cases": [_without_times(case) for case in document["cases"]]}
    return document


def _without_configs(document: dict[str, Any]) -> dict[str, Any]:
    """Runs name their config by its short text alone: there are thousands."""
    for entry in document["cases"].values():
        for run in entry["runs"]:
            run.pop("config", None)
    return document


def _without_times(case: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in case.items() if name != "times"}
