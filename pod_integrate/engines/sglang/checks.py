"""What the backend does not serve: pure checks over plain facts, each naming the alternative.

A server stops at start-up, with one of these messages, rather than answer differently.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any, Generic, TypeVar

import torch

from pod_integrate.engines.sglang.facts import EngineFacts, LayerFacts
from pod_integrate.errors import KernelUnavailableError, UnsupportedFeatureError
from pod_integrate.geometry import HEAD_DIM_RULE, takes_head_dim

_Facts = TypeVar("_Facts")
SERVED_DTYPES = (torch.float32, torch.bfloat16, torch.float16)


@dataclasses.dataclass(frozen=True)
class _Rule(Generic[_Facts]):
    feature: str
    applies: Callable[[_Facts], bool]
    got: Callable[[_Facts], object]
    remedy: str


_ENGINE: tuple[_Rule[EngineFacts], ...] = (
    _Rule(
        "multi-head latent attention (MLA)",
        lambda f: f.mla,
        lambda f: "an MLA model",
        "leave --attention-backend unset or use trtllm_mla (GPU) or torch_native (CPU)",
    ),
    _Rule(
        "encoder-decoder models",
        lambda f: f.encoder_decoder,
        lambda f: "a model with cross attention",
        "use --attention-backend flashinfer (GPU) or torch_native (CPU)",
    ),
    _Rule(
        "ALiBi",
        lambda f: f.alibi,
        lambda f: "a model with slopes, which SGLang passes on an Ascend device only",
        "serve it with transformers and its own attention: other backends of SGLang leave the "
        "slopes out and answer differently",
    ),
    _Rule(
        "speculative decoding",
        lambda f: f.speculative is not None,
        lambda f: f"--speculative-algorithm {f.speculative}",
        "drop it or use --attention-backend flashinfer, fa3 or triton",
    ),
    _Rule(
        "diffusion language models",
        lambda f: f.dllm is not None,
        lambda f: f"--dllm-algorithm {f.dllm}",
        "use --attention-backend flashinfer",
    ),
    _Rule(
        "this KV cache dtype",
        lambda f: f.kv_cache_dtype not in SERVED_DTYPES or f.kv_cache_dtype != f.dtype,
        lambda f: f"{f.kv_cache_dtype} for a {f.dtype} model",
        "use --kv-cache-dtype auto, or --attention-backend flashinfer or triton",
    ),
    _Rule(
        "the unified memory pool",
        lambda f: f.unified_memory,
        lambda f: "--enable-unified-memory",
        "drop the flag or use --attention-backend triton",
    ),
    _Rule(
        "sparse host-backed attention (HiSparse)",
        lambda f: f.hisparse,
        lambda f: "--enable-hisparse",
        "drop the flag or leave --attention-backend unset",
    ),
    _Rule(
        "this KV pool",
        lambda f: f.pool != "MHATokenToKVPool",
        lambda f: f.pool,
        "use --attention-backend triton or torch_native; a sliding-window model gets the plain "
        "pool that POD serves with --disable-hybrid-swa-memory",
    ),
    _Rule(
        "this KV layout",
        lambda f: f.pool_layout != "nhd",
        lambda f: f.pool_layout,
        "unset SGLANG_USE_HND_KVCACHE or use --attention-backend trtllm_mha",
    ),
    _Rule(
        "decode context parallelism",
        lambda f: f.dcp_size > 1,
        lambda f: f"--dcp-size {f.dcp_size}",
        "set it to 1 or leave --attention-backend unset",
    ),
    _Rule(
        "context parallelism",
        lambda f: f.cp_size > 1,
        lambda f: f"--attn-cp-size {f.cp_size}",
        "set it to 1 or use --attention-backend fa3",
    ),
    _Rule(
        "prefill-decode multiplexing",
        lambda f: f.pdmux,
        lambda f: "--enable-pdmux",
        "drop the flag (POD overlaps the two inside one launch) or use --attention-backend fa3",
    ),
    _Rule(
        "two-batch overlap",
        lambda f: f.two_batch_overlap,
        lambda f: "--enable-two-batch-overlap",
        "drop the flag or leave --attention-backend unset",
    ),
    _Rule(
        "multi-item scoring",
        lambda f: f.mis,
        lambda f: "--enable-mis",
        "drop the flag or use --attention-backend flashinfer",
    ),
    _Rule(
        "full prefill graphs",
        lambda f: f.prefill_graph == "full",
        lambda f: "--cuda-graph-backend-prefill full",
        "use `breakable` or `disabled`",
    ),
)

_LAYER: tuple[_Rule[LayerFacts], ...] = (
    _Rule(
        "cross attention",
        lambda f: f.is_cross_attention,
        lambda f: "is_cross_attention",
        "use --attention-backend flashinfer (GPU) or torch_native (CPU)",
    ),
    _Rule(
        "attention that is not causal",
        lambda f: f.attn_type != "decoder",
        lambda f: f"attn_type {f.attn_type}",
        "use --attention-backend triton or torch_native",
    ),
    _Rule(
        "this head dim",
        lambda f: not takes_head_dim(f.qk_head_dim),
        lambda f: f"{f.qk_head_dim}, not {HEAD_DIM_RULE}",
        "use --attention-backend triton or torch_native",
    ),
    _Rule(
        "a value head dim of its own",
        lambda f: f.qk_head_dim != f.v_head_dim,
        lambda f: f"{f.qk_head_dim} for keys, {f.v_head_dim} for values",
        "use --attention-backend triton or torch_native",
    ),
    _Rule(
        "chunked local attention (iRoPE)",
        lambda f: f.use_irope,
        lambda f: "use_irope",
        "use --attention-backend fa3",
    ),
    _Rule(
        "length-dependent temperature",
        lambda f: f.xai_temperature_len > 0,
        lambda f: f"xai_temperature_len {f.xai_temperature_len}",
        "use --attention-backend triton",
    ),
    _Rule(
        "this logit cap",
        lambda f: f.logit_cap != 0 and f.logit_capping_method != "tanh",
        lambda f: f.logit_capping_method,
        "use --attention-backend triton",
    ),
    _Rule(
        "positions inside attention",
        lambda f: f.pos_encoding_mode != "NONE",
        lambda f: f.pos_encoding_mode,
        "use --attention-backend flashinfer",
    ),
)


def check_engine(facts: EngineFacts) -> None:
    """Raise UnsupportedFeatureError for the first feature of the server that POD lacks."""
    _check(_ENGINE, facts, "the server")


def check_layers(layers: Iterable[LayerFacts]) -> None:
    """Raise UnsupportedFeatureError for the first layer that POD cannot attend."""
    for facts in layers:
        _check(_LAYER, facts, f"attention layer {facts.layer_id}")


def check_device(device: str) -> None:
    """Raise KernelUnavailableError on a device that this plug-in does not drive."""
    if device not in ("cpu", "cuda"):
        raise KernelUnavailableError(
            f"attention backend pod serves SGLang on cpu and cuda, not on {device}. Drop "
            "--attention-backend pod to get SGLang's own backend"
        )


def check_decode_graphs(max_requests: int, max_tokens: int) -> None:
    """Raise UnsupportedFeatureError for CUDA graphs of more than one token per request."""
    if max_tokens != max_requests:
        raise UnsupportedFeatureError(
            f"attention backend pod captures decode steps of one token per request, the server "
            f"wants {max_tokens} tokens of {max_requests} requests; drop speculative decoding or "
            "the diffusion model, or use --attention-backend flashinfer"
        )


def check_arguments(layer_id: int, arguments: dict[str, Any]) -> None:
    """Raise UnsupportedFeatureError when a model passes attention arguments that POD lacks."""
    unknown = sorted(
        name for name, value in arguments.items() if value is not None and value is not False
    )
    if unknown:
        raise UnsupportedFeatureError(
            f"attention backend pod does not support the arguments {unknown} that this model "
            f"passes at layer {layer_id}; leave --attention-backend unset to get SGLang's own"
        )


def _check(rules: Iterable[_Rule[_Facts]], facts: _Facts, where: str) -> None:
    for rule in rules:
        if rule.applies(facts):
            raise UnsupportedFeatureError(
                f"attention backend pod does not support {rule.feature}: {where} has "
                f"{rule.got(facts)}; {rule.remedy}"
            )
