"""Headlines and the table of the public batches."""

from __future__ import annotations

from typing import Any

from benchmarks.gpu.speed.grammar_summary import best_pair, ratios
from benchmarks.gpu.visit.tables import table

_COMMAND = "pod-attn bench gpu -- grammar"
_USUAL = "32/8/128"  # the heads of most batches


def grammar_headlines(document: dict[str, Any], prefix: str) -> list[tuple[str, float, str, str]]:
    """Over all published batches whose every op others answered; `prefix` as record.prefix_of."""
    every = document.get("summary", {}).get("all", {})
    if "vs_pair" not in every:
        return []
    spread, name = every["vs_pair"], f"{prefix}.public_grammar"
    found = [
        (f"{name}_geomean", spread["geomean"], f"x, {every['cases']} batches", _COMMAND),
        (f"{name}_min", spread["min"], f"x, {spread['worst']}", _COMMAND),
        (f"{name}_below_098_pct", spread["below_098_pct"], "% of the batches", _COMMAND),
    ]
    usual = document["summary"].get(_USUAL, {})
    if "vs_pair" in usual:
        unit = f"x, {usual['cases']} batches"
        found.append((f"{name}_usual_geomean", usual["vs_pair"]["geomean"], unit, _COMMAND))
    return found


def grammar(document: dict[str, Any]) -> str:
    """A row per group of batches, then one per batch."""
    heads = ["batches", "cases", "geomean", "min", "below 0.98", "beside single calls too"]
    groups = [
        [
            group,
            str(found["cases"]),
            *(f"{found['vs_pair'][key]:.2f}" for key in ("geomean", "min")),
            f"{found['vs_pair']['below_098_pct']:.0f}%",
            f"{found['vs_anybody']['geomean']:.2f}",
        ]
        for group, found in document["summary"].items()
        if found["cases"]
    ]
    rows = []
    for name, entry in document["cases"].items():
        told = ratios(entry)
        if told:
            us = (entry["us"]["default"], best_pair(entry))
            rows.append([name, " + ".join(entry["pair"]), *(f"{each:.0f}" for each in us)])
            rows[-1] += [f"{told[key]:.2f}" for key in ("vs_pair", "vs_anybody")]
    of_each = ["batch", "quickest kernels", "default us", "best pair us", "pair / default"]
    return "\n\n".join(
        [table(heads, groups, texts=1), table([*of_each, "anybody / default"], rows, texts=2)]
    )
