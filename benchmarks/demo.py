"""The demo as a benchmark: one run of the whole loop, its summary as JSON and headlines.

pod-attn bench demo -- --seconds 150
"""

from __future__ import annotations

import argparse
import dataclasses
import tempfile
from pathlib import Path
from typing import Any

from benchmarks import _results
from pod_integrate.cli.terminal import console
from pod_integrate.demo.compare import Comparison
from pod_integrate.demo.options import DemoOptions
from pod_integrate.demo.run import Demo
from pod_integrate.demo.summary import DemoResult

COMMAND = "pod-attn bench demo"


def main() -> None:
    defaults = DemoOptions()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=defaults.seconds, help="load, seconds")
    parser.add_argument("--rate", type=float, default=defaults.rate, help="requests per second")
    parser.add_argument("--scale", type=float, default=defaults.scale, help="factor on lengths")
    parser.add_argument("--trace", type=Path, help="request trace instead of the built-in one")
    arguments = parser.parse_args()
    # A fresh folder: a table or trials of an earlier run would make the loop look faster.
    with tempfile.TemporaryDirectory(prefix="pod-attn-demo-") as state:
        options = dataclasses.replace(defaults, state=Path(state), **vars(arguments))
        with Demo(options, console()) as demo:
            result = demo.run()
    record(result, dataclasses.asdict(options))


def record(result: DemoResult, options: dict[str, Any]) -> None:
    """Write benchmarks/results/demo.json and the demo's headlines."""
    stats, replays = result.stats, result.replays
    totals = result.overview.get("totals", {})
    del options["state"]
    _results.write(
        "demo",
        {
            "command": COMMAND,
            "options": {name: str(value) for name, value in options.items()},
            "phases_s": result.phases,
            "requests": {"done": stats.done, "failed": stats.failed},
            "tokens": {"prompt": stats.prompt_tokens, "answer": stats.answer_tokens},
            "latency_s": {
                f"{name}_p{percent}": stats.percentile(name, percent)
                for name in ("ttft", "tbt")
                for percent in (50, 99)
            },
            "totals": totals,
            "buckets": result.overview.get("buckets", []),
            "decisions": result.overview.get("decisions", []),
            "recheck": _rows(replays.first) if replays else None,
            "comparison": _rows(replays.last) if replays else None,
            "rolled_back": replays.refuted if replays else None,
        },
    )
    numbers = {
        "demo.seconds_to_summary": (result.seconds_to_summary, "s"),
        "demo.hybrid_step_share": (totals.get("hybrid_share"), "share"),
        # A ratio that no bound holds is not one to publish.
        "demo.attention_speedup_tuned_vs_default": (
            replays.last.speedup if replays and replays.last.lower_bound is not None else None,
            "x",
        ),
    }
    for name, (value, unit) in numbers.items():
        # Unmeasured stays as it was: an old number with its date beats a hole.
        if value is not None:
            _results.record_headline(name, value, unit, COMMAND)


def _rows(compared: Comparison) -> list[dict[str, Any]]:
    return [row.document() for row in compared.buckets]


if __name__ == "__main__":
    main()
