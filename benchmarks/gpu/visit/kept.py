"""What is kept of a part's document: less than it measured, where that is much."""

from __future__ import annotations

from typing import Any


def kept(name: str, document: dict[str, Any]) -> dict[str, Any]:
    """Of the document of the part `name`."""
    if name == "numbers":
        return _slim(document)
    if name == "grid":
        return _without_configs(_slim(document))
    if name == "sweep":
        return {**document, "cases": [_without_times(case) for case in document["cases"]]}
    return document


def _without_configs(document: dict[str, Any]) -> dict[str, Any]:
    """Runs name their config by its short text alone: there are thousands."""
    for entry in document["cases"].values():
        for run in entry["runs"]:
            run.pop("config", None)
    return document


def _without_times(case: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in case.items() if name != "times"}


def _slim(document: dict[str, Any]) -> dict[str, Any]:
    """Numbers without the hundreds of configs that were tried and lost."""
    for entry in document["cases"].values():
        if "configs_tried" in entry:
            # Recorded before, and merged.
            continue
        tried = [run for run in entry["runs"] if run.get("label") == "tried" and "median_us" in run]
        best: dict[str, dict[str, Any]] = {}
        for run in tried:
            known = best.get(run["strategy"])
            if known is None or run["median_us"] < known["median_us"]:
                best[run["strategy"]] = run
        kept = [run for run in entry["runs"] if run.get("label") != "tried"]
        entry["runs"] = kept + list(best.values())
        entry["configs_tried"] = len(tried)
    return document
