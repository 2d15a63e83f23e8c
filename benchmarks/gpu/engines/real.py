"""Trained weights through SGLang: do `pod` and the stock backend say the same, and as surely?

SmolLM2-135M-Instruct from a GGUF file, chunks mixed into decode steps, CUDA graphs of decodes. Four
engines stand at once: `pod` and stock over a cache of the model's dtype, and both over fp8. Each

  answers   200 questions greedily, all at once; stock also in small groups, as a control: in bf16
            other batches alone flip near ties. How near is told by stock's margin there, against
            what two of its own kernels differ by on the same tokens
  windows   is asked for the logprob of every token of this repository's documents, by prefill in
            chunks, in contexts of up to 8000 tokens
  forced    has to say parts of that text in decode steps, most of them hybrid; what it would have
            given each token is written down before

Every answer and logprob is kept in --out as it comes: the same command goes on from there.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import tempfile
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import platformdirs

from benchmarks.engines.sink import TraceSink
from benchmarks.gpu.engines.job import Run, engine_arguments
from benchmarks.gpu.engines.part import Part
from benchmarks.gpu.engines.places import PLACES
from benchmarks.gpu.engines.real_document import compared
from benchmarks.gpu.engines.real_options import parse
from benchmarks.gpu.engines.sglang import Worker
from benchmarks.real import jobs, text
from benchmarks.real.kept import Kept
from benchmarks.real.questions import prompts
from pod_integrate.demo import smollm2
from pod_integrate.devices.registry import device_named
from pod_integrate.terms.geometry import TORCH_DTYPES
from pod_integrate.terms.keys import Bucket, Geometry

_HEADS, _CONTEXT = (9, 3, 64), 8192
_FP8 = "fp8_e4m3"
_SCORED = ("windows", "forced")
_ALL = ("answers", *_SCORED)
_REFERENCE = (*_ALL, "forced_by_prefill", "margins", "again")
_PORT, _PORTS = 33_000, 2_000
_SINK_SECONDS = 2.0
_TRACED = {"POD_ATTN_TRACE_SAMPLE": "1", "POD_ATTN_POLL_SECONDS": "0.5"}
_PACKAGES = ("sglang", "torch", "transformers")
_UNTOLD = ("out", "weights", "only", "stages", "backend", "seconds")


def runs(stock: str) -> dict[Run, tuple[str, ...]]:
    """Engines, by worth, and what each is asked; the first is what the others are compared with."""
    return {
        Run(stock, stock, True): _REFERENCE,
        Run("pod", "pod", True): _ALL,
        Run("pod", "pod", True, _FP8): _SCORED,
        Run(stock, stock, True, _FP8): _SCORED,
    }


class Real(Part):
    """The document under way."""

    def __init__(self, options: argparse.Namespace, folder: Path) -> None:
        load = {name: value for name, value in vars(options).items() if name not in _UNTOLD}
        super().__init__(options, folder, "real", load)
        self._lock = threading.Lock()
        self.document["runs"] = {}

    def prepare(self) -> dict[str, Any]:
        """The job that all engines share, once model and kernel are there."""
        import transformers

        prebuild(self.options)
        self.say("the kernel is there")
        options, place = self.options, PLACES[self.options.device]
        dtype = str(TORCH_DTYPES[place.dtype]).removeprefix("torch.")
        # Not in --out, which is carried home.
        folder = Path(platformdirs.user_cache_dir("pod-attention")) / f"smollm2-{dtype}"
        model = smollm2.write_model(options.weights, folder, dtype)
        tokenizer = transformers.AutoTokenizer.from_pretrained(model)
        words, digest = text.read_text()
        ids = tokenizer(words)["input_ids"]
        self.document["text"] = {"sha256": digest, "tokens": len(ids)}
        pieces = text.forced(ids, options.forced, options.forced_prompt, options.forced_tokens)
        shared = {
            "prompts": prompts(tokenizer, options.questions), "new": options.new,
            "group": options.group, "windows": text.windows(ids, options.windows),
            "forced": text.as_json(pieces),
            "beside": text.windows(ids, [options.beside_tokens] * options.beside),
        }  # fmt: skip
        asked = shared | {"asked": jobs.digest(prompts(tokenizer))}
        told = [options.device, jobs.weights(options.weights), jobs.versions(_PACKAGES)]
        told.append([options.chunk, options.running])
        kept = {run.name: jobs.by_stage(asked, [*told, self.builds(run)]) for run in self.order}
        self.say("the model is there")
        return shared | {"model": str(model), "jobs": kept}

    @property
    def order(self) -> list[Run]:
        """All engines, by worth."""
        return list(runs(self.options.stock))

    def builds(self, run: Run) -> list[str]:
        """What changes an engine's answers besides weights, prompts and packages: our own code."""
        told = self.document["machine"]
        ours = "pod" in (run.prefill, run.decode)
        return [told[name] for name in ("host_build", "kernel_build")] if ours else []

    def path(self, run: Run) -> Path:
        """Where an engine's answers are kept."""
        out: Path = self.options.out
        return out / f"real_{run.prefill}_{run.cache}.jsonl"

    def compare(self, kept: dict[str, dict[str, str]]) -> dict[str, Any]:
        """What is there by now, of earlier runs of the same jobs too.

        kept  jobs of each engine, by stage
        """
        paths = {run.name: self.path(run) for run in self.order if self.path(run).exists()}
        found = {name: Kept(path, kept[name], reading=True) for name, path in paths.items()}
        return compared(found, self.order)

    def counted(self, run: Run, kept: dict[str, str], steps: list[Bucket]) -> dict[str, int]:
        """Steps of an engine that has ended, with those of runs that this one went on from."""
        file = Kept(self.path(run), kept)
        if steps:
            hybrid = sum(step.is_hybrid for step in steps)
            file.add("steps", len(file.stage("steps")), [len(steps), hybrid])
        found = list(file.stage("steps").values())
        return {name: sum(one[i] for one in found) for i, name in enumerate(("steps", "hybrid"))}

    def seconds_left(self) -> float:
        """Seconds until everything has to be at its end."""
        return float(self.options.seconds) - self.passed

    def engine(self, run: Run, number: int, model: str) -> dict[str, Any]:
        """Arguments of sglang.Engine."""
        options = self.options
        told = {
            "chunked_prefill_size": options.chunk, "max_total_tokens": options.kv_tokens,
            "context_length": _CONTEXT, "max_running_requests": options.running,
            "port": _PORT + number * _PORTS,
        }  # fmt: skip
        if PLACES[options.device].accelerates:
            told["cuda_graph_bs_decode"] = options.graphs
        else:
            # Many questions begin alike, and prompts are what takes a CPU its time.
            told["disable_radix_cache"] = False
        return engine_arguments(run, Path(model), options) | told

    def measure(
        self, number: int, run: Run, stages: tuple[str, ...], shared: Future[dict[str, Any]]
    ) -> None:
        """One engine from its start to its end; what fails is said in `failed`.

        shared  what prepare() returns; the engine's process imports SGLang meanwhile
        """
        scratch = self.folder / str(number)
        scratch.mkdir()
        with TraceSink() as sink:
            told = {"POD_ATTN_TUNER_URL": sink.url, **_TRACED}
            worker = Worker(
                run, scratch, self.options.out, module="real_run",
                environment=told if run.prefill == "pod" else {},
            )  # fmt: skip
            try:
                job = shared.result()
                found = worker.measure(
                    job | {
                        "engine": self.engine(run, number, job["model"]), "stages": stages,
                        "kept": str(self.path(run)), "scratch": str(scratch),
                        "jobs": job["jobs"][run.name],
                    },
                    max(1.0, self.seconds_left()),
                )  # fmt: skip
            except RuntimeError as error:
                found = {"failed": {"engine": str(error)}}
            finally:
                worker.stop()
            if run.prefill == "pod":
                sink.wait(_SINK_SECONDS)
                steps = [Bucket.of(r.q_lens, r.kv_lens) for r in sink.records()]
                found |= self.counted(run, job["jobs"][run.name], steps)
        failed = found.pop("failed")
        with self._lock:
            self.document["runs"][run.name] = found
            self.document["failed"] |= {
                f"{run.name}: {stage}": why for stage, why in failed.items()
            }
            self.document["compared"] = self.compare(job["jobs"])
            self.save()
        self.say(f"{run.name}: {found} {failed or ''}")


def prebuild(options: argparse.Namespace) -> None:
    """Compile what `pod` will use, once for all engines."""
    device, dtype = device_named(options.device), PLACES[options.device].dtype
    device.load()
    geometry = Geometry.uniform(_HEADS, dtype, page_size=1)
    for one in (geometry, dataclasses.replace(geometry, kv_dtype="e4m3")):
        device.build(one, device.default_config(one))


def main(arguments: list[str] | None = None) -> None:
    """Measure, print and save real.json; ends with an error when something failed."""
    options = parse(arguments, __doc__ or "")
    options.out.mkdir(parents=True, exist_ok=True)
    told = options.stages.split(",") if options.stages else _REFERENCE
    wanted = [
        (number, run, tuple(stage for stage in told if stage in stages))
        for number, (run, stages) in enumerate(runs(options.stock).items())
        if options.only is None or run.name in options.only
    ]
    with tempfile.TemporaryDirectory() as name:
        real = Real(options, Path(name))
        with ThreadPoolExecutor(1) as first, ThreadPoolExecutor(options.at_once) as pool:
            shared = first.submit(real.prepare)
            for done in [pool.submit(real.measure, *one, shared) for one in wanted]:
                done.result()
    print(json.dumps(real.document.get("compared"), indent=1))
    if real.document["failed"]:
        sys.exit(f"real: failed are {json.dumps(real.document['failed'], indent=1)}")
