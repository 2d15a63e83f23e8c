"""The numbers that documents show: all of them, none invented."""

from __future__ import annotations

import json
import re

from support.source_names import ROOT

from benchmarks import readme_table
from benchmarks._headlines import SECTIONS, SIX

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


def test_both_documents_are_as_drawn() -> None:
    page = (ROOT / "docs" / "numbers.md").read_text()
    readme = (ROOT / "README.md").read_text()
    assert page == readme_table.numbers(STORED)
    assert readme == readme_table.render(
        readme, readme_table.six(STORED, readme_table.stored_cases())
    )
