"""What of a model's layers the backend does not serve."""

from __future__ import annotations

from pod_integrate.engines.sglang.facts import LayerFacts
from pod_integrate.engines.sglang.rules import Rule
from pod_integrate.terms.geometry import HEAD_DIM_RULE, takes_head_dim

LAYER: tuple[Rule[LayerFacts], ...] = (
    Rule(
        "cross attention",
        lambda f: f.is_cross_attention,
        lambda f: "is_cross_attention",
        serving=("flashinfer", "torch_native"),
    ),
    Rule(
        "attention of an encoder",
        lambda f: f.attn_type == "encoder_only",
        lambda f: f"attn_type {f.attn_type}",
        serving=("triton", "torch_native"),
    ),
    Rule(
        "attention that is not causal",
        lambda f: f.attn_type != "decoder",
        lambda f: f"attn_type {f.attn_type}",
        serving=("triton",),
    ),
    Rule(
        "this head dim",
        lambda f: not takes_head_dim(f.qk_head_dim),
        lambda f: f"{f.qk_head_dim}, not {HEAD_DIM_RULE}",
        serving=("triton", "torch_native"),
    ),
    Rule(
        "this head dim on a GPU",
        lambda f: f.qk_head_dim not in f.head_dims,
        lambda f: f"{f.qk_head_dim}, not one of {', '.join(map(str, f.head_dims))}",
        serving=("triton", "torch_native"),
    ),
    Rule(
        "a value head dim of its own",
        lambda f: f.qk_head_dim != f.v_head_dim,
        lambda f: f"{f.qk_head_dim} for keys, {f.v_head_dim} for values",
        serving=("triton", "torch_native"),
    ),
    Rule(
        "chunked local attention (iRoPE)",
        lambda f: f.use_irope,
        lambda f: "use_irope",
        serving=("fa3",),
    ),
    Rule(
        "a window in the pool of full layers, or none in the window pool",
        lambda f: f.in_window_pool not in (None, f.sliding_window_size >= 0),
        lambda f: f"sliding_window_size {f.sliding_window_size}",
        "pass --disable-hybrid-swa-memory, which gives the model the plain pool",
        ("triton",),
    ),
    Rule(
        "length-dependent temperature",
        lambda f: f.xai_temperature_len > 0,
        lambda f: f"xai_temperature_len {f.xai_temperature_len}",
        serving=("triton",),
    ),
    Rule(
        "this logit cap",
        lambda f: f.logit_cap != 0 and f.logit_capping_method != "tanh",
        lambda f: f.logit_capping_method,
        serving=("triton",),
    ),
    Rule(
        "positions inside attention",
        lambda f: f.pos_encoding_mode != "NONE",
        lambda f: f.pos_encoding_mode,
        serving=("flashinfer",),
    ),
)
