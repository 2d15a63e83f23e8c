"""The numbers that documents show: all of them, none invented."""

from __future__ import annotations

import json
import re

from support.source_names import ROOT

from benchmarks import readme_table
from benchmarks._headlines import SECTIONS
from benchmarks._readme_rows import SIX

STORED = json.loads((ROOT / "benchmarks" / "results" / "headline.json").read_text())
TOLD = [name for rows in SECTIONS.values() for name in rows]
# `{name}` or `{range:column}` of a row of the README.
PLACES = [place for row in SIX for place in re.findall(r"\{([^}]+)\}", row.value + row.context)]


def test_every_headline_is_told_of_once() -> None:
    assert len(TOLD) == len(set(TOLD))
    assert set(STORED) <= set(TOLD)


def test_readme_has_six_rows_of_known_numbers() -> None:
    by_case = json.loads((ROOT / "benchmarks" / "results" / "gpu_numbers.json").read_text())
    (first, *_) = by_case["summary"]["by_case"].values()
    assert len(SIX) == 6
    for place in PLACES:
        assert place in TOLD or place.removeprefix("range:") in first, place


def test_what_was_not_measured_is_a_dash() -> None:
    rows = readme_table.six({}, {}).splitlines()[2:]
    for row, drawn in zip(SIX, rows, strict=True):
        assert drawn.count("-") >= len(re.findall(r"\{", row.value + row.context))
        assert not re.search(r"\d", drawn.split(" | ")[1]), drawn
    assert readme_table.numbers({}).count("| - | - | - | - |") == len(TOLD)


def test_a_range_is_that_of_the_cases() -> None:
    by_case = {"a": {"fused_vs_serial": 1.101}, "b": {"fused_vs_serial": 1.4}, "c": {}}
    assert "1.10x to 1.40x" in readme_table.six({}, by_case)


def test_cases_against_vllm_stand_in_the_page_once_they_are_measured() -> None:
    row = {"case": "512@512", "dtype": "fp32", "ours_ms": 6.04, "vllm_ms": 7.5, "ratio": 1.241}
    document = {
        "threads": 2, "heads": [32, 8, 128], "peer": {"vllm": "0.32.0"},
        "rows": [row | {"cpu_ratio": 1.2}],
    }  # fmt: skip
    page = readme_table.numbers({}, document)
    assert "| 512@512 | fp32 | 6.0 ms | 7.5 ms | 1.24x | 1.20x |" in page
    assert "vLLM 0.32.0's CPU attention" in page and "32/8 heads of 128, 2 threads" in page
    assert "512@512" not in readme_table.numbers({})


def test_both_documents_are_as_drawn() -> None:
    page = (ROOT / "docs" / "numbers.md").read_text()
    readme = (ROOT / "README.md").read_text()
    assert page == readme_table.numbers(STORED, readme_table.stored(readme_table.VLLM))
    assert readme == readme_table.render(
        readme, readme_table.six(STORED, readme_table.stored_cases())
    )
