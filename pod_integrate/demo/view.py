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

from pod_integrate.cli.terminal import Figures, styled
from pod_integrate.demo.load import LoadStats

_PLAIN_EVERY = 10.0
_LIVE_BUCKETS = 8


@dataclasses.dataclass
class Phases:
    """Prints each phase with its time; remembers them for the summary."""

    console: Console
    started: float = dataclasses.field(default_factory=time.monotonic)
    seconds: dict[str, float] = dataclasses.field(default_factory=dict)

    def note(self, *parts: str | tuple[str, str]) -> None:
        """One line with the time since start; parts are text or (text, style)."""
        elapsed = time.monotonic() - self.started
        self.console.print(styled((f"{elapsed:7.1f} s", "dim"), "  ", *parts), soft_wrap=True)

    def done(self, name: str, seconds: float, text: str = "") -> None:
        """One finished phase that took `seconds`."""
        self.seconds[name] = seconds
        more = f"  {text}" if text else ""
        self.note(("ready", "green"), f"  {name} in {seconds:.1f} s{more}")

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Time a block as one phase."""
        self.note(("start", "dim"), f"  {name}")
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
    failed = f" ({stats.failed} failed)" if stats.failed else ""
    shown = {name: number(totals.get(name)) for name in ("steps_seen", "trials", "promotions")}
    table.add_row(
        styled("requests ", (f"{stats.done}", "b"), f"/{total}{failed}"),
        *(
            styled(
                f"{name.upper()} p50 ",
                (ms(stats.percentile(name, 50)), "b"),
                f" p99 {ms(stats.percentile(name, 99))}",
            )
            for name in ("ttft", "tbt")
        ),
    )
    table.add_row(
        styled(
            "steps ", (shown["steps_seen"], "b"), f", hybrid {share(totals.get('hybrid_share'))}"
        ),
        styled("trials ", (shown["trials"], "b"), f", pruned {number(totals.get('pruned'))}"),
        styled(
            "promotions ",
            (shown["promotions"], "b"),
            f", rollbacks {number(totals.get('rollbacks'))}",
        ),
    )
    return table


def _buckets(overview: dict[str, Any] | None) -> RenderableType:
    table = Figures(
        ("bucket", "time", "default", "promoted", "speed-up", "at least", "trials", "status"),
        words=frozenset({"status"}),
    )
    for row in ((overview or {}).get("buckets") or [])[:_LIVE_BUCKETS]:
        bounded = row["lower_bound"] is not None
        table.add_row(
            row["bucket"],
            share(row["time_share"]),
            us(row["default_us"]),
            us(row["best_us"] if bounded else None),
            ratio(row["speedup"] if bounded else None),
            ratio(row["lower_bound"]),
            number(row["trials"]),
            row["status"],
        )
    return table


def print_summary(console: Console, rows: list[tuple[str, str]]) -> None:
    """The short table that the demo ends with."""
    table = Figures(("", ""), [*rows], title="pod-attention demo", words=frozenset({""}))
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
