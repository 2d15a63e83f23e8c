"""Models with random weights whose layers differ in what they see: windows, logit caps, experts."""

from __future__ import annotations

import argparse
import itertools
import json
from pathlib import Path
from typing import Any

from benchmarks.engines.sglang_families_odd import FAMILIES
from benchmarks.gpu.engines.job import make_model
from benchmarks.gpu.engines.places import PLACES, Place
from pod_integrate.terms.geometry import TORCH_DTYPES

LLAMA, ADAPTER = "llama", "adapter"
_RANK = 8
# Far shorter than the prompts, longer than a page.
_WINDOWS = {True: 512, False: 16}
_CONTEXT = 1 << 14


def make(kind: str, folder: Path, options: argparse.Namespace) -> Path:
    """The folder of a model of this kind, written at first: LLAMA, or one of FAMILIES."""
    if folder.exists():
        return folder
    if kind == LLAMA:
        make_model(folder, options)
        return folder
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from benchmarks.engines.sglang_child import draw

    place, config = PLACES[options.device], config_of(kind, options)
    with torch.device(options.device):
        model = AutoModelForCausalLM.from_config(
            AutoConfig.for_model(FAMILIES[kind].kind, **config), dtype=TORCH_DTYPES[place.dtype]
        )
    draw(model)
    # A folder that is there is a whole model.
    half = folder.with_name(f"{folder.name}.half")
    model.save_pretrained(half)
    half.rename(folder)
    del model
    if place.accelerates:
        torch.cuda.empty_cache()
    return folder


def make_adapter(folder: Path, options: argparse.Namespace) -> Path:
    """The folder of a LoRA adapter of the Llama's attention, in PEFT's form, written at first."""
    if folder.exists():
        return folder
    import torch
    from safetensors.torch import save_file

    place = PLACES[options.device]
    hidden, narrow = (heads * place.head_dim for heads in (options.heads, options.heads // 4))
    wide = {"q_proj": hidden, "k_proj": narrow, "v_proj": narrow, "o_proj": hidden}
    generator, weights = torch.Generator().manual_seed(0), {}
    for layer, (name, out) in itertools.product(range(options.layers), wide.items()):
        for part, shape in (("A", (_RANK, hidden)), ("B", (out, _RANK))):
            drawn = torch.randn(shape, generator=generator) * shape[-1] ** -0.5
            key = f"base_model.model.model.layers.{layer}.self_attn.{name}.lora_{part}.weight"
            weights[key] = drawn.to(TORCH_DTYPES[place.dtype])
    half = folder.with_name(f"{folder.name}.half")
    half.mkdir(parents=True)
    save_file(weights, half / "adapter_model.safetensors")
    config = {
        "peft_type": "LORA", "task_type": "CAUSAL_LM", "r": _RANK, "lora_alpha": _RANK,
        "lora_dropout": 0.0, "bias": "none", "target_modules": list(wide),
        "base_model_name_or_path": LLAMA,
    }  # fmt: skip
    (half / "adapter_config.json").write_text(json.dumps(config))
    half.rename(folder)
    return folder


def config_of(kind: str, options: argparse.Namespace) -> dict[str, Any]:
    """The family's config with the heads, layers and vocabulary that are asked for."""
    place: Place = PLACES[options.device]
    config = FAMILIES[kind].whole_config()
    layers = -(-options.layers // 2) * 2
    if "sliding_window" in config:
        config["sliding_window"] = _WINDOWS[place.accelerates]
        config["layer_types"] = ["sliding_attention", "full_attention"] * (layers // 2)
    return config | {
        "vocab_size": place.vocab,
        "hidden_size": 32 * options.heads,
        "intermediate_size": 64 * options.heads,
        "num_hidden_layers": layers,
        "num_attention_heads": options.heads,
        "num_key_value_heads": options.heads // 4,
        "head_dim": 256 if kind == "gemma2" else place.head_dim,
        "max_position_embeddings": _CONTEXT,
    }
