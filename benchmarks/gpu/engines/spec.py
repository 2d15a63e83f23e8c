"""Does a model that speculates answer on `pod` as on a stock backend, and accept as many drafts?

A small trained Llama (--weights, a GGUF file) with itself, less --dropped of its layers, as draft
model (STANDALONE), with that as an EAGLE head, with the whole of itself, with n-grams, and without
speculation: on `pod`, on a stock backend, and with `pod` for prompts alone. Every engine answers
the same prompts twice, the second time in reverse: what differs then on one backend is what near
ties do to greedy tokens. A few engines run at a time, since nothing is timed; results are written
after each, and an engine that fails, or that no time is left for, takes no other with it.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import functools
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.gpu.common import machine
from benchmarks.gpu.common.output import Output, add_output
from benchmarks.gpu.engines import live_models, spec_accept, spec_deep_gemm, spec_drafts
from benchmarks.gpu.engines.figures import compare
from benchmarks.gpu.engines.job import Run, backends, engine_arguments
from benchmarks.gpu.engines.places import REFUSED, add_only
from benchmarks.gpu.engines.sglang import Worker
from pod_integrate.devices.registry import device_named

MODEL = live_models.MODELS["smollm2"]
_ROOT = Path(__file__).resolve().parents[3]
_LOAD = ("questions", "steps", "dropped", "stock")
_PLAIN, _STANDALONE, _EAGLE, _WHOLE, _NGRAM = "plain", "standalone", "eagle", "whole", "ngram"
# Folder of the draft model, beside the model's own.
_DRAFTS = {_STANDALONE: "draft", _EAGLE: "eagle", _WHOLE: "model"}
# Below so many seconds no engine comes up.
_LEAST_SECONDS = 25.0


class SpecRun(NamedTuple):
    """One engine: attention backends of prompts and of the other steps, and how it speculates."""

    prefill: str
    decode: str
    kind: str

    @property
    def name(self) -> str:
        """As printed and filed."""
        return f"{backends(self.prefill, self.decode)}, {self.kind}"


def runs(stock: str) -> list[SpecRun]:
    """By worth."""
    return [
        SpecRun(stock, stock, _STANDALONE),
        SpecRun("pod", "pod", _STANDALONE),
        SpecRun("pod", stock, _STANDALONE),
        SpecRun(stock, stock, _EAGLE),
        SpecRun("pod", "pod", _EAGLE),
        SpecRun(stock, stock, _PLAIN),
        SpecRun("pod", stock, _PLAIN),
        SpecRun(stock, stock, _WHOLE),
        SpecRun("pod", "pod", _WHOLE),
        SpecRun(stock, stock, _NGRAM),
        SpecRun("pod", "pod", _NGRAM),
    ]


def arguments_of(run: SpecRun, folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Of sglang.Engine; few and small graphs, since starting is most of the time.

    folder  that `write_models` filled
    """
    options = argparse.Namespace(**vars(options), device="cuda", prefill_graphs="disabled")
    found = engine_arguments(Run(run.prefill, run.decode, False), folder / "model", options)
    found |= {
        "context_length": MODEL.context,
        "cuda_graph_bs_decode": [8, 32],
        "max_running_requests": 32,
        "max_total_tokens": 1 << 16,
    }
    if run.kind == _PLAIN:
        return found
    # A pair's other half verifies, so that `pod` has the prompts alone.
    found["speculative_attention_mode"] = "decode"
    if run.kind == _NGRAM:
        return found | {"speculative_algorithm": "NGRAM", "speculative_num_draft_tokens": 2}
    return found | {
        "speculative_algorithm": "EAGLE" if run.kind == _EAGLE else "STANDALONE",
        "speculative_draft_model_path": str(folder / _DRAFTS[run.kind]),
        "speculative_draft_attention_backend": options.stock,
        "speculative_num_steps": options.steps,
        "speculative_eagle_topk": 1,
        "speculative_num_draft_tokens": options.steps + 1,
    }


def write_models(folder: Path, options: argparse.Namespace) -> None:
    """The model, and the drafts that are made of it."""
    model = folder / "model"
    live_models.write_model(model, MODEL, options)
    spec_drafts.move_last_norm(model)
    spec_drafts.write_draft(folder / _DRAFTS[_STANDALONE], model, options.dropped)
    spec_drafts.write_eagle(folder / _DRAFTS[_EAGLE], model, options.dropped)


def compared(answers: dict[str, dict[str, Any]], stock: str) -> dict[str, dict[str, float]]:
    """Each engine against the stock backend that speculates as it does.

    answers  run: {"passes": tokens of both, "steps": verify steps of each answer in both}
    `control` of a stock engine compares its second pass with its first.
    """
    found: dict[str, dict[str, float]] = {}
    for name, answer in answers.items():
        backend, kind = name.split(", ")
        want = answers.get(f"{stock}, {kind}")
        if want is None:
            continue
        if backend == stock:
            first, second = _verified(want)
            control = compare(*want["passes"]) | spec_accept.compared([second], [first])
            found[name] = {f"control_{k}": v for k, v in control.items()}
            if f"{stock}, {_PLAIN}" in answers and kind != _PLAIN:
                plain = compare(answers[f"{stock}, {_PLAIN}"]["passes"][0], want["passes"][0])
                found[name] |= {f"plain_{k}": v for k, v in plain.items()}
            continue
        found[name] = compare(want["passes"][0], answer["passes"][0])
        found[name] |= spec_accept.compared(_verified(answer), _verified(want))
    return found


def _verified(answer: dict[str, Any]) -> list[list[spec_accept.Verified]]:
    passes = zip(answer["passes"], answer["steps"], strict=True)
    return [spec_accept.verified(*one) for one in passes]


class SpecRuns:
    """The document under way; several threads add to it."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._options, self._lock = options, threading.Lock()
        self._output = Output(options.out, "spec")
        # Apart from the numbers: to compare with runs of another visit.
        self._tokens = Output(options.out, "spec_tokens")
        self._answers: dict[str, dict[str, Any]] = {}
        self._until = time.monotonic() + options.seconds
        self.document: dict[str, Any] = {
            "machine": machine.report(),
            "load": {name: getattr(options, name) for name in _LOAD},
            "runs": {}, "compared": {}, "failed": {},
        }  # fmt: skip

    def step(self, worker: Worker, job: dict[str, Any]) -> None:
        """Run one engine and save what is known; what fails is said in `failed`."""
        name, left = worker.run.name, self._until - time.monotonic()
        try:
            if left < _LEAST_SECONDS:
                raise RuntimeError(f"not run: {left:.0f} s are left of {self._options.seconds:g}")
            found = worker.measure(job, min(left, self._options.each))
        except RuntimeError as error:
            with self._lock:
                self.document["failed"][name] = str(error)
                self._output.save(self.document)
            print(f"{name} FAILED: {error}", flush=True)
            return
        with self._lock:
            self._answers[name] = {part: found.pop(part) for part in ("passes", "steps")}
            self.document["runs"][name] = found
            self.document["compared"] = compared(self._answers, self._options.stock)
            self._tokens.save(self._answers)
            self._output.save(self.document)
        print(f"{name}: {found}", flush=True)


def _work(options: argparse.Namespace, folder: Path) -> SpecRuns:
    wanted = [r for r in runs(options.stock) if not options.only or r.name in options.only]
    measurement, workers = SpecRuns(options), []
    environment, measurement.document["deep_gemm"] = spec_deep_gemm.environment(folder)
    print(f"deep_gemm: {measurement.document['deep_gemm']}", flush=True)
    try:
        for i, run in enumerate(wanted):
            (folder / str(i)).mkdir()
            workers.append(
                Worker(run, folder / str(i), options.out, module="spec_run",
                       environment=environment)
            )  # fmt: skip
        write_models(folder, options)
        device, geometry = device_named("cuda"), live_models.geometry_of(MODEL)
        device.load()
        device.build(geometry, device.default_config(geometry))
        asked = live_models.questions(folder / "model", _ROOT, options.questions)
        jobs = [
            {
                "engine": arguments_of(run, folder, options),
                "requests": asked,
                "warmup": [{**one, "new": 8} for one in asked[::8]],
            }
            for run in wanted
        ]
        print("models and kernel are there", flush=True)
        with concurrent.futures.ThreadPoolExecutor(options.lanes) as pool:
            list(pool.map(measurement.step, workers, jobs))
    finally:
        for worker in workers:
            worker.stop()
    return measurement


def main(arguments: list[str] | None = None) -> None:
    """Run, print and save spec.json; ends with an error when an engine failed."""
    parser = argparse.ArgumentParser(prog="spec", description=(__doc__ or "").split("\n")[0])
    add = functools.partial(parser.add_argument, type=int)
    parser.add_argument("--weights", type=Path, required=True, help="GGUF file of SmolLM2-135M")
    add("--questions", default=32, help="prompts, answered twice")
    add("--steps", default=5, help="drafts of a request in a verify step")
    add("--dropped", default=2, help="layers that the draft model lacks")
    add("--lanes", default=8, help="engines at a time")
    parser.add_argument("--each", type=float, default=150.0, help="most seconds of an engine")
    parser.add_argument("--seconds", type=float, default=300.0, help="most seconds of all of them")
    parser.add_argument("--stock", default="fa3", help="backend to compare with, and of drafts")
    add_only(parser)
    add_output(parser, refused=REFUSED)
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        document = _work(options, Path(name)).document
    for run, found in document["compared"].items():
        print(f"{run}: { {k: round(v, 4) for k, v in found.items()} }")
    if document["failed"]:
        sys.exit(f"spec: failed are {' / '.join(document['failed'])}")
