"""Families with experts, windows, sinks, or classes that transformers lacks; and all together."""

from __future__ import annotations

from typing import Any

from benchmarks.engines.sglang_families import DENSE, VOCAB, WINDOW, Family

_MOE: dict[str, Any] = {"moe_intermediate_size": 64, "num_experts": 4, "num_experts_per_tok": 2}
_LOCAL: dict[str, Any] = {"num_local_experts": 4, "num_experts_per_tok": 2}
_EVERY_OTHER = ["sliding_attention", "full_attention"]
_PLAIN_POOL = ("--disable-hybrid-swa-memory",)
_REMOTE: dict[str, Any] = {"rms_norm_eps": 1e-6, "rope_theta": 10000}
_ROTARY = {"rope_parameters": {"rope_type": "default", "rope_theta": 10000}}

EXPERTS: dict[str, Family] = {
    "qwen2_moe": Family(
        kind="qwen2_moe",
        oddity="experts, one shared",
        config={**_MOE, "shared_expert_intermediate_size": 64},
    ),
    "qwen3_moe": Family(
        kind="qwen3_moe",
        oddity="experts; asks the backend for its KV pool",
        config={**_MOE, "head_dim": 64},
    ),
    "mixtral": Family(kind="mixtral", oddity="experts", config={**_LOCAL, "sliding_window": None}),
    "phimoe": Family(
        kind="phimoe",
        architecture="PhiMoEForCausalLM",
        oddity="experts, biases",
        config={**_LOCAL, "sliding_window": None},
    ),
    "olmoe": Family(
        kind="olmoe",
        oddity="experts, q and k normalised",
        config={**_MOE, "num_key_value_heads": 4},
    ),
    "granitemoe": Family(
        kind="granitemoe",
        oddity="experts, a softmax scale of its own",
        config={**_LOCAL, "attention_multiplier": 0.1},
    ),
    "glm4_moe": Family(
        kind="glm4_moe",
        oddity="experts after a dense layer, partial rotary",
        config={"moe_intermediate_size": 64, "n_routed_experts": 4, "num_experts_per_tok": 2}
        | {"n_shared_experts": 1, "n_group": 1, "topk_group": 1, "head_dim": 32},
    ),
    "bailing_moe": Family(
        kind="bailing_moe",
        remote=True,
        architecture="BailingMoeForCausalLM",
        oddity="experts; asks the backend for its KV pool",
        config={**_MOE, **_REMOTE, **_ROTARY, "num_shared_experts": 1, "norm_topk_prob": True}
        | {"first_k_dense_replace": 0, "use_bias": False, "use_qkv_bias": False}
        | {"embedding_dropout": 0.0, "norm_head": False, "head_dim": 32},
    ),
    "deepseek_v2": Family(
        kind="deepseek_v2",
        oddity="latent attention (MLA)",
        config={"kv_lora_rank": 32, "q_lora_rank": 32, "qk_rope_head_dim": 16}
        | {
            "qk_nope_head_dim": 32,
            "v_head_dim": 32,
            "n_routed_experts": 4,
            "moe_intermediate_size": 64,
        }
        | {"first_k_dense_replace": 2, "moe_layer_freq": 1, "num_key_value_heads": 4}
        | {
            "rope_scaling": {"type": "yarn", "rope_type": "yarn", "factor": 2.0, "rope_theta": 1e4}
            | {"original_max_position_embeddings": 128, "mscale": 1.0, "mscale_all_dim": 1.0}
        },
    ),
}
WINDOWS: dict[str, Family] = {
    "gemma2": Family(
        kind="gemma2",
        oddity="logit cap, window in every other layer, head dim 256 (no cap at the end)",
        config={"head_dim": 256, "query_pre_attn_scalar": 256, "attn_logit_softcapping": 2.0}
        # SGLang's cap of the last logits is a Triton kernel.
        | {"final_logit_softcapping": None}
        | {"sliding_window": WINDOW, "layer_types": _EVERY_OTHER, "tie_word_embeddings": True}
        | {"hidden_act": "gelu_pytorch_tanh"},
        reference="transformers",
    ),
    "gemma3": Family(
        kind="gemma3_text",
        oddity="window in five of six layers, q and k normalised, head dim 256",
        config={"head_dim": 256, "query_pre_attn_scalar": 256, "num_hidden_layers": 6}
        | {"sliding_window": WINDOW, "tie_word_embeddings": True, "hidden_act": None}
        | {"layer_types": ["sliding_attention"] * 5 + ["full_attention"]},
    ),
    "ministral": Family(
        kind="ministral",
        oddity="Mistral's window in every layer, by SGLang's transformers wrapper",
        config={"sliding_window": WINDOW, "layer_types": ["sliding_attention"] * 2}
        | {"head_dim": 32},
    ),
    "olmo3": Family(
        kind="olmo3",
        oddity="window in three of four layers",
        config={"sliding_window": WINDOW, "num_hidden_layers": 4}
        | {"layer_types": ["sliding_attention"] * 3 + ["full_attention"]},
    ),
    "cohere2": Family(
        kind="cohere2",
        oddity="window in three of four layers, no rotary in the fourth",
        config={"sliding_window": WINDOW, "num_hidden_layers": 4, "logit_scale": 1.0}
        | {"layer_types": ["sliding_attention"] * 3 + ["full_attention"]}
        | {"tie_word_embeddings": True},
    ),
    "exaone4": Family(
        kind="exaone4",
        oddity="window in three of four layers",
        config={"sliding_window": WINDOW, "sliding_window_pattern": "LLLG"}
        | {"layer_types": ["sliding_attention"] * 3 + ["full_attention"], "num_hidden_layers": 4},
    ),
    # Its windows have a KV pool of their own, of which torch_native reads the other pool's slots.
    "mellum": Family(
        kind="mellum",
        oddity="experts, window in every other layer; asks the backend for its KV pool",
        config={**_MOE, "sliding_window": WINDOW, "layer_types": _EVERY_OTHER, "head_dim": 64},
        reference_flags=_PLAIN_POOL,
    ),
    "granite_swa": Family(
        kind="granite_swa",
        oddity="sinks, window in every other layer",
        config={"sliding_window": WINDOW, "layer_types": _EVERY_OTHER},
        reference="transformers",
    ),
    "gpt_oss": Family(
        kind="gpt_oss",
        oddity="sinks, window in every other layer, experts",
        config={**_LOCAL, "sliding_window": WINDOW, "head_dim": 64, "layer_types": _EVERY_OTHER},
    ),
}
REMOTE: dict[str, Family] = {
    "glm": Family(
        kind="chatglm",
        remote=True,
        architecture="ChatGLMModel",
        oddity="two KV groups, interleaved rotary over half of each head, biases",
        config={"padded_vocab_size": VOCAB, "ffn_hidden_size": 96, "num_layers": 2}
        | {"kv_channels": 32, "multi_query_attention": True, "multi_query_group_num": 2}
        | {"seq_length": 256, "layernorm_epsilon": 1e-5, "rmsnorm": True, "post_layer_norm": True}
        | {"apply_residual_connection_post_layernorm": False, "add_qkv_bias": True}
        | {"add_bias_linear": False},
    ),
    "internlm2": Family(
        kind="internlm2",
        remote=True,
        architecture="InternLM2ForCausalLM",
        oddity="fused grouped projections",
        config={**_REMOTE, "bias": False},
    ),
    "internlm3": Family(
        kind="internlm3",
        remote=True,
        architecture="InternLM3ForCausalLM",
        oddity="biases of q, k and v, head dim 48",
        config={**_REMOTE, "bias": False, "qkv_bias": True, "head_dim": 48},
    ),
    "qwen": Family(
        kind="qwen",
        remote=True,
        architecture="QWenLMHeadModel",
        oddity="fused projections with biases",
        config={**_REMOTE, "layer_norm_epsilon": 1e-6, "num_key_value_heads": None},
    ),
    "minicpm": Family(
        kind="minicpm",
        remote=True,
        architecture="MiniCPMForCausalLM",
        oddity="scaled residuals and embeddings",
        config={**_REMOTE, "scale_emb": 2.0, "scale_depth": 1.4, "dim_model_base": 64},
    ),
    "baichuan_7b": Family(
        kind="baichuan",
        remote=True,
        architecture="BaichuanForCausalLM",
        oddity="fused projections; rotary, told from ALiBi by the hidden size",
        config={**_REMOTE, "hidden_size": 4096, "num_attention_heads": 32}
        | {"num_key_value_heads": None},
    ),
    "baichuan_13b": Family(
        kind="baichuan",
        remote=True,
        architecture="BaichuanForCausalLM",
        oddity="ALiBi",
        config={**_REMOTE, "num_key_value_heads": None},
    ),
    "mpt": Family(
        kind="mpt",
        oddity="ALiBi",
        config={"d_model": 128, "n_heads": 4, "n_layers": 2, "max_seq_len": 256}
        | {"num_key_value_heads": None},
    ),
}
FAMILIES: dict[str, Family] = {**DENSE, **EXPERTS, **WINDOWS, **REMOTE}
