"""What SGLang is measured with: the runs, a model of random weights, requests, engine arguments."""

from __future__ import annotations

import argparse
import random
from pathlib import Path
from typing import Any, NamedTuple

import torch
import transformers

from benchmarks.gpu.engines.figures import PROMPTS, RUNNING
from benchmarks.gpu.engines.places import PLACES, Place
from pod_integrate.demo.llama import llama_config
from pod_integrate.devices.registry import device_named
from pod_integrate.terms.geometry import TORCH_DTYPES
from pod_integrate.terms.keys import Geometry


class Run(NamedTuple):
    """One engine: attention backends of prefill and decode, and whether chunks are mixed.

    cache  SGLang's name of the KV cache's dtype; auto: the model's
    """

    prefill: str
    decode: str
    mixed: bool
    cache: str = "auto"

    @property
    def name(self) -> str:
        """As printed and filed."""
        backend = backends(self.prefill, self.decode)
        if self.cache != "auto":
            backend = f"{backend} {self.cache}"
        return f"{backend}, mixed" if self.mixed else backend


def backends(prefill: str, decode: str) -> str:
    """Attention backends of an engine's steps in one word."""
    return prefill if prefill == decode else f"{prefill}+{decode}"


def runs(stock: str, control: str) -> list[Run]:
    """By worth."""
    both = [Run(backend, backend, mixed) for mixed in (True, False) for backend in ("pod", stock)]
    return [*both, Run("pod", stock, True), Run(control, control, True)]


def make_model(folder: Path, options: argparse.Namespace) -> None:
    """Write a Llama with random weights, the same every time.

    Raises KernelUnavailableError where the device is missing, of which transformers would say that
    it could not import a model.
    """
    device_named(options.device)
    place = PLACES[options.device]
    config = llama_config(
        layers=options.layers,
        q_heads=options.heads,
        kv_heads=options.heads // 4,
        head_dim=place.head_dim,
        vocab=place.vocab,
        max_context=1 << 14,
        tie_word_embeddings=False,
    )
    torch.manual_seed(0)
    with torch.device(options.device):
        model = transformers.AutoModelForCausalLM.from_config(
            config, dtype=TORCH_DTYPES[place.dtype]
        )
    model.save_pretrained(folder)
    del model
    torch.cuda.empty_cache()


def make_requests(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Running requests at once, then long prompts one after the other beside them."""
    draw = random.Random(0)
    vocab = PLACES[options.device].vocab

    def request(kind: str, low: int, high: int, new: int, at: float) -> dict[str, Any]:
        ids = [draw.randrange(3, vocab) for _ in range(draw.randrange(low, high))]
        return {"kind": kind, "ids": ids, "new": new, "at": at}

    longest = options.longest
    running = [
        request(RUNNING, longest // 16, longest // 4, options.new, 0.0)
        for _ in range(options.running)
    ]
    return running + [
        request(PROMPTS, longest // 4, longest, options.new // 4, options.interval * (i + 1))
        for i in range(options.prompts)
    ]


def few(requests: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Some four of the requests, a long prompt among them."""
    return requests[:: max(1, len(requests) // 4)]


def engine_arguments(run: Run, model: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Of sglang.Engine; the same for all runs but for what a Run says."""
    place = PLACES[options.device]
    found: dict[str, Any] = {
        "model_path": str(model),
        "skip_tokenizer_init": True,
        "device": options.device,
        "prefill_attention_backend": run.prefill,
        "decode_attention_backend": run.decode,
        "enable_mixed_chunk": run.mixed,
        "kv_cache_dtype": run.cache,
        "disable_radix_cache": True,
        "sampling_backend": "pytorch",
        "grammar_backend": "none",
        "random_seed": 0,
        "log_level": "info",
        "mem_fraction_static": 0.5,
    }
    return found | place.engine | _prefill_graphs(place, options.prefill_graphs)


def _prefill_graphs(place: Place, kind: str) -> dict[str, Any]:
    if not place.prefill_graphs:
        return {}
    found: dict[str, Any] = {"cuda_graph_backend_prefill": kind}
    if kind != "disabled":
        found["cuda_graph_bs_prefill"] = list(place.prefill_graphs)
    return found


def prebuild(options: argparse.Namespace, ranks: int = 1) -> None:
    """Compile what `pod` will use, once for all runs of so many tensor-parallel ranks."""
    place, device = PLACES[options.device], device_named(options.device)
    heads = options.heads // ranks, options.heads // 4 // ranks, place.head_dim
    geometry = Geometry.uniform(heads, place.dtype, page_size=1)
    device.load()
    device.build(geometry, device.default_config(geometry))
