"""A small random Llama in the normal HuggingFace folder format, so that real loading code runs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch

from pod_integrate.terms.geometry import require_heads

_SPECIAL = ("<|begin|>", "<|end|>", "<|user|>", "<|assistant|>")
_CHAT_TEMPLATE = (
    "{{ '<|begin|>' }}{% for message in messages %}"
    "{{ '<|user|>' if message.role != 'assistant' else '<|assistant|>' }}{{ message.content }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


def make_demo_model(
    path: Path,
    *,
    layers: int = 8,
    q_heads: int = 8,
    kv_heads: int = 4,
    head_dim: int = 64,
    max_context: int = 16384,
    seed: int = 0,
) -> Path:
    """Write a random fp32 Llama and a byte-level tokenizer (256 bytes + 4 specials) to `path`.

    Weights are drawn wider than HuggingFace's default so that next-token logits are well apart:
    greedy decoding is then stable under rounding. The folder appears whole or not at all; an
    existing one made with the same arguments is kept.

    Raises ShapeError when no kernel takes these heads, and FileExistsError when `path` holds
    something else.
    """
    require_heads(q_heads, kv_heads, head_dim)
    wanted = {
        "layers": layers,
        "q_heads": q_heads,
        "kv_heads": kv_heads,
        "head_dim": head_dim,
        "max_context": max_context,
        "seed": seed,
    }
    stamp = path / "pod_demo_model.json"
    if stamp.is_file() and json.loads(stamp.read_text()) == wanted:
        return path
    if path.exists() and any(path.iterdir()):
        raise FileExistsError(f"{path} is not empty and not this demo model; choose another folder")
    partial = path.with_name(path.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    _write_tokenizer(partial)
    _write_weights(partial, layers, q_heads, kv_heads, head_dim, max_context, seed)
    (partial / stamp.name).write_text(json.dumps(wanted))
    if path.exists():
        path.rmdir()
    partial.rename(path)
    return path


def _write_tokenizer(path: Path) -> None:
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {symbol: index for index, symbol in enumerate(alphabet)}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(text, special=True) for text in _SPECIAL])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=_SPECIAL[0],
        eos_token=_SPECIAL[1],
        pad_token=_SPECIAL[1],
    )
    fast.chat_template = _CHAT_TEMPLATE
    fast.save_pretrained(path)


def _write_weights(
    path: Path, layers: int, q_heads: int, kv_heads: int, head_dim: int, max_context: int, seed: int
) -> None:
    from transformers import LlamaForCausalLM

    config = llama_config(
        layers=layers,
        q_heads=q_heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        vocab=256 + len(_SPECIAL),
        max_context=max_context,
        bos_token_id=256,
        eos_token_id=257,
        pad_token_id=257,
        initializer_range=0.06,
        tie_word_embeddings=False,
        dtype="float32",
    )
    state = torch.random.get_rng_state()
    try:
        torch.manual_seed(seed)
        model = LlamaForCausalLM(config).to(torch.float32)
    finally:
        torch.random.set_rng_state(state)
    model.generation_config.eos_token_id = 257
    model.save_pretrained(path, safe_serialization=True)


def llama_config(
    *,
    layers: int,
    q_heads: int,
    kv_heads: int,
    head_dim: int,
    vocab: int,
    max_context: int,
    **told: Any,
) -> Any:
    """The transformers.LlamaConfig of a small Llama; its MLP is twice as wide as its hidden states.

    told  more of its fields
    """
    from transformers import LlamaConfig

    return LlamaConfig(
        vocab_size=vocab,
        hidden_size=q_heads * head_dim,
        intermediate_size=2 * q_heads * head_dim,
        num_hidden_layers=layers,
        num_attention_heads=q_heads,
        num_key_value_heads=kv_heads,
        head_dim=head_dim,
        max_position_embeddings=max_context,
        **told,
    )
