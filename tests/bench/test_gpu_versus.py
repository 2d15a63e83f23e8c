"""The comparison of source trees: what is read of a run, and how ratios come about."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.gpu.speed import versus
from benchmarks.gpu.visit import headlines

ROOT = Path(__file__).resolve().parents[2]


def numbers(**microseconds: float) -> dict[str, Any]:
    """A numbers.json in which serial takes twice as long, and another config is quicker."""
    return {
        "cases": {
            case: {
                "runs": [
                    {"label": "default", "strategy": "fused", "median_us": value},
                    {"label": "default", "strategy": "serial", "median_us": 2 * value},
                    {"label": "default", "strategy": "streams", "median_us": 3 * value},
                    {"label": "tried", "strategy": "fused", "median_us": value / 2},
                ]
            }
            for case, value in microseconds.items()
        }
    }


def test_times_are_those_of_the_default_config() -> None:
    document = numbers(C0=100.0)
    document["cases"]["C1"] = {"runs": [{"label": "default", "strategy": "fused", "error": "lost"}]}
    assert versus.times(document) == {"fused": {"C0": 100.0}, "serial": {"C0": 200.0}}


def test_times_of_public_batches_are_read_too() -> None:
    us = {"default": 16.0, "pair": 14.0, "serial": 17.0}
    document = {"cases": {"q1s512": {"us": us}, "q2k": {"error": "lost"}}}
    assert versus.times(document) == {"fused": {"q1s512": 16.0}, "serial": {"q1s512": 17.0}}


def test_a_ratio_is_the_first_trees_median_over_the_others() -> None:
    rounds = [
        {"tree": tree, "times": versus.times(numbers(**values))}
        for tree, values in (
            ("before", {"C0": 100.0, "C1": 50.0}),
            ("after", {"C0": 80.0}),
            ("after", {"C0": 400.0}),
            ("after", {"C0": 80.0}),
            ("before", {"C0": 100.0}),
        )
    ]
    found = versus.compare(rounds, ["before", "after"])["after, fused"]
    assert found["cases"] == {"C0": 1.25}
    assert found["geomean"] == pytest.approx(1.25) and found["min"] == found["max"] == 1.25


def test_the_headline_is_named_for_what_was_changed() -> None:
    compared = {"after, fused": {"geomean": 1.01, "cases": {"C0": 1.01}}}
    document = {"label": "numerics", "compared": compared}
    ((name, value, unit, command),) = headlines.headlines({"versus": document})
    assert name == "gpu.speed_after_numerics_geomean" and value == 1.01
    assert "1 cases" in unit and "--label numerics before" in command
    ((*_, command),) = headlines.headlines({"versus": document | {"part": "grammar"}})
    assert "--part grammar" in command


def test_trees_are_named_paths_with_an_environment_of_their_own() -> None:
    tree = versus.Tree.parse(f"after={ROOT},POD_X=1,POD_Y=2")
    assert tree == ("after", ROOT, {"POD_X": "1", "POD_Y": "2"})
    for wrong in (str(ROOT), "after=/nowhere", f"={ROOT}"):
        with pytest.raises(argparse.ArgumentTypeError, match="name=path"):
            versus.Tree.parse(wrong)


def test_a_round_that_fails_says_why_and_the_others_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "false")
    trees = [f"before={ROOT}", f"after={ROOT}"]
    options = ["--label", "x", "--rounds", "1", "--part", "grammar", "--out", str(tmp_path)]
    versus.main([*options, *trees])
    saved = json.loads((tmp_path / "versus.json").read_text())
    assert saved["part"] == "grammar"
    assert [one["tree"] for one in saved["rounds"]] == ["before", "after"]
    assert all("error" in one for one in saved["rounds"]) and saved["compared"] == {}
