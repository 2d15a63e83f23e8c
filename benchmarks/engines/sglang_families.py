"""Families of language models as plain data: small configs, and what each is oddest for."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

VOCAB, WINDOW = 128, 16
_SHAPE: dict[str, Any] = {
    "vocab_size": VOCAB,
    "hidden_size": 128,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
    "tie_word_embeddings": False,
    "hidden_act": "silu",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Family:
    """One architecture of SGLang at a size that two cores decode in a second.

    kind       model_type of its config
    oddity     what of it attention has to get right
    config     differences from the shape that all share; None takes one of its keys away
    flags      what its servers are started with, ours and stock's
    reference_flags  what the reference needs beyond to answer as published
    reference  who attends it as published on a CPU: transformers where SGLang's torch_native
               leaves something out
    architecture  SGLang's class, where transformers calls its own another name
    remote     transformers has no class of it: SGLang's is filled with random weights
    """

    kind: str
    oddity: str
    config: dict[str, Any] = dataclasses.field(default_factory=dict)
    flags: tuple[str, ...] = ()
    reference_flags: tuple[str, ...] = ()
    reference: Literal["torch_native", "transformers"] = "torch_native"
    architecture: str = ""
    remote: bool = False

    def whole_config(self) -> dict[str, Any]:
        """The config with what all share."""
        both = {**_SHAPE, **self.config}
        return {k: v for k, v in both.items() if v is not None or k not in _SHAPE}


DENSE: dict[str, Family] = {
    "llama": Family(kind="llama", oddity="grouped heads, head dim 32"),
    "llama_mha": Family(
        kind="llama",
        oddity="as many KV as query heads, biases, head dim 64",
        config={"num_key_value_heads": 4, "attention_bias": True, "head_dim": 64},
    ),
    "arcee": Family(kind="arcee", oddity="squared ReLU", config={"hidden_act": "relu2"}),
    "apertus": Family(
        kind="apertus", oddity="q and k normalised, xIELU", config={"hidden_act": "xielu"}
    ),
    "qwen2": Family(kind="qwen2", oddity="biases of q, k and v"),
    "qwen3": Family(
        kind="qwen3", oddity="q and k normalised by head, head dim 128", config={"head_dim": 128}
    ),
    "mistral": Family(
        kind="mistral",
        oddity="a window that SGLang's class leaves out",
        config={"sliding_window": WINDOW},
    ),
    "gemma": Family(
        kind="gemma",
        oddity="one KV head, head dim 256",
        config={"num_key_value_heads": 1, "head_dim": 256, "hidden_act": "gelu_pytorch_tanh"}
        | {"tie_word_embeddings": True},
    ),
    "phi": Family(
        kind="phi",
        oddity="rotary over half of each head, biases",
        config={"num_key_value_heads": 4, "partial_rotary_factor": 0.5, "hidden_act": "gelu_new"}
        | {"intermediate_size": 512},
    ),
    "phi3": Family(
        kind="phi3",
        oddity="fused projections, head dim 96",
        config={"hidden_size": 384, "sliding_window": None},
    ),
    "olmo": Family(kind="olmo", oddity="norms without weights", config={"num_key_value_heads": 4}),
    "olmo2": Family(kind="olmo2", oddity="q and k normalised over all heads"),
    "granite": Family(
        kind="granite",
        oddity="a softmax scale of its own",
        config={"attention_multiplier": 0.05, "residual_multiplier": 0.4}
        | {"embedding_multiplier": 3.0, "logits_scaling": 2.0},
    ),
    "glm4": Family(
        kind="glm4",
        oddity="rotary over half of each head, four norms",
        config={"partial_rotary_factor": 0.5, "head_dim": 32},
    ),
    "stablelm": Family(
        kind="stablelm",
        oddity="rotary over a quarter of each head",
        config={"partial_rotary_factor": 0.25, "hidden_size": 256},
    ),
    "starcoder2": Family(
        kind="starcoder2",
        oddity="biases everywhere",
        config={"sliding_window": None, "hidden_act": "gelu_pytorch_tanh"},
    ),
    "gpt2": Family(
        kind="gpt2",
        oddity="learned positions, as many KV as query heads",
        config={"n_embd": 128, "n_head": 4, "n_layer": 2, "n_positions": 256}
        | {"tie_word_embeddings": True, "num_key_value_heads": None, "hidden_act": None},
    ),
    "gpt_bigcode": Family(
        kind="gpt_bigcode",
        oddity="one KV head, learned positions",
        config={"n_embd": 128, "n_head": 4, "n_layer": 2, "n_positions": 256}
        | {"tie_word_embeddings": True, "num_key_value_heads": None, "hidden_act": None},
    ),
    "opt": Family(
        kind="opt",
        oddity="learned positions with an offset",
        config={"ffn_dim": 96, "word_embed_proj_dim": 128, "num_key_value_heads": None}
        | {"tie_word_embeddings": True, "hidden_act": None},
    ),
    "persimmon": Family(
        kind="persimmon",
        oddity="q and k normalised by LayerNorm, rotary over half",
        config={"num_key_value_heads": None, "hidden_act": "relu2"},
    ),
    "cohere": Family(
        kind="cohere",
        oddity="interleaved rotary, attention beside the MLP",
        config={"tie_word_embeddings": True, "logit_scale": 1.0},
    ),
    "ernie4_5": Family(kind="ernie4_5", oddity="interleaved rotary", config={"head_dim": 48}),
    "smollm3": Family(
        kind="smollm3",
        oddity="no rotary in every fourth layer, by SGLang's transformers wrapper",
        config={"num_hidden_layers": 4},
    ),
    "seed_oss": Family(
        kind="seed_oss",
        oddity="head dim 112, by SGLang's transformers wrapper",
        config={"head_dim": 112},
    ),
}
