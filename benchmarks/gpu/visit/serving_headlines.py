"""Headlines of the serving part."""

from __future__ import annotations

from typing import Any

_SERVING = "pod-attn bench gpu -- serving"
Headline = tuple[str, float, str, str]


def serving_headlines(documents: dict[str, dict[str, Any]]) -> list[Headline]:
    """Of the serving part, where its stock engine is fa3."""
    document = documents.get("serving", {})
    summary = document.get("summary", {})
    if document.get("load", {}).get("stock") != "fa3" or not summary.get("loads"):
        return []
    count = len(summary["loads"])
    found: list[Headline] = [
        ("serving.settings", count, "of a model, a load and a cache", _SERVING)
    ]
    for key, name, ends in (
        ("vs_unmixed", "speedup_vs_unmixed_fa3", ("geomean", "min", "max")),
        ("vs_mixed", "speedup_vs_mixed_fa3", ("geomean", "min")),
        ("itl_p99_ratio", "itl_p99_ratio", ("geomean",)),
    ):
        unit = (
            f"x, {'p99 of ITL' if key == 'itl_p99_ratio' else 'output tokens/s'}, {count} settings"
        )
        if key in summary:
            told = summary[key]
            found += [(f"serving.{name}_{end}", told[end], unit, _SERVING) for end in ends]
    if "share_of_perfect_overlap" in summary:
        share = summary["share_of_perfect_overlap"]
        found.append(("serving.share_of_perfect_overlap", share, "share", _SERVING))
    if summary.get("step_model_error") is not None:
        unit = "% of the time of stock steps"
        error = 100 * summary["step_model_error"]
        found.append(("serving.step_model_error_pct", error, unit, _SERVING))
    return found
