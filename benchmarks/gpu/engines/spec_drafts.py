"""Draft models of the part `spec`, made of the model itself: no other draft of it is trained.

What they draft is right as often as layers are left, which is what a comparison of backends needs.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch


def _loaded(folder: Path) -> Any:
    import transformers

    return transformers.LlamaForCausalLM.from_pretrained(folder, dtype="bfloat16")


def move_last_norm(folder: Path) -> None:
    """Rewrite a Llama such that its last norm scales nothing and its head does it instead.

    EAGLE heads share the model's head but have no last norm. Answers stay as they are but for the
    rounding of the head to bf16.
    """
    net = _loaded(folder)
    scale = net.model.norm.weight.data.float()
    head = net.lm_head.weight.data.float() * scale
    net.config.tie_word_embeddings = False
    net.lm_head.weight = torch.nn.Parameter(head.bfloat16())
    net.model.norm.weight.data.fill_(1.0)
    net.save_pretrained(folder)


def write_draft(folder: Path, model: Path, dropped: int) -> None:
    """The model in `model` without its last `dropped` layers."""
    net = _loaded(model)
    _drop(net, dropped)
    net.save_pretrained(folder)


def write_eagle(folder: Path, model: Path, dropped: int) -> None:
    """As `write_draft`, as an EAGLE head of SGLang's: of a model after `move_last_norm`.

    A head's first layer norms nothing, so that norm is the mean over the vocabulary; of the two
    halves that `fc` sees, the token's embedding and the model's hidden state, it takes the first.
    """
    from safetensors.torch import save_file

    net = _loaded(model)
    _drop(net, dropped)
    first = net.model.layers[0]
    mean_square = net.model.embed_tokens.weight.float().pow(2).mean(-1)
    scale = (mean_square + net.config.rms_norm_eps).rsqrt().median()
    by_column = first.input_layernorm.weight.data.float() * scale
    for name in ("q_proj", "k_proj", "v_proj"):
        weight = getattr(first.self_attn, name).weight
        weight.data = (weight.data.float() * by_column).to(weight.dtype)
    size = net.config.hidden_size
    fc = torch.zeros(size, 2 * size, dtype=torch.bfloat16)
    fc[:, :size] = torch.eye(size)
    absent = ("lm_head.weight", "model.norm.weight", "model.layers.0.input_layernorm.weight")
    weights = {name.removeprefix("model."): value for name, value in net.state_dict().items()
               if name not in absent}  # fmt: skip
    weights |= {"fc.weight": fc, "fc.bias": torch.zeros(size, dtype=torch.bfloat16)}
    folder.mkdir()
    save_file({name: value.contiguous() for name, value in weights.items()},
              folder / "model.safetensors", metadata={"format": "pt"})  # fmt: skip
    told = net.config.to_dict() | {"architectures": ["LlamaForCausalLMEagle"]}
    (folder / "config.json").write_text(json.dumps(told))


def _drop(net: Any, dropped: int) -> None:
    net.model.layers = net.model.layers[: len(net.model.layers) - dropped]
    net.config.num_hidden_layers = len(net.model.layers)
    # transformers counts the kinds of layers too, where it has them.
    if getattr(net.config, "layer_types", None):
        net.config.layer_types = net.config.layer_types[: len(net.model.layers)]
