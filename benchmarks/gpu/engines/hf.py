"""transformers' generate_batch: `pod` against stock attentions, time, tokens and logits.

A random Llama of real head counts. Rounding differs between attentions, and a random model has many
near ties, so answers come with controls: stock attentions against each other, and logits of each
attention on the same tokens against fp32 (hf_logits).
"""

from __future__ import annotations

import argparse
import functools
import gc
import random
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
import transformers

from benchmarks.gpu.common import machine
from benchmarks.gpu.common.output import Output, add_output, rounded
from benchmarks.gpu.engines import figures, hf_logits
from benchmarks.gpu.engines.hf_logits import Tokens
from benchmarks.gpu.engines.places import PLACES, REFUSED
from pod_integrate import hf
from pod_integrate.demo import answers
from pod_integrate.demo.llama import llama_config
from pod_integrate.devices.registry import device_named
from pod_integrate.terms.geometry import TORCH_DTYPES
from pod_integrate.terms.keys import Dtype

_VOCAB = 1024
_HEAD_DIM = 128
_PAGE, _CHUNK = 64, 256
_DTYPES: tuple[Dtype, ...] = ("bf16", "fp32")
# Answers are compared with the first one's. The last ones are controls.
_RUNS = {
    "sdpa": "sdpa",
    "pod": "pod",
    "sdpa, prompts reversed": "sdpa",
    "paged|eager": "paged|eager",
}
Step = Callable[[], dict[str, Any]]
_FIRST = next(iter(_RUNS))
_FORCED = ("sdpa", "pod", "eager")


def make_model(implementation: str, options: argparse.Namespace, dtype: Dtype) -> Any:
    """Llama with heads of 128, four query heads to a KV head, the same random weights every time.

    Weights are rounded to options.dtype, whatever `dtype` the model then computes in.
    """
    config = llama_config(
        layers=options.layers,
        q_heads=options.heads,
        kv_heads=options.heads // 4,
        head_dim=_HEAD_DIM,
        vocab=_VOCAB,
        max_context=1 << 15,
        bos_token_id=1,
        eos_token_id=None,
        pad_token_id=0,
    )
    # Models of before are in cycles, and generate_batch sizes its cache by what is free.
    gc.collect()
    torch.cuda.empty_cache()
    torch.manual_seed(0)
    with torch.device(options.device):
        model = transformers.AutoModelForCausalLM.from_config(
            config, attn_implementation=implementation, dtype=TORCH_DTYPES[options.dtype]
        )
    return model.to(TORCH_DTYPES[dtype]).eval()


def make_prompts(count: int, longest: int) -> Tokens:
    """Token ids of ragged prompts."""
    draw = random.Random(0)
    lengths = [draw.randrange(longest // 16, longest) for _ in range(count)]
    return [[draw.randrange(2, _VOCAB) for _ in range(length)] for length in lengths]


def generate(model: Any, prompts: Tokens, new: int) -> tuple[Tokens, float]:
    """Greedy answers in the order of the prompts, and seconds."""
    options = transformers.GenerationConfig(max_new_tokens=new, do_sample=False, eos_token_id=None)
    batching = None
    if not PLACES[model.device.type].fills_memory:
        blocks = answers.blocks_of(prompts, new, _PAGE)
        batching = answers.batching(_PAGE, num_blocks=blocks, max_batch_tokens=_CHUNK)
    began = time.perf_counter()
    with torch.no_grad():
        outputs = model.generate_batch(
            inputs=prompts, generation_config=options, continuous_batching_config=batching
        )
    seconds = time.perf_counter() - began
    return answers.finished(outputs, len(prompts)), seconds


def compare(want: Tokens, got: Tokens) -> dict[str, float]:
    """Share of answers that are equal, and of tokens before the first difference."""
    found = figures.compare(want, got)
    return {name: found[name] for name in ("answers_equal", "tokens_equal")}


class HfRuns:
    """The document under way."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._options, self._until = options, time.monotonic() + options.seconds
        self._output = Output(options.out, "hf")
        self._prompts = make_prompts(options.requests, options.longest)
        self._answers: dict[str, Tokens] = {}
        self._truth: torch.Tensor | None = None
        names = ("requests", "longest", "new", "layers", "heads", "dtype", "device")
        self.document: dict[str, Any] = {
            "machine": machine.report(),
            "transformers": transformers.__version__,
            "load": {name: getattr(options, name) for name in names},
            "runs": {},
            "logits": {},
            "differences": {},
            "failed": {},
        }

    def step(self, name: str, work: Step) -> None:
        """Do and save one thing; what fails, or has no time left, is said in `failed`."""
        began = time.monotonic()
        if began > self._until:
            self.document["failed"][name] = f"not run: {self._options.seconds} s are over"
        else:
            try:
                found = work()
                print(f"{name}: {rounded(found)}", f"{time.monotonic() - began:.1f} s", flush=True)
            except Exception as error:
                # The other attentions' results stand without this one's.
                self.document["failed"][name] = f"{type(error).__name__}: {error}"[:800]
        if name in self.document["failed"]:
            print(f"{name}: {self.document['failed'][name]}", flush=True)
        self._explain()
        self._output.save(self.document)

    def run(self, name: str) -> dict[str, Any]:
        """generate_batch of all prompts, after a few to warm up."""
        turned = -1 if name.endswith("reversed") else 1
        prompts, new = self._prompts[::turned], self._options.new
        model = make_model(_RUNS[name], self._options, self._options.dtype)
        generate(model, prompts[:4], 4)
        answers, seconds = generate(model, prompts, new)
        self._answers[name] = answers[::turned]
        run = {"seconds": seconds, "tokens_per_second": len(prompts) * new / seconds}
        run |= compare(self._answers[_FIRST], self._answers[name])
        self.document["runs"][name] = run
        return run

    def logits(self) -> dict[str, Any]:
        """Errors of each attention on the first run's answers."""
        truth = self._truth = self._forced("eager", "fp32")
        found: dict[str, Any] = self.document["logits"]
        found["fp32_margin"] = hf_logits.margins(truth)
        for name in _FORCED:
            found[name] = hf_logits.errors(self._forced(name, self._options.dtype), truth)
        return found

    def _explain(self) -> None:
        """`differences`: what fp32 says of the first tokens that differ from the first run's."""
        logits = self.document["logits"]
        if self._truth is None or not all(name in logits for name in _FORCED):
            return
        noise = max(logits[name]["noise"] for name in _FORCED if name != "pod")
        self.document["differences"] = {
            name: hf_logits.explain(self._answers[_FIRST], answers, self._truth, noise)
            for name, answers in self._answers.items()
            if name != _FIRST
        }

    def _forced(self, implementation: str, dtype: Dtype) -> torch.Tensor:
        model = make_model(implementation, self._options, dtype)
        return hf_logits.forced(model, self._prompts, self._answers[_FIRST])


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="hf", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--requests", type=int, default=48)
    parser.add_argument("--longest", type=int, default=4096, help="prompt, tokens")
    parser.add_argument("--new", type=int, default=64, help="tokens of each answer")
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--heads", type=int, default=16, help="query heads, a multiple of 4")
    parser.add_argument("--dtype", choices=_DTYPES, default="bf16")
    parser.add_argument("--device", choices=PLACES, default="cuda")
    parser.add_argument("--seconds", type=float, default=120.0, help="start nothing after these")
    add_output(parser, refused=REFUSED)
    options = parser.parse_args(arguments)
    if options.heads % 4 or options.heads < 4:
        parser.error(f"--heads is {options.heads}; it has to be a multiple of 4")
    return options


def main(arguments: list[str] | None = None) -> None:
    """Measure, print and save hf.json; ends with an error when a step failed."""
    options = _parse(arguments)
    device_named(options.device)
    measurement = HfRuns(options)
    hf.enable()
    torch.set_float32_matmul_precision("highest")
    runs: dict[str, Step] = {name: functools.partial(measurement.run, name) for name in _RUNS}
    # By worth: logits tell most about the first two, and the last run is the slowest.
    steps = {_FIRST: runs.pop(_FIRST), "pod": runs.pop("pod"), "logits": measurement.logits, **runs}
    for name, work in steps.items():
        measurement.step(name, work)
    for name, found in measurement.document["differences"].items():
        print(f"first differences of {name}: {rounded(found)}")
    if measurement.document["failed"]:
        sys.exit(f"hf: failed are {', '.join(measurement.document['failed'])}")
