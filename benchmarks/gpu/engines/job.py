"""What SGLang is measured with: the runs, a model of random weights, requests, engine arguments."""

from __future__ import annotations

import argparse
import random
from pathlib import Path
from typing import Any, NamedTuple

import torch
import transformers

from benchmarks.gpu.engines.figures import PROMPTS, RUNNING
from pod_integrate.builds import native, nvcc
from pod_integrate.devices.cuda import limits
from pod_integrate.devices.cuda.variants import Variant
from pod_integrate.devices.registry import device_of, target_of
from pod_integrate.terms.keys import Geometry

_HEAD_DIM = 128
_CHUNK = 2048
_VOCAB = 32000


class Run(NamedTuple):
    """One engine: attention backends of prefill and decode, and whether chunks are mixed."""

    prefill: str
    decode: str
    mixed: bool

    @property
    def name(self) -> str:
        """As printed and filed."""
        backend = self.prefill if self.prefill == self.decode else f"{self.prefill}+{self.decode}"
        return f"{backend}, mixed" if self.mixed else backend


def runs(stock: str, control: str) -> list[Run]:
    """By worth."""
    both = [Run(backend, backend, mixed) for mixed in (True, False) for backend in ("pod", stock)]
    return [*both, Run("pod", stock, True), Run(control, control, True)]


def make_model(folder: Path, options: argparse.Namespace) -> None:
    """Write a Llama with random weights, the same every time."""
    cpu = options.device == "cpu"
    heads, dim = options.heads, 32 if cpu else _HEAD_DIM
    config = transformers.LlamaConfig(
        vocab_size=256 if cpu else _VOCAB,
        hidden_size=heads * dim,
        intermediate_size=2 * heads * dim,
        num_hidden_layers=options.layers,
        num_attention_heads=heads,
        num_key_value_heads=heads // 4,
        head_dim=dim,
        max_position_embeddings=1 << 14,
        tie_word_embeddings=False,
    )
    torch.manual_seed(0)
    with torch.device(options.device):
        model = transformers.AutoModelForCausalLM.from_config(
            config, dtype=torch.float32 if cpu else torch.bfloat16
        )
    model.save_pretrained(folder)
    del model
    if not cpu:
        torch.cuda.empty_cache()


def make_requests(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Running requests at once, then long prompts one after the other beside them."""
    draw = random.Random(0)
    vocab = 256 if options.device == "cpu" else _VOCAB

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


def engine_arguments(run: Run, model: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Of sglang.Engine; the same for all runs but for what a Run says."""
    found: dict[str, Any] = {
        "model_path": str(model),
        "skip_tokenizer_init": True,
        "device": options.device,
        "prefill_attention_backend": run.prefill,
        "decode_attention_backend": run.decode,
        "enable_mixed_chunk": run.mixed,
        "chunked_prefill_size": _CHUNK if options.device == "cuda" else 64,
        "max_total_tokens": 1 << (18 if options.device == "cuda" else 14),
        "disable_radix_cache": True,
        "sampling_backend": "pytorch",
        "grammar_backend": "none",
        "random_seed": 0,
        "log_level": "info",
        "mem_fraction_static": 0.5,
    }
    if options.device == "cpu":
        return found | {"dtype": "float32"}
    sizes = [1, 2, 4, 8, 16, 24, 32, 48, 64]
    return found | {"dtype": "bfloat16", "cuda_graph_bs_decode": sizes} | _prefill_graphs(options)


def _prefill_graphs(options: argparse.Namespace) -> dict[str, Any]:
    if options.prefill_graphs == "disabled":
        return {"cuda_graph_backend_prefill": "disabled"}
    sizes = [_CHUNK // 8 * i for i in (1, 2, 4, 6, 8)]
    return {"cuda_graph_backend_prefill": "breakable", "cuda_graph_bs_prefill": sizes}


def prebuild(options: argparse.Namespace) -> None:
    """Compile what `pod` will use, once for all runs."""
    if options.device == "cpu":
        native.build("cpu")
        return
    native.build("host")
    device = device_of(torch.device("cuda")).key
    geometry = Geometry(
        num_q_heads=options.heads,
        num_kv_heads=options.heads // 4,
        head_dim=_HEAD_DIM,
        dtype="bf16",
        kv_dtype="bf16",
        page_size=1,
    )
    variant = Variant.of(target_of(device).default_config(geometry), geometry)
    nvcc.build(variant, limits.architecture(device.capability))
