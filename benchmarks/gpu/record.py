"""Files what a visit to a GPU left: results/gpu_*.json, headlines and the tables of docs/gpu.md.

Run it in a checkout, on any machine, with the folder that the other parts wrote to.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
from pathlib import Path
from typing import Any

from .. import _results
from .numbers_summary import of_case, summarize

_ROOT = Path(__file__).resolve().parents[2]
_RESULTS = _ROOT / "benchmarks" / "results"
_DOC = _ROOT / "docs" / "gpu.md"
_PARTS = ("first_contact", "numbers", "tune", "sweep", "hf", "ncu")
_NUMBERS, _CONTACT = "pod-attn bench gpu -- numbers", "pod-attn bench gpu -- first-contact"
_GEOMEANS = {
    "gpu.fused_vs_serial_geomean": "fused_vs_serial",
    "gpu.fused_vs_best_serial_geomean": "fused_vs_best_serial",
    "gpu.fused_vs_flashinfer_batchpod_geomean": "fused_vs_batchpod",
    "gpu.fused_vs_flashinfer_batchattention_geomean": "fused_vs_batchattention",
    "gpu.default_vs_serial_geomean": "default_vs_serial",
    "gpu.default_vs_best_serial_geomean": "default_vs_best_serial",
    "gpu.default_vs_flashinfer_batchpod_geomean": "default_vs_batchpod",
}
_COLUMNS = (
    ("fused us", "fused_us", ".0f"),
    ("default us", "fused_default_us", ".0f"),
    ("our serial us", "serial_us", ".0f"),
    ("any serial us", "best_serial_us", ".0f"),
    ("vs our serial", "fused_vs_serial", ".2f"),
    ("vs any serial", "fused_vs_best_serial", ".2f"),
    ("vs BatchPOD", "fused_vs_batchpod", ".2f"),
    ("vs BatchAttention", "fused_vs_batchattention", ".2f"),
    ("over floor", "floor_ratio", ".2f"),
)


def slim(document: dict[str, Any]) -> dict[str, Any]:
    """Numbers without the hundreds of configs that were tried and lost."""
    for entry in document["cases"].values():
        tried = [run for run in entry["runs"] if run.get("label") == "tried" and "median_us" in run]
        best = {}
        for run in tried:
            known = best.get(run["strategy"])
            if known is None or run["median_us"] < known["median_us"]:
                best[run["strategy"]] = run
        kept = [run for run in entry["runs"] if run.get("label") != "tried"]
        entry["runs"] = kept + list(best.values())
        entry["configs_tried"] = len(tried)
    return document


def table(numbers: dict[str, Any]) -> str:
    """One row per case; a number that was not measured is a dash."""
    heads = ["case", "prefill", "decodes", *(name for name, _, _ in _COLUMNS)]
    lines = [f"| {' | '.join(heads)} |", f"|---|---|---|{'---:|' * len(_COLUMNS)}"]
    for name, entry in numbers["cases"].items():
        ratios = of_case(entry)
        cells = [format(ratios[key], how) if key in ratios else "-" for _, key, how in _COLUMNS]
        row = [name, entry["prefill"], entry["decodes"], *cells]
        lines.append(f"| {' | '.join(row)} |")
    return "\n".join(lines)


def headlines(documents: dict[str, dict[str, Any]]) -> list[tuple[str, float, str, str]]:
    """(name, value, unit, command) of what the folder holds."""
    found: list[tuple[str, float, str, str]] = []
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
    return found


def main(arguments: list[str] | None = None) -> None:
    """File the documents of a folder."""
    parser = argparse.ArgumentParser(prog="record", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("folder", type=Path, help="what --out of the other parts named")
    options = parser.parse_args(arguments)
    paths = {name: options.folder / f"{name}.json" for name in _PARTS}
    documents = {name: json.loads(p.read_text()) for name, p in paths.items() if p.exists()}
    if "numbers" in documents:
        documents["numbers"]["summary"] = summarize(documents["numbers"]["cases"])
    reports = [d["machine"] for d in documents.values() if "utc" in d.get("machine", {})]
    if not reports:
        parser.error(f"{options.folder} holds no result of {', '.join(_PARTS)}")
    where, when = reports[0]["device"]["name"], reports[0]["utc"][:10]
    for name, document in documents.items():
        kept = slim(document) if name == "numbers" else document
        if name == "sweep":
            kept = {**document, "cases": [_without_times(case) for case in document["cases"]]}
        path = _RESULTS / f"gpu_{name}.json"
        path.write_text(json.dumps({"gpu": where, "date": when, **kept}, indent=1) + "\n")
    for name, value, unit, command in headlines(documents):
        _results.record_headline(name, value, unit, command, where=where, when=when)
        print(f"{name:48s} {value:.4g} {unit}")
    if "numbers" in documents:
        text = _DOC.read_text()
        drawn = f"<!-- gpu:begin -->\n{table(documents['numbers'])}\n<!-- gpu:end -->"
        _DOC.write_text(re.sub(r"<!-- gpu:begin -->.*<!-- gpu:end -->", drawn, text, flags=re.S))


def _without_times(case: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in case.items() if name != "times"}
