"""The headline numbers of a visit to a GPU, from the documents of its parts."""

from __future__ import annotations

import statistics
from typing import Any

from benchmarks.gpu.visit.features_record import features_headlines
from benchmarks.gpu.visit.grammar_record import grammar_headlines
from benchmarks.gpu.visit.live_headlines import live_headlines
from benchmarks.gpu.visit.real_headlines import real_headlines
from benchmarks.gpu.visit.serving_headlines import serving_headlines
from benchmarks.gpu.visit.spec_headlines import spec_headlines

_NUMBERS, _CONTACT = "pod-attn bench gpu -- numbers", "pod-attn bench gpu -- first-contact"
_CONFORMANCE = "pod-attn bench gpu -- conformance"
_CHECKS = "pod-attn bench gpu -- checks"
Headline = tuple[str, float, str, str]
_GEOMEANS = {
    "fused_vs_serial_geomean": "fused_vs_serial",
    "fused_vs_best_serial_geomean": "fused_vs_best_serial",
    "fused_vs_contiguous_serial_geomean": "fused_vs_contiguous_serial",
    "fused_vs_flashinfer_batchpod_geomean": "fused_vs_batchpod",
    "fused_vs_flashinfer_batchattention_geomean": "fused_vs_batchattention",
    "default_vs_serial_geomean": "default_vs_serial",
    "default_vs_best_serial_geomean": "default_vs_best_serial",
    "default_vs_contiguous_serial_geomean": "default_vs_contiguous_serial",
    "default_vs_flashinfer_batchpod_geomean": "default_vs_batchpod",
    "default_vs_flashinfer_batchattention_geomean": "default_vs_batchattention",
    "prefill_vs_fa3_geomean": "prefill_vs_fa3",
}
_FLOORS = {
    "floor_ratio_geomean": "floor_ratio",
    "decode_floor_ratio": "decode_floor_ratio",
}
_GRID = "pod-attn bench gpu -- numbers --grid"
_GRID_DEFAULT = f"{_GRID} --default-only"
_HF = "pod-attn bench gpu -- hf"
_SGLANG = "pod-attn bench gpu -- sglang --quick"
_TRACES = "pod-attn bench gpu -- traces"
_FP8 = "python -m benchmarks.gpu fp8"
_TP = "pod-attn bench gpu -- tp"
_TABLES = "python -m benchmarks.gpu tables"
_POWER = "python -m benchmarks.gpu power"
_VERSUS = "python -m benchmarks.gpu versus --label {label}{part} before=TREE after=."


def headlines(documents: dict[str, dict[str, Any]], prefix: str = "gpu") -> list[Headline]:
    """(name, value, unit, command) of what the folder holds.

    prefix  of the names of what is filed by GPU, as record.prefix_of
    """
    found: list[Headline] = []
    steps = documents.get("first_contact", {}).get("steps", {})
    conformance = documents.get("conformance") or steps.get("conformance", {}).get("result", {})
    if "wrappers_equal" in conformance:
        names = ("wrappers_equal", "wrappers_total")
        told = _CONFORMANCE if "conformance" in documents else _CONTACT
        found += [(f"gpu.{name}", conformance[name], "wrappers", told) for name in names]
    if "result" in steps.get("corun", {}):
        shares = [case["fused"]["of_busy"] for case in steps["corun"]["result"]["cases"]]
        found.append(("gpu.corun_share", statistics.mean(shares), "share", _CONTACT))
    found += _case_headlines(documents.get("numbers", {}).get("summary", {}), prefix)
    found += _grid_headlines(documents.get("grid", {}), prefix)
    found += grammar_headlines(documents.get("grammar", {}), prefix)
    found += _power_headlines(documents.get("power", {}), prefix)
    parts = [_check_headlines, _hf_headlines, _sglang_headlines]
    parts += [_versus_headlines, _fp8_headlines, _trace_headlines, live_headlines, _tp_headlines]
    parts += [real_headlines, serving_headlines, spec_headlines, features_headlines]
    parts.append(_table_headlines)
    return found + [line for part in parts for line in part(documents)]


def _power_headlines(document: dict[str, Any], prefix: str) -> list[Headline]:
    calls = [entry["calls"] for entry in document.get("cases", {}).values()]
    names = {"joules": "joules_serial_over_default_geomean", "us": "sustained_vs_serial_geomean"}
    return [
        (
            f"{prefix}.{name}",
            statistics.geometric_mean(
                one["one after the other"][unit] / one["default"][unit] for one in calls
            ),
            f"x, {len(calls)} batches",
            _POWER,
        )
        for unit, name in names.items()
        if calls
    ]


def _case_headlines(summary: dict[str, Any], prefix: str) -> list[Headline]:
    found = [
        (f"{prefix}.{name}", summary[f"{key}_geomean"], unit, _NUMBERS)
        for names, unit in ((_GEOMEANS, "x"), (_FLOORS, "x, time / floor"))
        for name, key in names.items()
        if f"{key}_geomean" in summary
    ]
    ratios = [one.get("default_vs_best_serial") for one in summary.get("by_case", {}).values()]
    known = [ratio for ratio in ratios if ratio is not None]
    if known:
        name = f"{prefix}.default_vs_best_serial"
        found += [(f"{name}_{end.__name__}", end(known), "x", _NUMBERS) for end in (min, max)]
    return found


def _check_headlines(documents: dict[str, dict[str, Any]]) -> list[Headline]:
    steps = documents.get("first_contact", {}).get("steps", {})
    checks = documents.get("checks") or steps.get("checks", {}).get("result", {})
    passed: list[Headline] = []
    if "passed" in checks:
        passed = [("gpu.tests_passed", checks["passed"], "checks", _CHECKS)]
    found = checks.get("accuracy", {})
    if found.get("lse_error_ulp_max_128k") is None:
        return passed
    unit = f"cases, {found['within']} within the law"
    return [
        *passed,
        ("gpu.accuracy_cases", found["cases"], unit, _CHECKS),
        ("gpu.lse_error_ulp_max_128k", found["lse_error_ulp_max_128k"], "ulp", _CHECKS),
    ]


def _grid_headlines(document: dict[str, Any], prefix: str) -> list[Headline]:
    spread = document.get("summary", {}).get("all", {})
    only = document.get("sample", {}).get("configs") == "default"
    command = _GRID_DEFAULT if only else _GRID
    found: list[Headline] = []
    for name in ("fused_vs_serial", "fused_vs_best_serial", "fused_vs_batchpod"):
        if name in spread:
            of = f"{prefix}.grid_{name}"
            unit = f"x, {spread[name]['cases']} cases"
            found.append((f"{of}_geomean", spread[name]["geomean"], unit, command))
            found.append((f"{of}_below_1", spread[name]["below_1"], "share", command))
    for name in ("default_vs_best_serial", "default_vs_batchpod"):
        if name in spread:
            unit = f"x, {spread[name]['cases']} cases"
            found.append((f"{prefix}.grid_{name}_geomean", spread[name]["geomean"], unit, command))
    if "default_vs_best_serial" in spread:
        judged = spread["default_vs_best_serial"]
        unit = f"% of {judged['cases']} cases"
        lost = 100 * judged["below_098"]
        found.append((f"{prefix}.grid_below_098_pct", lost, unit, command))
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
    part = " --part grammar" if document.get("part") == "grammar" else ""
    return [(name, found["geomean"], unit, _VERSUS.format(label=document["label"], part=part))]


def _fp8_headlines(documents: dict[str, dict[str, Any]]) -> list[Headline]:
    summary = documents.get("fp8", {}).get("summary", {})
    return [
        (
            f"fp8.{kind}_time_vs_bf16",
            summary[kind],
            f"x, {summary[f'{kind}_cases']} cases, both defaults",
            _FP8,
        )
        for kind in ("decode", "hybrid")
        if kind in summary
    ]


def _table_headlines(documents: dict[str, dict[str, Any]]) -> list[Headline]:
    buckets = documents.get("tables", {}).get("buckets", [])
    proven = [line for line in buckets if line["entry"] is not None]
    if not proven:
        return []
    gains = [line["finalists"][line["entry"]]["proof"]["speedup"] for line in proven]
    geometries = len({line["geometry"] for line in proven})
    unit = f"geometries, {len(proven)} of {len(buckets)} buckets"
    return [
        ("tables.shipped_geometries", geometries, unit, _TABLES),
        ("tables.shipped_speedup_geomean", statistics.geometric_mean(gains), "x", _TABLES),
    ]


def _trace_headlines(documents: dict[str, dict[str, Any]]) -> list[Headline]:
    document = documents.get("traces", {})
    found: list[Headline] = []
    agreement = document.get("agreement", {})
    if "traced_over_profiled" in agreement:
        unit = f"% off the profiler's attention time, {agreement['steps']} steps"
        off = 100 * abs(agreement["traced_over_profiled"] - 1)
        found.append(("trace.gpu_time_agreement_pct", off, unit, _TRACES))
    if "overhead" in document:
        low, high = (100 * end for end in document["overhead_interval"])
        unit = f"% of output tokens/s, 95 % interval {low:.2f} to {high:.2f}"
        found.append(("trace.gpu_overhead_pct", 100 * document["overhead"], unit, _TRACES))
        found.append(("trace.gpu_overhead_most_pct", high, "% of output tokens/s", _TRACES))
    return found


def _tp_headlines(documents: dict[str, dict[str, Any]]) -> list[Headline]:
    document = documents.get("tp", {})
    found = document.get("tp", {})
    if "pod_over_stock" not in found:
        return []
    told, load = found["pod_over_stock"], document["load"]
    low, high = told["interval"]
    unit = (
        f"x, output tokens/s against {document['compared_with']}, {load['layers']} layers, "
        f"95 % interval {low:.3f} to {high:.3f}"
    )
    return [
        ("tp.gpus_run", found["gpus"], "GPUs of one server, tensor parallel", _TP),
        ("tp.tokens_per_s_ratio", told["ratio"], unit, _TP),
    ]
