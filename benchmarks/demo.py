"""The demo as a benchmark: runs of the whole loop in a row, their summaries as JSON and headlines.

pod-attn bench demo -- --runs 3

Each run starts from nothing. What is filed in full is the last one; of the fresh replays that runs
end with, the least tuned bucket of all counts, and so do buckets that are slower beyond noise.
"""

from __future__ import annotations

import argparse
import dataclasses
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import _results
from pod_integrate.cli.terminal import console
from pod_integrate.demo.compare import Comparison
from pod_integrate.demo.options import DemoOptions
from pod_integrate.demo.run import Demo
from pod_integrate.demo.summary import DemoResult

COMMAND = "pod-attn bench demo"
# A bucket is slower when the upper bound of its speed-up is below this.
_SLOWER = 0.98


def main() -> None:
    """Print each run's summary and file what all of them say so far."""
    defaults = DemoOptions()
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--runs", type=int, default=1, help="in a row, each from nothing")
    parser.add_argument("--seconds", type=float, default=defaults.seconds, help="load, seconds")
    parser.add_argument("--rate", type=float, default=defaults.rate, help="requests per second")
    parser.add_argument("--scale", type=float, default=defaults.scale, help="factor on lengths")
    parser.add_argument("--trace", type=Path, help="request trace instead of the built-in one")
    arguments = vars(parser.parse_args())
    results: list[DemoResult] = []
    for _ in range(arguments.pop("runs")):
        # A fresh folder: a table or trials of an earlier run would make the loop look faster.
        with tempfile.TemporaryDirectory(prefix="pod-attn-demo-") as state:
            options = dataclasses.replace(defaults, state=Path(state), **arguments)
            with Demo(options, console()) as demo:
                results.append(demo.run())
        record(results, dataclasses.asdict(options))


def record(results: Sequence[DemoResult], options: dict[str, Any]) -> None:
    """Write benchmarks/results/demo.json and the demo's headlines."""
    # Of what is filed after each run, however many were to follow.
    command = f"{COMMAND} -- --runs {len(results)}" if len(results) > 1 else COMMAND
    result, ends = results[-1], [ended(each) for each in results]
    stats, replays = result.stats, result.replays
    totals = result.overview.get("totals", {})
    del options["state"]
    _results.write(
        "demo",
        {
            "command": command,
            "runs": ends,
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
    least = [end["least_bucket"] for end in ends if end["least_bucket"] is not None]
    numbers = {
        "demo.seconds_to_summary": (result.seconds_to_summary, "s"),
        "demo.hybrid_step_share": (totals.get("hybrid_share"), "share"),
        # A ratio that no bound holds is not one to publish.
        "demo.attention_speedup_tuned_vs_default": (
            min((end["speedup"] for end in ends if end["lower_bound"] is not None), default=None),
            "x",
        ),
        "tuner.demo_min_bucket_ratio": (min(least, default=None), f"x, {len(ends)} run(s)"),
        "tuner.demo_slower_buckets": (sum(len(end["slower"]) for end in ends), "buckets"),
    }
    for name, (value, unit) in numbers.items():
        # Unmeasured stays as it was: an old number with its date beats a hole.
        if value is not None:
            _results.record_headline(name, value, unit, command)


def ended(result: DemoResult) -> dict[str, Any]:
    """What the fresh replay at a run's end said; `slower`: buckets that are so beyond noise."""
    if result.replays is None:
        # Nothing was promoted: the default ran everywhere.
        return {"speedup": 1.0, "lower_bound": 1.0, "least_bucket": None, "slower": [], "tuned": 0}
    last = result.replays.last
    replayed = [row for row in last.buckets if row.pairs]
    return {
        "speedup": last.speedup,
        "lower_bound": last.lower_bound,
        "least_bucket": last.worst.speedup if last.worst else None,
        "slower": [r.bucket for r in replayed if r.upper_bound and r.upper_bound < _SLOWER],
        "tuned": len(replayed),
        "steps": last.steps,
        "rolled_back": len(result.replays.refuted),
    }


def _rows(compared: Comparison) -> list[dict[str, Any]]:
    return [row.document() for row in compared.buckets]


if __name__ == "__main__":
    main()
