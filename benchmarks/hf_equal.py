"""Greedy tokens and continuous-batching scenarios on `pod`, on several versions of transformers.

    python benchmarks/hf_equal.py [--versions 5.12.1,5.17.0,5.23.0,5.24.0] [--folder DIR]

The installed version always runs. Each further one is installed without dependencies into a folder
of its own (small: torch and all else are shared) and runs in a process that finds it first.
Writes results/hf_equal.json and the headlines hf.models_token_equal, hf.models_compared,
hf.scenarios_passed, hf.scenarios_run and hf.versions. Exits with 1 when something failed.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks import _results

ROOT = Path(__file__).resolve().parent.parent
# The tokenizers release that a version needs, where the installed one does not do.
TOKENIZERS = {"5.12.1": "0.22.2"}
OLDEST_TO_NEWEST = "5.12.1,5.17.0,5.23.0,5.24.0"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--versions", default=OLDEST_TO_NEWEST, help="beside the installed one")
    parser.add_argument("--folder", type=Path, help="keep installed versions here")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        _worker()
        return
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.folder or Path(scratch)
        installed = importlib.metadata.version("transformers")
        wanted = {version for version in options.versions.split(",") if version} - {installed}
        runs = [_run(None)] + [_run(_install(version, folder)) for version in sorted(wanted)]
    runs.sort(key=lambda run: tuple(int(part) for part in run["transformers"].split(".")))
    _write(runs, f"python benchmarks/hf_equal.py --versions {options.versions}")
    if any(_failures(run) for run in runs):
        sys.exit("\n".join(line for run in runs for line in _failures(run)))


def _install(version: str, folder: Path) -> Path:
    target = folder / version
    packages = [f"transformers=={version}"]
    if version in TOKENIZERS:
        packages.append(f"tokenizers=={TOKENIZERS[version]}")
    if not (target / "transformers").is_dir():
        uv = Path(sys.executable).with_name("uv")
        command = [str(uv), "pip", "install", "--quiet", "--no-deps", "--target", str(target)]
        subprocess.run([*command, *packages, "--python", sys.executable], check=True)
    return target


def _run(target: Path | None) -> dict[str, Any]:
    places = [str(place) for place in (target, ROOT) if place is not None]
    done = subprocess.run(
        [sys.executable, "-W", "ignore", __file__, "--worker"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(places)},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    run: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    print(run["transformers"], *(_failures(run) or ["all equal, all passed"]), flush=True)
    return run


def _worker() -> None:
    import transformers

    from benchmarks.engines import hf_equal, hf_models, hf_scenario, hf_scenarios
    from pod_integrate import hf

    transformers.logging.set_verbosity_error()
    hf.enable()
    models = {
        name: [case._asdict() for case in hf_equal.compare(name)] for name in hf_models.MODELS
    }
    prepared = hf_scenario.Models()
    scenarios = {name: hf_scenarios.run(name, prepared) for name in hf_scenarios.SCENARIOS}
    version = transformers.__version__
    print(json.dumps({"transformers": version, "models": models, "scenarios": scenarios}))


def _failures(run: dict[str, Any]) -> list[str]:
    lines = [
        f"{run['transformers']} {name}, {case['name']}: {case['detail']}"
        for name, cases in run["models"].items()
        for case in cases
        if not case["equal"]
    ]
    for name, (result, reason) in run["scenarios"].items():
        if result == "failed":
            lines.append(f"{run['transformers']} {name}: {reason}")
    return lines


def _write(runs: list[dict[str, Any]], command: str) -> None:
    _results.write("hf_equal", {"command": command, "runs": runs})
    models = [cases for run in runs for cases in run["models"].values()]
    results = [result for run in runs for result, _ in run["scenarios"].values()]
    where = f"over {len(runs)} versions of transformers"
    numbers = {
        "models_token_equal": sum(all(case["equal"] for case in cases) for cases in models),
        "models_compared": len(models),
        "scenarios_passed": results.count("passed"),
        "scenarios_run": len(results) - results.count("skipped"),
    }
    for name, number in numbers.items():
        _results.record_headline(f"hf.{name}", number, f"{name.split('_')[0]} {where}", command)
    span = f"versions, {runs[0]['transformers']} to {runs[-1]['transformers']}"
    _results.record_headline("hf.versions", len(runs), span, command)


if __name__ == "__main__":
    main()
