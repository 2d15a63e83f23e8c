"""SGLang with what people turn on: `pod` and a stock backend under the same flags.

A Llama with random weights, or a model with windows, prompts beside running requests, CUDA graphs
on. For each feature both engines stand side by side and answer the same questions, then once more
in other batches. Where their answers part, the tokens should be near ties, as they are between two
passes of the stock engine; what deterministic inference says twice should be the same. A feature
that needs more GPUs than there are is not run, and filed so.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

import torch

from benchmarks.gpu.common.output import add_output
from benchmarks.gpu.engines.feature_models import ADAPTER, LLAMA, make, make_adapter
from benchmarks.gpu.engines.job import Run, make_requests, prebuild
from benchmarks.gpu.engines.pair import POD, STOCK, communication, compared, pair
from benchmarks.gpu.engines.part import Part
from benchmarks.gpu.engines.places import PLACES, REFUSED, add_compared, add_stages
from benchmarks.gpu.engines.sglang import add_load
from benchmarks.gpu.engines.turns import Standing


class Feature(NamedTuple):
    """What an engine is started with.

    arguments  of sglang.Engine, beside those of every engine here
    mixed      whether chunks and running requests are attended together
    gpus       that an engine of it spreads over
    model      as of feature_models
    decode     backend of decode steps, of both engines
    adapter    whether half of the requests are answered by a LoRA adapter
    """

    arguments: Mapping[str, Any] = MappingProxyType({})
    mixed: bool = True
    gpus: int = 1
    model: str = LLAMA
    decode: Literal["own", "stock"] = "own"
    adapter: bool = False


_WHOLE = {"chunked_prefill_size": -1}
_RADIX = {"disable_radix_cache": False}
FEATURES: dict[str, Feature] = {
    "radix": Feature(_RADIX),
    "page-16": Feature({"page_size": 16}),
    "unmixed": Feature(mixed=False),
    "whole-prompts": Feature(_WHOLE, mixed=False),
    "no-overlap": Feature({"disable_overlap_schedule": True}),
    "deterministic": Feature({**_WHOLE, "enable_deterministic_inference": True}, mixed=False),
    # Less than what is sent, so that what was sent first is read back from the host's memory, of
    # which a gigabyte takes seconds to lock.
    "hierarchical-cache": Feature(
        {**_RADIX, "enable_hierarchical_cache": True, "max_total_tokens": 1 << 14}
    ),
    # Less than all requests take, so that some wait and some are sent back.
    "small-pool": Feature({"max_total_tokens": 1 << 14}),
    "stock-decode": Feature(decode="stock"),
    "lora": Feature({"max_loras_per_batch": 2}, adapter=True),
    "window-and-cap": Feature(model="gemma2"),
    "window-pool": Feature(_RADIX, model="mellum"),
    "window-plain-pool": Feature({"disable_hybrid_swa_memory": True}, model="mellum"),
    "pipeline": Feature({"pp_size": 2}, mixed=False, gpus=2),
    "replicas": Feature({"dp_size": 2}, gpus=2),
    # SGLang's Llama splits its heads by rank all the same, which fails with any backend.
    "data-parallel-attention": Feature(
        {"dp_size": 2, "tp_size": 2, "enable_dp_attention": True}, model="qwen3_moe", gpus=2
    ),
}
_CACHED = re.compile(r"#cached-token: (\d+)")
_LOAD = ("layers", "heads", "running", "prompts", "longest", "new", "questions", "device")
# Answers to some seconds' load; engines of few layers start sooner.
_SMALL = {"layers": 4, "running": 24, "prompts": 8, "longest": 4096, "new": 64}


class Features(Part):
    """The document under way, and what its stages share."""

    def __init__(self, options: argparse.Namespace, folder: Path) -> None:
        super().__init__(
            options, folder, "features", {name: getattr(options, name) for name in _LOAD}
        )
        self.document |= {"compared_with": options.stock, "features": {}, "not_run": {}}

    def run(self, name: str) -> None:
        """Start both engines of a feature and file how far their answers are apart."""
        feature = FEATURES[name]
        if why := self._why_not(feature):
            self.document["not_run"][name] = why
            self.say(f"{name}: not run, {why}")
            return
        with self._engines(name, feature) as workers:
            _, found = compared(workers, self.left)
            cached = {side: cached_tokens(worker.log) for side, worker in workers.items()}
        told = {
            "utc": self.document["machine"]["utc"],
            "load": self.document["load"],
            "arguments": dict(feature.arguments),
            **{key: getattr(feature, key) for key in ("mixed", "model", "decode", "adapter")},
            "cached_tokens": cached,
            **found,
        }
        self.document["features"][name] = told
        self.say(f"{name}: {found}")

    def _arguments(self, feature: Feature) -> dict[str, Any]:
        found = dict(feature.arguments)
        if feature.adapter:
            path = make_adapter(self.folder / ADAPTER, self.options)
            found |= {"enable_lora": True, "lora_paths": {ADAPTER: str(path)}}
        return found

    def _requests(self, feature: Feature) -> list[dict[str, Any]]:
        """Every other pair is the adapter's, where there is one: so are half of the questions."""
        found = make_requests(self.options)
        for number, request in enumerate(found if feature.adapter else ()):
            if number // 2 % 2 == 0:
                request["adapter"] = ADAPTER
        return found

    def _why_not(self, feature: Feature) -> str:
        there = torch.cuda.device_count() if PLACES[self.options.device].accelerates else 0
        if feature.gpus > max(1, there):
            return f"it takes {feature.gpus} GPUs, here are {there}"
        if self.left() < self.options.least:
            return f"{self.left():.0f} s are left"
        return ""

    def _engines(
        self, name: str, feature: Feature
    ) -> contextlib.AbstractContextManager[dict[str, Standing]]:
        options = self.options
        folder = make(feature.model, self.folder / feature.model, options)
        runs = {
            side: Run(
                backend, options.stock if feature.decode == "stock" else backend, feature.mixed
            )
            for side, backend in {POD: "pod", STOCK: options.stock}.items()
        }
        logs = f"features_logs/{name}"
        return pair(
            options, folder, self._requests(feature), runs,
            communication(options.device, "nccl") | self._arguments(feature),
            dict.fromkeys(runs, {}), folders=(self.folder / logs, options.out / logs),
            limit=self.left(),
        )  # fmt: skip


def cached_tokens(log: Path) -> int:
    """Tokens that an engine took from its prefix cache, by the log of its batches."""
    return sum(map(int, _CACHED.findall(log.read_text(errors="replace"))))


def main(arguments: list[str] | None = None) -> None:
    """Measure, print and save features.json; ends with an error when a feature failed."""
    options = _parse(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        part = Features(options, Path(name))
        prebuild(options)
        part.say("variants are there")
        for stage in options.stages:
            part.stage(stage, functools.partial(part.run, stage))
    part.end("not_run")


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="features", description=(__doc__ or "").split("\n")[0])
    add_load(parser)
    parser.set_defaults(interval=0.0, **_SMALL)
    add_stages(parser, tuple(FEATURES))
    # A first start takes two minutes where all is compiled.
    add_compared(parser, questions=16, each=240.0, seconds=900.0, least=40.0)
    add_output(parser, refused=REFUSED)
    options = parser.parse_args(arguments)
    options.stock = options.stock or PLACES[options.device].stock
    return options


if __name__ == "__main__":
    main()
