"""SGLang end to end: attention backend `pod` against stock ones, with mixed chunks on and off.

Llama of real head counts with random bf16 weights, CUDA graphs on. Long prompts arrive beside many
running requests, several times in one engine: medians count, the first pass does not. Greedy tokens
of a random model flip at near ties wherever rounding differs, so equality has controls: two passes
of one engine, a stock backend with other batches, and another stock backend.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from benchmarks.gpu.common import machine
from benchmarks.gpu.common.counts import count
from benchmarks.gpu.common.output import Output, add_output, rounded
from benchmarks.gpu.engines.figures import compare
from benchmarks.gpu.engines.job import (
    Run,
    engine_arguments,
    few,
    make_model,
    make_requests,
    prebuild,
    runs,
)
from benchmarks.gpu.engines.places import PLACES, REFUSED, add_only

_LOG_TAIL = 1500
_STOP_SECONDS = 15


class Named(Protocol):
    """A run, to its worker."""

    @property
    def name(self) -> str:
        """As printed and filed."""


class Worker:
    """A process that has imported SGLang by the time that its run's turn comes.

    log  what it and its children print
    """

    def __init__(
        self,
        run: Named,
        folder: Path,
        out: Path,
        *,
        module: str = "sglang_run",
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.run, self._folder = run, folder
        self.log = out / f"sglang_{re.sub('[ ,+]+', '_', run.name)}.log"
        with self.log.open("w") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", f"{__package__}.{module}"],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                text=True,
                env={**os.environ, **(environment or {})},
            )

    def measure(self, job: dict[str, Any], limit: float) -> dict[str, Any]:
        """Do the job in at most `limit` seconds; RuntimeError holds the end of the log."""
        paths = [self._folder / f"{part}.json" for part in ("job", "result")]
        paths[0].write_text(json.dumps(job))
        paths[1].unlink(missing_ok=True)
        try:
            self._process.communicate("\t".join(map(str, paths)) + "\n", timeout=limit)
        except subprocess.TimeoutExpired:
            self.stop()
        if not paths[1].exists():
            raise self.failure(limit)
        found: dict[str, Any] = json.loads(paths[1].read_text())
        return found

    def failure(self, limit: float) -> RuntimeError:
        """What is known of a worker that did not answer within `limit` seconds: its log's end."""
        tail = self.log.read_text(errors="replace")[-_LOG_TAIL:]
        status = self._process.poll()
        return RuntimeError(f"exit status {status}, at most {limit:.0f} s:\n{tail}")

    def stop(self) -> None:
        """End the process and, as SGLang does on SIGTERM, its children."""
        if self._process.poll() is not None:
            return
        self._process.terminate()
        try:
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


class SglangRuns:
    """The document under way."""

    def __init__(self, options: argparse.Namespace, model: Path) -> None:
        self._options, self._model = options, model
        self._output = Output(options.out, "sglang")
        # Apart from the numbers: to compare with runs of another visit.
        self._answers = Output(options.out, "sglang_tokens")
        self._until = time.monotonic() + options.seconds
        self._tokens: dict[str, list[list[int]]] = {}
        self._requests = make_requests(options)
        names = ("running", "prompts", "longest", "new", "interval", "layers", "heads", "device")
        self.document: dict[str, Any] = {
            "machine": machine.report(),
            "load": {name: getattr(options, name) for name in (*names, "prefill_graphs", "passes")},
            "compared_with": Run(options.stock, options.stock, True).name,
            "runs": {},
            "failed": {},
        }

    def step(self, worker: Worker) -> None:
        """Measure and save one run; what fails, or has no time left, is said in `failed`."""
        run, left = worker.run, self._until - time.monotonic()
        assert isinstance(run, Run), run
        name = run.name
        job = {
            "engine": engine_arguments(run, self._model, self._options),
            "warmup": [{**request, "new": 4, "at": 0.0} for request in few(self._requests)],
            "requests": self._requests,
            "passes": self._options.passes,
            "saturated": self._options.saturated,
        }
        try:
            if left < self._options.least:
                raise RuntimeError(f"not run: {left:.0f} s are left of {self._options.seconds:.0f}")
            found = worker.measure(job, min(left, self._options.each))
            self._tokens[name] = found.pop("tokens")
            self._answers.save(self._tokens)
            self.document["runs"][name] = found
            print(f"{name}: {rounded(found)}", flush=True)
        except RuntimeError as error:
            self.document["failed"][name] = str(error)
            print(f"{name} FAILED: {error}", flush=True)
        self._compare()
        self._output.save(self.document)

    def _compare(self) -> None:
        want = self._tokens.get(self.document["compared_with"])
        for name, tokens in self._tokens.items():
            if want is not None:
                self.document["runs"][name] |= compare(want, tokens)


def add_load(parser: argparse.ArgumentParser) -> None:
    """The options that say what a server is sent."""
    add = functools.partial(parser.add_argument, type=count())
    add("--running", default=32, help="requests that decode beside the prompts")
    add("--prompts", default=24, help="long prompts that arrive")
    add("--longest", type=count(32), default=8192, help="prompt, tokens")
    add("--new", default=256, help="tokens of an answer of a running request")
    add("--layers", default=12)
    add("--heads", type=count(4, 4), default=32, help="query heads, a multiple of 4")
    parser.add_argument(
        "--interval", type=float, default=0.1, help="seconds between long prompts; 0: all at once"
    )


def add_passes(parser: argparse.ArgumentParser) -> None:
    """The option of parts that time the load."""
    parser.add_argument(
        "--passes",
        type=count(),
        default=5,
        help="times that an engine gets the load; the first is not counted",
    )


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="sglang", description=(__doc__ or "").split("\n")[0])
    add_load(parser)
    add_passes(parser)
    parser.add_argument(
        "--saturated",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="then passes in which every request is sent at once",
    )
    parser.add_argument("--prefill-graphs", choices=("breakable", "disabled"), default="breakable")
    parser.add_argument("--stock", default=None, help="backend to compare with: fa3")
    parser.add_argument("--control", default=None, help="another stock backend: triton")
    add_only(parser)
    parser.add_argument("--quick", action="store_true", help="8 layers, 300 s in total")
    parser.add_argument("--seconds", type=float, default=900.0, help="of all runs together")
    parser.add_argument("--each", type=float, default=150.0, help="most seconds of one run")
    parser.add_argument("--least", type=float, default=30.0, help="start nothing with less left")
    parser.add_argument("--device", choices=PLACES, default="cuda")
    add_output(parser, refused=REFUSED)
    options = parser.parse_args(arguments)
    if options.passes < 2:
        parser.error(f"--passes must be >= 2, got {options.passes}: the first is not counted")
    if options.quick:
        options.layers, options.seconds = min(options.layers, 8), min(options.seconds, 300.0)
    place = PLACES[options.device]
    options.stock = options.stock or place.stock
    options.control = options.control or place.control
    return options


def main(arguments: list[str] | None = None) -> None:
    """Measure, print and save sglang.json; ends with an error when a run failed."""
    options = _parse(arguments)
    wanted = runs(options.stock, options.control)
    wanted = [r for r in wanted if options.only is None or r.name in options.only]
    options.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        folder, began = Path(name), time.monotonic()
        measurement = SglangRuns(options, folder / "model")
        workers = [Worker(run, folder, options.out) for run in wanted]
        try:
            make_model(folder / "model", options)
            prebuild(options)
            print(f"model and kernel are there after {time.monotonic() - began:.0f} s", flush=True)
            for worker in workers:
                measurement.step(worker)
        finally:
            for worker in workers:
                worker.stop()
    for run, found in measurement.document["runs"].items():
        shares = {k: v for k, v in found.items() if k.endswith("_equal")}
        print(f"{run} against {measurement.document['compared_with']}: {rounded(shares)}")
    if measurement.document["failed"]:
        sys.exit(f"sglang: failed are {', '.join(measurement.document['failed'])}")
