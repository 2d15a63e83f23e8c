"""All that must be known of the kernel on a new GPU, in one command and one JSON.

Every step is a process of its own with a time limit: one that hangs or loses the device costs its
own result only.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.gpu.common import machine
from benchmarks.gpu.common.output import Output, add_output

_TAIL = 1500
# What it leaves behind must not keep the next step from starting.
_KILL_SECONDS = 10


class Step(NamedTuple):
    """One part to run; `saves` is the JSON that it leaves."""

    name: str
    arguments: list[str]
    seconds: float
    saves: str = ""
    tool: tuple[str, ...] = ()
    environment: Mapping[str, str] = {}


def steps(check_seconds: float) -> list[Step]:
    """In the order of what is lost most if time runs out."""
    sanitizer = [
        Step(
            name,
            ["once"],
            150,
            tool=("compute-sanitizer", "--tool", name, "--error-exitcode", "9"),
            # One allocation per tensor, so that a neighbour does not hide an access out of range.
            environment={"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"},
        )
        for name in ("memcheck", "synccheck")
    ]
    checks = ["checks", "--seconds", str(check_seconds)]
    return [
        Step("prebuild", ["prebuild"], 240, "prebuild"),
        Step("conformance", ["conformance"], 90, "conformance"),
        Step("checks", checks, check_seconds + 60, "checks"),
        Step("corun", ["corun"], 90, "corun"),
        *sanitizer,
    ]


def run(chosen: Sequence[Step], folder: Path, backend: str) -> dict[str, Any]:
    """Run the steps one after the other and collect what they saved."""
    output = Output(folder, "first_contact")
    document: dict[str, Any] = {"machine": machine.report(), "steps": {}}
    output.save(document)
    for step in chosen:
        document["steps"][step.name] = _run(step, folder, backend)
        output.save(document)
        said = document["steps"][step.name]
        print(f"== {step.name}: {said['outcome']} in {said['seconds']} s", flush=True)
    document["clocks_after"] = machine.clocks()
    output.save(document)
    return document


def _run(step: Step, folder: Path, backend: str) -> dict[str, Any]:
    if step.tool and shutil.which(step.tool[0]) is None:
        return {"outcome": f"not run: no {step.tool[0]} in PATH", "seconds": 0}
    command = [*step.tool, sys.executable, "-m", "benchmarks.gpu", *step.arguments]
    command += ["--backend", backend, "--out", str(folder)]
    log = folder / f"{step.name}.log"
    began = time.monotonic()
    with log.open("w") as file:
        process = subprocess.Popen(
            command,
            stdout=file,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONUNBUFFERED": "1", **step.environment},
            start_new_session=True,
        )
        outcome = _wait(process, step.seconds)
    text = log.read_text(errors="replace")
    log.unlink()
    print(text[-_TAIL:], flush=True)
    result: dict[str, Any] = {
        "outcome": outcome,
        "seconds": round(time.monotonic() - began, 1),
        "log": text[-_TAIL * (1 if outcome == "ok" else 4) :],
    }
    saved = folder / f"{step.saves}.json"
    if step.saves and saved.exists():
        result["result"] = json.loads(saved.read_text())
        # Few files come back from some machines; this one holds them all.
        saved.unlink()
    return result


def _wait(process: subprocess.Popen[bytes], seconds: float) -> str:
    try:
        code = process.wait(seconds)
    except subprocess.TimeoutExpired:
        return f"stopped after {seconds} s" + _end(process)
    except BaseException:
        _end(process)
        raise
    return "ok" if code == 0 else f"exit code {code}"


def _end(process: subprocess.Popen[bytes]) -> str:
    # It leads a session of its own: its compilers and workers go with it.
    os.killpg(process.pid, signal.SIGKILL)
    try:
        process.wait(_KILL_SECONDS)
    except subprocess.TimeoutExpired:
        return ", and does not end"
    return ""


def main(arguments: list[str] | None = None) -> None:
    """Print each step's last words, save first_contact.json."""
    parser = argparse.ArgumentParser(
        prog="first-contact", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--check-seconds", type=float, default=180.0)
    parser.add_argument("--only", default="", help="names of steps, separated by commas")
    add_output(parser)
    options = parser.parse_args(arguments)
    chosen = [
        step
        for step in steps(options.check_seconds)
        if not options.only or step.name in options.only.split(",")
    ]
    document = run(chosen, options.out, options.backend)
    for name, said in document["steps"].items():
        print(f"{name:12s} {said['outcome']:12s} {said['seconds']:7.1f} s")
    outcomes = {name: said["outcome"] for name, said in document["steps"].items()}
    failed = [n for n, said in outcomes.items() if said != "ok" and not said.startswith("not run")]
    if failed:
        sys.exit(f"first-contact: failed are {', '.join(failed)}")
