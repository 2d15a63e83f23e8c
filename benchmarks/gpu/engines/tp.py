"""Several GPUs: SGLang on `pod` by tensor and by data parallelism, against the stock backend.

A Llama with random weights, mixed chunks, CUDA graphs on. Both engines stand side by side on the
same GPUs and answer the same load in turns, everything sent at once. Stages, each saved when it is
known:

  tp    --ranks tensor-parallel ranks: output tokens/s; greedy answers and their log-probabilities
        against the stock engine's, with controls of other batches; who traces; then a table is
        handed to all ranks while they serve, and the answers are compared again
  dp    as many whole replicas: output tokens/s, and that each of them traces

NVLink multicast stays off, and all-reduce is NCCL's unless --all-reduce custom.
"""

from __future__ import annotations

import argparse
import functools
import tempfile
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu.common.counts import count
from benchmarks.gpu.common.output import add_output
from benchmarks.gpu.engines.job import make_model, prebuild
from benchmarks.gpu.engines.part import Part
from benchmarks.gpu.engines.places import PLACES, REFUSED, add_compared, add_stages
from benchmarks.gpu.engines.sglang import add_load, add_passes
from benchmarks.gpu.engines.tp_stages import data_parallel, tensor_parallel

_WORK = {"tp": tensor_parallel, "dp": data_parallel}
STAGES = tuple(_WORK)
_LOAD = ("ranks", "layers", "heads", "running", "prompts", "longest", "new", "passes", "device")


# Passes of some seconds: four of one second each left a ratio of rates between 0.84 and 1.08.
_LONGER = {"running": 64, "prompts": 48, "new": 512, "passes": 6}


class Parallel(Part):
    """The document under way, and what its stages share."""

    def __init__(self, options: argparse.Namespace, folder: Path) -> None:
        load = {name: getattr(options, name) for name in (*_LOAD, "all_reduce")}
        super().__init__(options, folder, "tp", load)
        self.document["compared_with"] = f"{options.stock}, mixed"

    def require_time(self) -> None:
        """RuntimeError where too little is left for a stage."""
        if self.left() < self.options.least:
            raise RuntimeError(f"not run: {self.left():.0f} s are left")

    def add(self, stage: str, **news: Any) -> None:
        """File what has become known in a stage."""
        self.save(**{stage: self.document.get(stage, {}) | news})


def main(arguments: list[str] | None = None) -> None:
    """Measure, print and save tp.json; ends with an error when a stage failed."""
    options = _parse(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        part = Parallel(options, Path(name))
        make_model(part.folder / "model", options)
        part.say("the model is there")
        for ranks in {options.ranks if "tp" in options.stages else 1, 1}:
            prebuild(options, ranks)
        part.say("variants are built")
        for stage in options.stages:
            part.stage(stage, functools.partial(_WORK[stage], part))
    part.end(*options.stages)


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="tp", description=(__doc__ or "").split("\n")[0])
    add_load(parser)
    add_passes(parser)
    parser.set_defaults(interval=0.0, **_LONGER)
    parser.add_argument("--ranks", type=count(), default=2, help="GPUs of each stage")
    add_compared(parser, questions=24, each=160.0, seconds=240.0, least=45.0)
    add_stages(parser, STAGES)
    parser.add_argument("--all-reduce", choices=("nccl", "custom"), default="nccl")
    add_output(parser, refused=REFUSED)
    options = parser.parse_args(arguments)
    options.stock = options.stock or PLACES[options.device].stock
    if options.heads % (4 * options.ranks):
        parser.error(
            f"--heads must be a multiple of {4 * options.ranks}, got {options.heads}: each of "
            f"{options.ranks} ranks has whole groups of 4 query heads"
        )
    if PLACES[options.device].accelerates and torch.cuda.device_count() < options.ranks:
        parser.error(f"--ranks {options.ranks}: this machine has {torch.cuda.device_count()} GPUs")
    return options
