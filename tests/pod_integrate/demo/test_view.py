"""What the demo shows: unknown numbers stay unknown, plain output works without a terminal."""

import io
import re

import pytest

from pod_integrate.cli.terminal import console as make_console
from pod_integrate.demo import summary, view
from pod_integrate.demo.compare import BucketComparison, Comparison, Replays
from pod_integrate.demo.load import LoadStats
from tuner.messages import Pair

OVERVIEW = {
    "totals": {
        "steps_seen": 1234,
        "hybrid_share": 0.25,
        "trials": 7,
        "pruned": 1,
        "promotions": 2,
        "rollbacks": 0,
    },
    "buckets": [
        {
            "bucket": "p128@512+d8@1k",
            "time_share": 0.5,
            "default_us": 900.0,
            "best_us": None,
            "speedup": None,
            "lower_bound": None,
            "trials": 3,
            "status": "tuning",
        }
    ],
}


def _stats() -> LoadStats:
    return LoadStats(sent=3, done=2, failed=1, ttft=[0.1, 0.3], tbt=[0.02] * 5)


@pytest.mark.parametrize("terminal", [True, False])
def test_live_view_shows_load_and_tuner(terminal: bool) -> None:
    out = io.StringIO()
    console = make_console(file=out, force_terminal=terminal, width=160)
    with view.LiveView(console, total=5) as live:
        live.update(_stats(), OVERVIEW)
    # Without the escapes of bold and of redrawing.
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", out.getvalue())
    assert "2/5" in text and "1 failed" in text
    assert "200 ms" in text and "1,234" in text and "25.0 %" in text
    assert ("p128@512+d8@1k" in text) == terminal


def test_silent_tuner_shows_dashes_and_never_fails() -> None:
    out = io.StringIO()
    console = make_console(file=out, force_terminal=False, width=160)
    with view.LiveView(console, total=5) as live:
        live.update(LoadStats(), None)
    assert "hybrid -" in out.getvalue() and "TTFT p50 -" in out.getvalue()


def test_summary_holds_every_row() -> None:
    out = io.StringIO()
    view.print_summary(make_console(file=out, width=120), [("requests", "2 done"), ("trials", "-")])
    assert "requests" in out.getvalue() and "2 done" in out.getvalue()


def test_phases_remember_their_seconds() -> None:
    out = io.StringIO()
    phases = view.Phases(make_console(file=out, width=120))
    with phases.phase("native build"):
        phases.note("compiling")
    assert list(phases.seconds) == ["native build"] and phases.seconds["native build"] >= 0
    assert "compiling" in out.getvalue()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (view.number(None), "-"),
        (view.number(12345), "12,345"),
        (view.share(0.1234), "12.3 %"),
        (view.ms(0.0123), "12 ms"),
        (view.us(None), "-"),
        (view.ratio(1.2345), "1.234x"),
    ],
)
def test_unknown_is_a_dash_and_units_are_said(text: str, expected: str) -> None:
    assert text == expected


def test_summary_rows_show_what_was_measured_and_dash_the_rest() -> None:
    unknown = dict(summary.summary_rows(summary.DemoResult(LoadStats(), {}, None, 9.0, {}), "url"))
    assert unknown["attention, tuned vs default"] == "-"
    assert unknown["TTFT p50 / p99"] == "- / -" and unknown["trials measured"] == "-"
    rows = [
        BucketComparison(
            "p64@512+d4@512", 0.5, "exact", 1.2, 1.1, None, 1200.0, 1000.0, 3,
            (Pair(1200.0, 1000.0, "a"), Pair(1200.0, 1000.0, "b")),
        ),
        BucketComparison("d4@512", 0.5, "default"),
    ]  # fmt: skip
    replays = Replays(Comparison([], 1.0), Comparison(rows, 1.0), ["d2@512"])
    result = summary.DemoResult(_stats(), OVERVIEW, replays, 250.4, {})
    known = dict(summary.summary_rows(result, "url"))
    said = known["attention, tuned vs default"]
    assert said.startswith("1.091x, at least 1.048x, over 100.0 %")
    worst = known["... least in a tuned bucket"]
    assert worst == "1.200x (1.100x to -) in p64@512+d4@512, 2 steps"
    assert known["... rolled back by replays"] == "d2@512"
    rows[0] = rows[0]._replace(lower_bound=None)
    loose = dict(summary.summary_rows(result, "url"))
    assert loose["attention, tuned vs default"].startswith("no bound yet, over 100.0 %")
    assert loose["... least in a tuned bucket"] == "no bound yet in p64@512+d4@512, 2 steps"
    assert known["requests"] == "2 done, 1 failed" and known["seconds to here"] == "250"
