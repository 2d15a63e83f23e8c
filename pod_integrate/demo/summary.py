"""The numbers of a demo run and the table that they end in."""

from __future__ import annotations

import dataclasses
from typing import Any

from pod_integrate.demo.compare import Comparison
from pod_integrate.demo.load import LoadStats
from pod_integrate.demo.view import ms, number, ratio, share


@dataclasses.dataclass
class DemoResult:
    """What the summary shows; None where nothing was measured."""

    stats: LoadStats
    overview: dict[str, Any]
    comparison: Comparison | None
    seconds_to_summary: float
    phases: dict[str, float]


def summary_rows(result: DemoResult, dashboard: str) -> list[tuple[str, str]]:
    """What the demo ends with, as (name, printable value); "-" where nothing was measured."""
    stats, totals = result.stats, result.overview.get("totals", {})
    compared = result.comparison
    tuned = "-"
    if compared is not None:
        tuned = (
            f"{ratio(compared.speedup)} over {share(compared.covered)} of attention time "
            f"({compared.steps} traced steps replayed)"
        )
    return [
        ("requests", f"{stats.done} done, {stats.failed} failed"),
        (
            "hybrid steps",
            f"{number(totals.get('hybrid_steps'))} of {number(totals.get('records'))} traced "
            f"({share(totals.get('hybrid_share'))})",
        ),
        ("TTFT p50 / p99", _pair(stats, "ttft")),
        ("TBT p50 / p99", _pair(stats, "tbt")),
        ("trials measured", number(totals.get("trials"))),
        ("configs promoted", number(totals.get("promotions"))),
        ("attention, tuned vs default", tuned),
        ("dashboard", dashboard),
        ("seconds to here", f"{result.seconds_to_summary:.0f}"),
    ]


def _pair(stats: LoadStats, name: str) -> str:
    return f"{ms(stats.percentile(name, 50))} / {ms(stats.percentile(name, 99))}"
