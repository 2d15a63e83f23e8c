"""Is a changed kernel as fast as before? Source trees in turns on one GPU, the same batches each.

    python -m benchmarks.gpu versus --label numerics before=../old after=.

Every tree runs its own `numbers`, the 12 cases, or with `--part grammar` vLLM's public batches,
many of which take microseconds, in a process of its own, in the order A B B A, so that clocks and
temperature favour none. Times of the default config are compared: the ratio of a case is the first
tree's median over the other's, above 1 the other is faster. A tree's name may be followed by
variables of its environment: `exact=.,POD_X=1`.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.gpu.common import machine
from benchmarks.gpu.common.output import Output, add_output

_STRATEGIES = ("fused", "serial")
_PARTS = ("numbers", "grammar")
_TAIL = 2000


class Tree(NamedTuple):
    """One checkout to measure, with what its processes find in their environment."""

    name: str
    root: Path
    environment: dict[str, str]

    @classmethod
    def parse(cls, text: str) -> Tree:
        """`name=path[,VARIABLE=value ...]`; raises ArgumentTypeError with what is wrong."""
        name, separator, rest = text.partition("=")
        path, *variables = rest.split(",")
        root = Path(path).resolve()
        if not (name and separator and path) or not (root / "benchmarks" / "gpu").is_dir():
            raise argparse.ArgumentTypeError(
                f"{text!r} is no name=path of a source tree with benchmarks/gpu in it"
            )
        pairs = dict(variable.partition("=")[::2] for variable in variables)
        return cls(name, root, pairs)


def times(document: dict[str, Any]) -> dict[str, dict[str, float]]:
    """Strategy -> case -> median us of the default config, from a numbers.json or grammar.json."""
    found: dict[str, dict[str, float]] = {strategy: {} for strategy in _STRATEGIES}
    for case, entry in document["cases"].items():
        if "us" in entry:
            found["fused"][case], found["serial"][case] = (
                entry["us"]["default"],
                entry["us"]["serial"],
            )
        for run in entry.get("runs", []):
            strategy = run.get("strategy")
            if run.get("label") == "default" and strategy in found and "median_us" in run:
                found[strategy][case] = run["median_us"]
    return found


def compare(rounds: list[dict[str, Any]], names: list[str]) -> dict[str, Any]:
    """Per other tree and strategy: ratio of each case, their geometric mean, least and greatest.

    rounds  [{"tree": name, "times": see `times`}, ...]; a case counts once every tree has it
    """
    compared: dict[str, Any] = {}
    for other in names[1:]:
        for strategy in _STRATEGIES:
            first, second = (_medians(rounds, name, strategy) for name in (names[0], other))
            ratios = {case: first[case] / second[case] for case in first if case in second}
            if ratios:
                compared[f"{other}, {strategy}"] = {
                    "geomean": math.exp(statistics.fmean(map(math.log, ratios.values()))),
                    "min": min(ratios.values()),
                    "max": max(ratios.values()),
                    "cases": ratios,
                }
    return compared


def _medians(rounds: list[dict[str, Any]], tree: str, strategy: str) -> dict[str, float]:
    seen: dict[str, list[float]] = {}
    for one in rounds:
        if one["tree"] == tree:
            for case, microseconds in one["times"][strategy].items():
                seen.setdefault(case, []).append(microseconds)
    return {case: statistics.median(values) for case, values in seen.items()}


def measure(tree: Tree, part: str, folder: Path, seconds: float, backend: str) -> dict[str, Any]:
    """One round of one tree: its part, ended after `seconds`; an error stands in its place."""
    folder.mkdir(parents=True, exist_ok=True)
    # As left by `peers`: none is to be timed.
    (folder / "peers.json").write_text('{"peers": {}}')
    command = [sys.executable, "-m", "benchmarks.gpu", part, "--seconds", str(seconds)]
    command += ["--backend", backend, "--out", str(folder)]
    path = os.pathsep.join(filter(None, [str(tree.root), os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        command,
        cwd=tree.root,
        env={**os.environ, **tree.environment, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    saved = folder / f"{part}.json"
    if done.returncode != 0 or not saved.exists():
        said = (done.stdout + done.stderr)[-_TAIL:]
        return {"tree": tree.name, "error": said, "times": {name: {} for name in _STRATEGIES}}
    document = json.loads(saved.read_text())
    saved.unlink()
    build = document["machine"].get("kernel_build")
    return {"tree": tree.name, "kernel_build": build, "times": times(document)}


def main(arguments: list[str] | None = None) -> None:
    """Measure in turns, print the ratios, save versus.json after every round."""
    parser = argparse.ArgumentParser(
        prog="versus",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("trees", nargs="+", type=Tree.parse, metavar="NAME=PATH")
    parser.add_argument("--label", required=True, help="what was changed; names the headline")
    parser.add_argument("--part", choices=_PARTS, default=_PARTS[0], help="whose batches")
    parser.add_argument("--rounds", type=int, default=4, help="of each tree (default 4)")
    parser.add_argument("--round-seconds", type=float, default=30.0, help="each (default 30)")
    add_output(parser)
    options = parser.parse_args(arguments)
    names = [tree.name for tree in options.trees]
    if len(names) < 2 or len(set(names)) < len(names):
        parser.error(f"give at least two trees of different names, got {names}")
    output = Output(options.out, "versus")
    document: dict[str, Any] = {"machine": machine.report(), "label": options.label}
    document |= {"part": options.part, "rounds": []}
    for number in range(options.rounds):
        for tree in options.trees if number % 2 == 0 else options.trees[::-1]:
            folder = options.out / "versus_rounds"
            one = measure(tree, options.part, folder, options.round_seconds, options.backend)
            document["rounds"].append(one)
            document["compared"] = compare(document["rounds"], names)
            output.save(document)
            print(f"round {number + 1}, {tree.name}: {one.get('error', 'ok')}", flush=True)
    for name, found in document["compared"].items():
        print(
            f"{names[0]} / {name}: {found['geomean']:.4f} ({found['min']:.3f}-{found['max']:.3f})"
        )
