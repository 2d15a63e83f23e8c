"""The paper's sweep, sampled: what is measured, how a run goes on, what its spread comes to."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest
from support.timed import entry

from benchmarks.gpu.speed import grid, numbers
from benchmarks.gpu.speed.cases import paper_grid, sample
from benchmarks.gpu.speed.measure import Numbers
from benchmarks.gpu.visit import headlines, tables


def test_the_papers_sweep_has_its_4410_cases_and_decode_batches() -> None:
    every = list(paper_grid())
    assert len(every) == len({spec.name for spec in every}) == 4410
    assert max(spec.decodes for spec in every) == 1123
    batches = {
        (s.num_q_heads, s.num_kv_heads, s.decode_context, s.decodes)
        for s in every
        if s.num_q_heads * s.num_kv_heads in (256, 128)
    }
    # From the public artifact: Llama-3-8B and Yi-6B on one GPU.
    for context, llama, yi in ((4096, (103, 109, 115), (219, 231, 244)), (20480, (20, 21, 23), ())):
        assert {(32, 8, context, n) for n in llama} | {(32, 4, context, n) for n in yi} <= batches
    assert sample(0)[:50] != every[:50] and set(sample(0)) == set(every)
    assert sample(0) == sample(0)


def test_grid_on_the_emulated_sm_measures_everything_that_a_ratio_needs(tmp_path: Path) -> None:
    numbers.main(["--backend", "emulator", "--grid", "--sample", "1", "--out", str(tmp_path)])
    saved = json.loads((tmp_path / "grid.json").read_text())
    (entry,) = saved["cases"].values()
    labels = {(run.get("strategy"), run["label"], run["part"]) for run in entry["runs"]}
    assert labels >= {("fused", "default", "all"), ("fused", "tried", "all")}
    assert labels >= {("serial", "tried", "all"), (None, "alone", "prefill")}
    assert not any("error" in run for run in entry["runs"])
    assert saved["summary"]["all"]["fused_vs_serial"]["cases"] == 1
    assert saved["sample"] == {"seed": 0, "of": 4410, "configs": "few"}
    for wrong in (["--grid", "--cases", "1"], ["--default-only"], ["--grid", "--resume", "none"]):
        with pytest.raises(SystemExit):
            numbers.main([*wrong, "--out", str(tmp_path)])


def test_grid_of_the_default_alone_goes_on_where_another_run_ended(tmp_path: Path) -> None:
    def run(folder: str, *more: str) -> dict[str, Any]:
        options = ["--backend", "emulator", "--grid", "--out", str(tmp_path / folder)]
        numbers.main([*options, *more])
        document: dict[str, Any] = json.loads((tmp_path / folder / "grid.json").read_text())
        return document

    first = run("first", "--sample", "1", "--default-only")
    (entry,) = first["cases"].values()
    assert [(run["name"], run["part"]) for run in entry["runs"] if "ours" in run["name"]] == [
        ("ours fused default", "all"),
        ("ours serial default", "all"),
        ("ours prefill default", "prefill"),
        ("ours decode default", "decode"),
    ]
    assert entry["seconds"] > 0 and not any("config" in run for run in entry["runs"])
    ratios = first["summary"]["all"]
    assert ratios["default_vs_best_serial"]["cases"] == 1
    assert not any(name.startswith("fused") for name in ratios)

    saved = str(tmp_path / "first" / "grid.json")
    second = run("second", "--sample", "2", "--default-only", "--resume", saved)
    assert list(second["cases"]) == [spec.name for spec in sample(0)[:2]]
    assert second["cases"][sample(0)[0].name] == entry
    assert second["resumed"] == [first["machine"]["utc"]]
    with pytest.raises(grid.GridResumeError, match="sample"):
        run("third", "--sample", "2", "--resume", saved)


def test_a_half_written_file_is_told_with_what_to_give_instead(tmp_path: Path) -> None:
    cut = tmp_path / "grid.json"
    cut.write_text('{"cases": {')
    with pytest.raises(grid.GridResumeError, match="grid.json of an earlier"):
        grid.read(cut)


def test_cases_that_were_cut_are_measured_again() -> None:
    way: dict[str, Any] = {
        "sample": 1,
        "timing": 2,
        "machine": {"utc": "u", "kernel_build": "k", "device": {"name": "H"}},
    }
    work = object.__new__(Numbers)
    work.document = {**way, "cases": {}}
    wanted = sample(0)[:3]
    cases = {wanted[0].name: {"cut": "x"}, wanted[1].name: {"runs": []}, "another": {"runs": []}}
    assert grid.resume(work, {**way, "cases": cases}, wanted) == [wanted[0], wanted[2]]
    assert list(work.document["cases"]) == [wanted[1].name]
    other = {**way, "machine": {**way["machine"], "kernel_build": "older"}, "cases": {}}
    with pytest.raises(grid.GridResumeError, match="older"):
        grid.resume(work, other, wanted)


def test_time_that_is_over_leaves_the_rest_of_the_grid_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Numbers, "out_of_time", lambda self: True)
    numbers.main(["--backend", "emulator", "--grid", "--sample", "3", "--out", str(tmp_path)])
    saved = json.loads((tmp_path / "grid.json").read_text())
    assert saved["cases"] == {} and saved["summary"] == {"all": {}, "balanced": {}}


ENTRIES = {
    "a": entry(100, 80),
    "b": entry(100, 160, prefill=5),
    "c": entry(100, 200),
    "d": entry(100, 900, cut="time was over"),
}


def test_spread_counts_losses_and_leaves_out_cases_that_were_cut() -> None:
    spread = grid.distribution(ENTRIES)
    found = spread["all"]["fused_vs_serial"]
    assert (found["cases"], found["min"], found["median"], found["max"]) == (3, 0.8, 1.6, 2.0)
    assert found["below_1"] == found["below_098"] == pytest.approx(1 / 3, abs=1e-4)
    assert found["geomean"] == pytest.approx((0.8 * 1.6 * 2) ** (1 / 3), abs=1e-4)
    # Of b, prefill alone takes 5 of 55.
    assert spread["balanced"]["fused_vs_serial"]["cases"] == 2
    document = {"cases": ENTRIES, "summary": spread}
    drawn = tables.grid(document, "p.svg")
    row = "| our serial / fused | 3 | 1.37 | 0.80 | 0.80 | 1.60 | 2.00 | 2.00 | 33% | 33.3% |"
    assert row in drawn and "](p.svg)" in drawn
    lines = ET.fromstring(tables.spread_picture(document)).findall("{*}polyline")
    heights = [float(point.split(",")[1]) for point in lines[0].attrib["points"].split()]
    assert len(heights) == 3 and heights == sorted(heights, reverse=True)


def test_grid_headlines_say_what_the_default_loses() -> None:
    of = {"name": "", "label": "default", "part": "all"}
    entries = {
        str(i): {
            "floor": {"fused_us": 10.0},
            "runs": [
                {"median_us": 100.0, "strategy": "fused", **of},
                {"median_us": serial, "strategy": "serial", **of},
            ],
        }
        for i, serial in enumerate((97.0, 99.0, 120.0, 130.0))
    }
    document = {
        "sample": {"configs": "default"},
        "summary": grid.distribution(entries),
        "cases": entries,
    }
    found = {line[0]: line[1:] for line in headlines.headlines({"grid": document}, "h200")}
    command = "pod-attn bench gpu -- numbers --grid --default-only"
    assert found == {
        "h200.grid_default_vs_best_serial_geomean": (1.1063, "x, 4 cases", command),
        "h200.grid_below_098_pct": (25.0, "% of 4 cases", command),
    }
    lines = ET.fromstring(tables.spread_picture(document)).findall("{*}text")
    assert any("our serial / default (4 cases)" in (line.text or "") for line in lines)
