"""The numbers of a demo run and the table that they end in."""

from __future__ import annotations

import dataclasses
from typing import Any

from pod_integrate.demo.compare import BucketComparison, Replays
from pod_integrate.demo.load import LoadStats
from pod_integrate.demo.view import ms, number, ratio, share


@dataclasses.dataclass
class DemoResult:
    """What the summary shows; None where nothing was measured."""

    stats: LoadStats
    overview: dict[str, Any]
    replays: Replays | None
    seconds_to_summary: float
    phases: dict[str, float]


def summary_rows(result: DemoResult, dashboard: str) -> list[tuple[str, str]]:
    """What the demo ends with, as (name, printable value); "-" where nothing was measured."""
    stats, totals = result.stats, result.overview.get("totals", {})
    tuned = worst = refuted = "-"
    if result.replays is not None:
        last = result.replays.last
        least = last.lower_bound
        found = (
            "no bound yet" if least is None else f"{ratio(last.speedup)}, at least {ratio(least)}"
        )
        tuned = (
            f"{found}, over {share(last.covered)} of attention time "
            f"({last.steps} traced steps replayed)"
        )
        worst = _bucket(last.worst)
        refuted = ", ".join(result.replays.refuted) or "none"
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
        ("... least in a tuned bucket", worst),
        ("... rolled back by replays", refuted),
        ("dashboard", dashboard),
        ("seconds to here", f"{result.seconds_to_summary:.0f}"),
    ]


def _bucket(row: BucketComparison | None) -> str:
    if row is None:
        return "-"
    found = "no bound yet"
    if row.lower_bound is not None:
        found = f"{ratio(row.speedup)} ({ratio(row.lower_bound)} to {ratio(row.upper_bound)})"
    return f"{found} in {row.bucket}, {row.steps} steps"


def _pair(stats: LoadStats, name: str) -> str:
    return f"{ms(stats.percentile(name, 50))} / {ms(stats.percentile(name, 99))}"
