"""What the demo shows while it runs and at its end."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table

from pod_integrate.demo.load import LoadStats

_PLAIN_EVERY = 10.0
_LIVE_BUCKETS = 8


@dataclasses.dataclass
class Phases:
    """Prints each phase with its time; remembers them for the summary."""

    console: Console
    started: float = dataclasses.field(default_factory=time.monotonic)
    seconds: dict[str, float] = dataclasses.field(default_factory=dict)

    def note(self, text: str) -> None:
        """One line with the time since start."""
        elapsed = time.monotonic() - self.started
        self.console.print(f"[dim]{elapsed:7.1f} s[/]  {text}", soft_wrap=True)

    def done(self, name: str, seconds: float, text: str = "") -> None:
        """One finished phase that took `seconds`."""
        self.seconds[name] = seconds
        self.note(f"[green]ready[/]  {name} in {seconds:.1f} s{'  ' + text if text else ''}")

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Time a block as one phase."""
        self.note(f"[dim]start[/]  {name}")
        begin = time.monotonic()
        yield
        self.done(name, time.monotonic() - begin)


class LiveView:
    """The live table on a terminal, a line every ten seconds elsewhere."""

    def __init__(self, console: Console, total: int) -> None:
        self._console, self._total = console, total
        self._live = Live(console=console, refresh_per_second=2, transient=True)
        self._last_plain = 0.0

    def __enter__(self) -> LiveView:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._console.is_terminal:
            self._live.stop()

    def update(self, stats: LoadStats, overview: dict[str, Any] | None) -> None:
        """Redraw from the load's counters and the tuner's overview (None: not answering)."""
        if self._console.is_terminal:
            self._live.update(Group(_counters(stats, overview, self._total), _buckets(overview)))
        elif time.monotonic() - self._last_plain >= _PLAIN_EVERY:
            self._last_plain = time.monotonic()
            totals = (overview or {}).get("totals", {})
            self._console.print(
                f"  load {stats.done}/{self._total} done, {stats.failed} failed, "
                f"TTFT p50 {ms(stats.percentile('ttft', 50))}, "
                f"TBT p50 {ms(stats.percentile('tbt', 50))} | "
                f"steps {number(totals.get('steps_seen'))}, "
                f"hybrid {share(totals.get('hybrid_share'))}, "
                f"trials {number(totals.get('trials'))}, "
                f"promotions {number(totals.get('promotions'))}",
                soft_wrap=True,
            )


def _counters(stats: LoadStats, overview: dict[str, Any] | None, total: int) -> RenderableType:
    totals = (overview or {}).get("totals", {})
    table = Table.grid(padding=(0, 3))
    table.add_row(
        f"requests [b]{stats.done}[/]/{total}" + (f" ({stats.failed} failed)" * bool(stats.failed)),
        f"TTFT p50 [b]{ms(stats.percentile('ttft', 50))}[/] p99 {ms(stats.percentile('ttft', 99))}",
        f"TBT p50 [b]{ms(stats.percentile('tbt', 50))}[/] p99 {ms(stats.percentile('tbt', 99))}",
    )
    table.add_row(
        f"steps [b]{number(totals.get('steps_seen'))}[/], "
        f"hybrid {share(totals.get('hybrid_share'))}",
        f"trials [b]{number(totals.get('trials'))}[/], pruned {number(totals.get('pruned'))}",
        f"promotions [b]{number(totals.get('promotions'))}[/], "
        f"rollbacks {number(totals.get('rollbacks'))}",
    )
    return table


def _buckets(overview: dict[str, Any] | None) -> RenderableType:
    table = Table(box=None, header_style="dim")
    for name in ("bucket", "time", "default", "best", "speed-up", "trials", "status"):
        table.add_column(name, justify="left" if name in ("bucket", "status") else "right")
    for row in ((overview or {}).get("buckets") or [])[:_LIVE_BUCKETS]:
        table.add_row(
            row["bucket"],
            share(row["time_share"]),
            us(row["default_us"]),
            us(row["best_us"]),
            ratio(row["speedup"]),
            number(row["trials"]),
            row["status"],
        )
    return table


def print_summary(console: Console, rows: list[tuple[str, str]]) -> None:
    """The short table that the demo ends with."""
    table = Table(title="pod-attention demo", title_style="bold", show_header=False, min_width=64)
    for name, value in rows:
        table.add_row(name, value)
    console.print()
    console.print(table)


def number(value: float | None) -> str:
    """An integer, or - when unknown."""
    return "-" if value is None else f"{int(value):,}"


def share(value: float | None) -> str:
    """A share of one as per cent, or - when unknown."""
    return "-" if value is None else f"{100 * value:.1f} %"


def ms(seconds: float | None) -> str:
    """Seconds as milliseconds, or - when unknown."""
    return "-" if seconds is None else f"{1000 * seconds:.0f} ms"


def us(value: float | None) -> str:
    """Microseconds, or - when unknown."""
    return "-" if value is None else f"{value:,.0f} us"


def ratio(value: float | None) -> str:
    """A speed-up, or - when unknown."""
    return "-" if value is None else f"{value:.3f}x"
