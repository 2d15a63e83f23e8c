"""What of a recorded visit stays beside a new one, of the serving part."""

from __future__ import annotations

from typing import Any

from benchmarks.gpu.engines.serving_summary import device_called, sides, summarize

_MACHINE = ("utc", "kernel_build", "host_build")


def merged(new: dict[str, Any], recorded: dict[str, Any]) -> dict[str, Any]:
    """Runs of both by model, load and cache, with figures over all of them.

    Of a run that both hold, stretches are the new ones where each side has one, and arrivals the
    new ones where there are any. Each run says when it was measured, and of which kernel. Raises
    ValueError where the two compare with different backends.
    """
    stock = [document["load"]["stock"] for document in (new, recorded)]
    if stock[0] != stock[1]:
        raise ValueError(
            f"serving was measured against {stock[0]}, what is recorded against {stock[1]}: "
            "name the recorded one first in --engines"
        )
    runs = _measured(recorded)
    for name, run in _measured(new).items():
        runs[name] = _newest(run, runs[name]) if name in runs else run
    found = {**new, "runs": runs}
    found["summary"] = summarize(found, device_called(recorded["gpu"]))
    return found


def _measured(document: dict[str, Any]) -> dict[str, Any]:
    machine = {name: document["machine"].get(name) for name in _MACHINE}
    told = {"measured": {**machine, "load": document["load"]}}
    return {name: {**told, **run} for name, run in document["runs"].items()}


def _newest(new: dict[str, Any], old: dict[str, Any]) -> dict[str, Any]:
    """The newer of stretches and of arrivals, each whole."""
    stock = new["measured"]["load"]["stock"]
    found = new if sides(new["windows"], stock) is not None else old
    rated = new if new["rates"] else old
    if rated is found:
        return found
    return {**found, "rates": rated["rates"], "rates_measured": rated["measured"]}
