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
_RATE_HEADS = (
    "model, load", "arrivals, of capacity (per second)", "side", "chunk", "TTFT p50 / p99 s",
    "ITL p50 / p99 ms", "tokens/s", "within the ITL target",
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
    drawn = table(_HEADS, rows, texts=2)
    rated = _rated(document)
    return f"{drawn}\n\n{table(_RATE_HEADS, rated, texts=3)}" if rated else drawn


def _rated(document: dict[str, Any]) -> list[list[str]]:
    """A row for each side and share of capacity, one after the other."""
    rows = []
    for name, run in document["runs"].items():
        for one in sorted(run.get("rates", ()), key=lambda one: (one["rate"], one["engine"])):
            side = f"`{one['engine']}{', mixed' if one['mixed'] else ''}`"
            share = f"{one['rate']:g} ({one['per_second']:.2f})"
            waits = [_pair(one, "ttft_ms", 1e-3, 2), _pair(one, "itl_ms", 1.0, 1)]
            tokens = one["client_tokens_per_second"]
            good = one["goodput_tokens_per_second"] / tokens if tokens else 0.0
            rows.append([name, share, side, str(one["chunk"]), *waits, f"{tokens:,.0f}",
                         f"{good:.0%}"])  # fmt: skip
            name = ""
    return rows


def _pair(window: dict[str, Any], name: str, scale: float, digits: int) -> str:
    keys = (f"{name}_p50", f"{name}_p99")
    return " / ".join(f"{scale * window[key]:.{digits}f}" if key in window else "-" for key in keys)


def _rate(window: dict[str, Any]) -> str:
    """Tokens/s, and their standard error where it is known."""
    error = f" ± {window['spread'] * window['steady']:,.0f}" if "spread" in window else ""
    return f"{window['steady']:,.0f}{error}"


def _cells(window: dict[str, Any]) -> list[str]:
    spent, traced = window["time"], window.get("attention", {})
    shares = [f"{spent.get(kind, {}).get('share', 0.0):.0%}" for kind in ("prefill", "hybrid")]
    shares.append(f"{spent.get('decode', {}).get('share', 0.0):.0%}")
    attention = [
        f"{traced[kind]['share']:.0%}" if kind in traced else "-" for kind in ("hybrid", "decode")
    ]
    return [
        str(window["chunk"]), _rate(window), _pair(window, "itl_ms", 1.0, 1),
        " / ".join(shares), f"{spent['gap_share']:.1%}", " / ".join(attention),
    ]  # fmt: skip
