"""Regret of searches on recorded truth: how much slower than the best config what they find is.

    python -m benchmarks.regret [FILE]

FILE is what `python -m benchmarks.gpu truth` left; it is a data file of the tests. Every search
runs with every seed on every bucket: seeds draw the steps that trials are screened on, and which
calls of a step were its measurement. What a search finds is what came out of its confirmations on
other steps, as in the tuner; these count as trials too. Results of an invented truth are no
headlines.
"""

from __future__ import annotations

import argparse
import statistics
import time
from typing import Any

from benchmarks import _results
from benchmarks.regret.head import Head
from benchmarks.regret.recorded import Recorded
from benchmarks.regret.searches import SEARCHES, run
from tuner.settings import TunerSettings

CHECKPOINTS = (24, 40, 150)
# Slow ones run with fewer seeds to the last checkpoint.
_SLOW = ("gp",)
_HEADLINES = {
    "tuner.regret_pct_at_40": ("study", 40),
    "tuner.regret_pct_at_150": ("study", 150),
    "tuner.regret_pct_at_40_random": ("random", 40),
}


def regrets(
    recorded: Recorded, name: str, seeds: int, checkpoints: list[int]
) -> dict[str, list[tuple[float, float]]]:
    """By checkpoint and seed, in per cent: regret of what is in force, of the best one tried."""
    settings = TunerSettings(_env_file=None)  # type: ignore[call-arg]
    found: dict[str, list[tuple[float, float]]] = {str(at): [] for at in checkpoints}
    for seed in range(seeds):
        search = SEARCHES[name](recorded, seed)
        path = run(
            recorded, search, max(checkpoints), seed,
            screen_steps=settings.screen_steps, pairs=settings.step_pairs,
        )  # fmt: skip
        for at in checkpoints:
            force, tried = path[at - 1]
            found[str(at)].append((100 * force, 100 * tried))
    return found


def summary(found: dict[str, list[tuple[float, float]]]) -> dict[str, dict[str, float]]:
    """Medians, and the worst tenth of what was chosen."""
    table = {}
    for at, pairs in found.items():
        chosen, tried = (sorted(column) for column in zip(*pairs, strict=True))
        table[at] = {
            "median": round(statistics.median(chosen), 3),
            "p90": round(chosen[int(0.9 * (len(chosen) - 1))], 3),
            "best_tried": round(statistics.median(tried), 3),
        }
    return table


def main() -> None:
    """Print a line a search and bucket; file regret.json and, of measured truth, headlines."""
    head = Head("regret", __doc__)
    parser = head.parser
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--searches", default=",".join(SEARCHES), help="names, by commas")
    parser.add_argument("--trials", default=",".join(map(str, CHECKPOINTS)), help="looks")
    parser.add_argument("--bucket", default="", help="part of a bucket's name")
    options, told, buckets = head.parse()
    invented = told["machine"].get("invented", "")
    checkpoints = [int(at) for at in options.trials.split(",")]
    document: dict[str, Any] = {"truth": told, "seeds": options.seeds, "buckets": {}, "all": {}}
    everything: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for recorded in (each for each in buckets if options.bucket in each.name):
        entry: dict[str, Any] = {
            "bucket": recorded.bucket,
            "default": round(100 / recorded.best - 100, 2),
        }
        document["buckets"][recorded.name] = entry
        for name in options.searches.split(","):
            began = time.monotonic()
            at_most = 40 if name in _SLOW else max(checkpoints)
            looks = [at for at in checkpoints if at <= at_most]
            found = regrets(recorded, name, options.seeds, looks)
            entry[name] = summary(found)
            merged = everything.setdefault(name, {str(at): [] for at in looks})
            for at, pairs in found.items():
                merged[at] += pairs
            said = ", ".join(f"{at}: {v['median']:.2f} %" for at, v in entry[name].items())
            spent = time.monotonic() - began
            print(f"{invented}{recorded.name:22s} {name:12s} {said}  ({spent:.0f} s)", flush=True)
    document["all"] = {name: summary(found) for name, found in everything.items()}
    for name, table in document["all"].items():
        said = ", ".join(f"{at}: {v['median']:.2f} %" for at, v in table.items())
        print(f"{'all buckets':22s} {name:12s} {said}")
    # Of a part of the buckets a median is another number.
    if head.files and not (invented or options.bucket):
        _file(document, told, command(options))


def command(options: argparse.Namespace) -> str:
    """What repeats a run on the recorded truth."""
    return (
        f"python -m benchmarks.regret --searches '{options.searches}' --seeds {options.seeds} "
        f"--trials {options.trials}"
    )


def _file(document: dict[str, Any], told: dict[str, Any], command: str) -> None:
    _results.write("regret", document)
    gpu = told["machine"].get("device", {}).get("name", told["device"])
    where, when = f"times of {gpu}, replayed", told["machine"]["utc"][:10]
    for headline, (name, at) in _HEADLINES.items():
        value = document["all"].get(name, {}).get(str(at))
        if value is not None:
            unit = f"%, median of {len(document['buckets'])} buckets and {document['seeds']} seeds"
            _results.record_headline(
                headline, value["median"], unit, command, where=where, when=when
            )


if __name__ == "__main__":
    main()
