"""What is printed arrives as it was written: brackets, colons, paths, and every digit."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

import pytest
from rich.console import RenderableType

from pod_integrate.builds.report import BuildReport, KernelUsage
from pod_integrate.cli import build, explain
from pod_integrate.cli.findings import Finding, print_findings
from pod_integrate.cli.terminal import Figures, console, styled
from pod_integrate.demo import view
from pod_integrate.demo.load import LoadStats
from pod_integrate.devices.registry import target_of
from pod_integrate.model import explain as model
from pod_integrate.model.batches import Lengths
from pod_integrate.model.devices import find_device
from pod_integrate.terms.keys import Geometry

SOURCES = Path(__file__).resolve().parents[2]
# Each of these is eaten or turned into something else where Rich reads a string as markup.
PLANTED = "pip install '.[cuda]' list[int] [red]x[/] [/] :warning: [link=file:///x]y[/link]"


def printed(what: RenderableType, width: int) -> str:
    out = io.StringIO()
    console(file=out, width=width).print(what)
    return out.getvalue()


@pytest.mark.parametrize("width", [60, 200])
def test_brackets_survive_in_lines_cells_headings_and_titles(width: int) -> None:
    assert printed(styled(PLANTED, (PLANTED, "red")), 500).strip() == PLANTED * 2
    table = Figures(("a", "[b]"), [("[x]y", "[red]1[/]")], title="[t] of [cuda]")
    text = printed(table, width)
    for word in ("[b]", "[x]y", "[red]1[/]", "[t] of [cuda]"):
        assert word in text


@pytest.mark.parametrize("width", [60, 200])
def test_doctor_prints_remedies_and_paths_in_one_piece(width: int) -> None:
    out = io.StringIO()
    path = "/opt/" + "0123456789abcdef/" * 6 + "libpod_cpu.so"
    findings = [Finding("nvcc", f"none at {path}", "note", PLANTED), Finding("[x]", "[y]")]
    print_findings(console(file=out, width=width), findings, as_json=False)
    lines = out.getvalue().splitlines()
    assert len(lines) == 3
    assert lines[0].endswith(f"none at {path}") and lines[1].endswith(f"-> {PLANTED}")
    assert "[x]" in lines[2] and lines[2].endswith("[y]")


def test_every_console_of_ours_is_made_in_one_place() -> None:
    strangers = [
        path.relative_to(SOURCES)
        for folder in ("pod_integrate", "tuner", "benchmarks")
        for path in (SOURCES / folder).rglob("*.py")
        if re.search(r"(?<!\w)Console\(|rich import print|\[/\w*\]", path.read_text())
    ]
    assert strangers == [Path("pod_integrate/cli/terminal.py")]


def _explained() -> dict[str, Any]:
    geometry, device = Geometry.parse("q32kv8d128-bf16-kvbf16-s16-w-1-c0"), find_device("h100")
    config = target_of(device.key).default_config(geometry)
    question = model.Question(
        lengths=Lengths.parse("p1k@8k+d64@4k"), geometry=geometry, config=config, device=device
    )
    return model.explain(question)


def _tables() -> dict[str, Figures]:
    document = _explained()
    usage = KernelUsage(
        name="fused", registers=200, stack=0, spill_stores=1234, spill_loads=0, static_smem=16
    )
    report = BuildReport(
        variant="bf16-d128-p128x64s1w4-d16x64s2w4-c2-v1", arch="sm_90a", build="variants-0",
        compiler="nvcc", seconds=98765.4, kernels=[usage],
    )  # fmt: skip
    bucket = {
        "bucket": "p1k@8k+d64@4k", "time_share": 0.1234, "default_us": 1202388.0,
        "best_us": 1074822.0, "speedup": 1.1234, "lower_bound": 1.0456, "trials": 12345,
        "status": "promoted",
    }  # fmt: skip
    live = view._buckets({"buckets": [bucket]})
    assert isinstance(live, Figures)
    return {
        "floors": explain._floor_table(document["floors"]),
        "times": explain._times_table("simulated", document["simulated"], document["label"]),
        "variants": build.table([report]),
        "live buckets": live,
    }


@pytest.mark.parametrize("width", [40, 60, 200])
@pytest.mark.parametrize("name", ["floors", "times", "variants", "live buckets"])
def test_no_table_cuts_a_number_or_a_name_however_narrow(name: str, width: int) -> None:
    table = _tables()[name]
    text = printed(table, width)
    assert "…" not in text
    for row in table.rows:
        for cell in row:
            assert (cell if isinstance(cell, str) else cell.plain) in text
    assert all(len(line) <= width for line in text.splitlines())


def test_table_that_fits_is_a_table_and_one_that_does_not_is_lines() -> None:
    table = Figures(("name", "us", "ratio"), [("a", "123,456", "1.234x"), ("b", "1", "2.000x")])
    assert printed(table, 60).splitlines()[1].split() == ["a", "123,456", "1.234x"]
    narrow = printed(table, 20).splitlines()
    assert [line.rstrip() for line in narrow] == [
        "a", "  us 123,456", "  ratio 1.234x", "b", "  us 1  ratio 2.000x"
    ]  # fmt: skip


def test_summary_and_live_view_print_what_they_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.StringIO()
    view.print_summary(console(file=out, width=60), [("dashboard", PLANTED), ("x[y]", "1.035x")])
    flat = " ".join(out.getvalue().split())
    assert PLANTED in flat and "x[y]" in flat and "1.035x" in flat
    out = io.StringIO()
    view.Phases(console(file=out, width=60)).note(PLANTED)
    assert PLANTED in out.getvalue()
    text = printed(view._counters(LoadStats(sent=1, done=1, failed=2), {}, 3), 160)
    assert "requests 1/3 (2 failed)" in text
