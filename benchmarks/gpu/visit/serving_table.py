"""The serving part's rows of docs/gpu.md."""

from __future__ import annotations

from typing import Any

from benchmarks.gpu.engines.serving_summary import sides
from benchmarks.gpu.visit.tables import table

_HEADS = (
    "model, load", "side", "chunk", "output tokens/s", "ITL p50 / p99 ms",
    "prefill / hybrid / decode steps, of the time", "between forwards",
    "attention in a hybrid / decode forward",
)  # fmt: skip
_SIDES = {"unmixed": "{stock}", "mixed": "{stock}, mixed", "pod": "pod, mixed"}


def serving(document: dict[str, Any]) -> str:
    """Each side of each load at its best chunk size; a load that lacks one is left out."""
    stock = document["load"]["stock"]
    rows = []
    for name, run in document["runs"].items():
        found = sides(run["windows"], stock)
        for side, window in found._asdict().items() if found is not None else ():
            rows.append([name, f"`{_SIDES[side].format(stock=stock)}`", *_cells(window)])
            name = ""
    return table(_HEADS, rows, texts=2)


def _cells(window: dict[str, Any]) -> list[str]:
    spent, traced = window["time"], window.get("attention", {})
    shares = [f"{spent.get(kind, {}).get('share', 0.0):.0%}" for kind in ("prefill", "hybrid")]
    shares.append(f"{spent.get('decode', {}).get('share', 0.0):.0%}")
    attention = [
        f"{traced[kind]['share']:.0%}" if kind in traced else "-" for kind in ("hybrid", "decode")
    ]
    itl = [f"{window[key]:.1f}" if key in window else "-" for key in ("itl_ms_p50", "itl_ms_p99")]
    return [
        str(window["chunk"]), f"{window['steady']:,.0f}", " / ".join(itl), " / ".join(shares),
        f"{spent['gap_share']:.1%}", " / ".join(attention),
    ]  # fmt: skip
