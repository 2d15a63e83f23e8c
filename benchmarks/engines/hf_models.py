"""Small random transformers models of every served kind, and their greedy tokens.

The same seed gives the same weights for every attention implementation, wide enough for argmax
not to tie.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import transformers

from pod_integrate.demo import answers

WINDOW, VOCAB, PAGE = 24, 128, 16
_BASE: dict[str, Any] = {
    "vocab_size": VOCAB,
    "hidden_size": 128,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 1024,
    "bos_token_id": 1,
    "eos_token_id": None,
    "pad_token_id": 0,
}
_LAYERS = ["sliding_attention", "full_attention"]
# Gemma's scaled embeddings as its head too: every next token would be the last one again.
_UNTIED: dict[str, Any] = {**_BASE, "tie_word_embeddings": False}
# Stock SDPA leaves out logit caps and sinks, so these are compared with the eager function.
EAGER = ("gemma2", "gpt_oss")
MODELS: dict[str, Callable[[], Any]] = {
    "llama": lambda: transformers.LlamaConfig(**_BASE),
    "qwen2": lambda: transformers.Qwen2Config(**_BASE),
    "qwen3": lambda: transformers.Qwen3Config(**_BASE, head_dim=32),
    "mistral": lambda: transformers.MistralConfig(**_BASE, sliding_window=WINDOW),
    "phi3": lambda: transformers.Phi3Config(**_BASE),
    "gemma2": lambda: transformers.Gemma2Config(
        **_UNTIED,
        head_dim=32,
        sliding_window=WINDOW,
        query_pre_attn_scalar=32,
        attn_logit_softcapping=5.0,
        layer_types=_LAYERS,
    ),
    "gemma3": lambda: transformers.Gemma3TextConfig(
        **_UNTIED,
        head_dim=32,
        sliding_window=WINDOW,
        query_pre_attn_scalar=32,
        layer_types=_LAYERS,
    ),
    "gpt_oss": lambda: transformers.GptOssConfig(
        **_BASE,
        head_dim=32,
        sliding_window=WINDOW,
        num_local_experts=2,
        num_experts_per_tok=1,
        layer_types=_LAYERS,
    ),
}


def reference_of(name: str) -> str:
    """Stock attention that computes what the model asks for."""
    return "eager" if name in EAGER else "sdpa"


def build(name: str, implementation: str, *, dtype: torch.dtype = torch.float32) -> Any:
    """One of MODELS with random weights, in eval mode."""
    return from_config(MODELS[name](), implementation, dtype=dtype)


def from_config(config: Any, implementation: str, *, dtype: torch.dtype = torch.float32) -> Any:
    """A causal language model of `config` with random weights, in eval mode."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = transformers.AutoModelForCausalLM.from_config(
            config, attn_implementation=implementation, dtype=dtype
        ).eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim >= 2:
                spread = 1.6 / weight.shape[-1] ** 0.5
                weight.copy_(torch.randn(weight.shape, generator=generator) * spread)
            elif "sinks" in name:
                weight.copy_(torch.randn(weight.shape, generator=generator))
    return model


def random_prompts(lengths: Sequence[int], *, seed: int = 3) -> list[list[int]]:
    """Prompts of these lengths."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(3, VOCAB, (n,), generator=generator).tolist() for n in lengths]


def padded(
    prompts: Sequence[Sequence[int]], device: torch.device | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """(input_ids, attention_mask) with the padding on the left."""
    width = max(map(len, prompts))
    ids = torch.tensor([[0] * (width - len(p)) + list(p) for p in prompts], device=device)
    mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts], device=device)
    return ids, mask


def greedy(model: Any, prompts: Sequence[Sequence[int]], tokens: int, **extra: Any) -> Any:
    """New tokens of generate() on a left-padded batch, a list for each prompt."""
    ids, mask = padded(prompts)
    out = model.generate(
        ids,
        attention_mask=mask,
        max_new_tokens=tokens,
        min_new_tokens=tokens,
        do_sample=False,
        pad_token_id=0,
        **extra,
    )
    return out[:, ids.shape[1] :].tolist()


def generation(tokens: int, **extra: Any) -> Any:
    """GenerationConfig of greedy continuous batching without an end token."""
    asked = {"do_sample": False, "eos_token_id": -1, "pad_token_id": 0, **extra}
    return transformers.GenerationConfig(max_new_tokens=tokens, **asked)


def batching(*, page: int = PAGE, **extra: Any) -> Any:
    """ContinuousBatchingConfig with small pages."""
    return answers.batching(page, **{"num_blocks": 96, "max_batch_tokens": 64, **extra})


def batched(model: Any, prompts: Sequence[Sequence[int]], tokens: int, **extra: Any) -> Any:
    """New tokens of generate_batch(), a list for each prompt.

    Raises RuntimeError with upstream's message when a request failed.
    """
    outputs = model.generate_batch(
        inputs=[list(p) for p in prompts],
        generation_config=generation(tokens),
        continuous_batching_config=batching(**extra),
    )
    return answers.finished(outputs, len(prompts))
