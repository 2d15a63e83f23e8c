"""Plain facts for `checks`, read off SGLang's objects here and nowhere else."""

from __future__ import annotations

import dataclasses
import os
import socket
import uuid
from typing import Any

import torch

from pod_integrate.devices.base import Device, Limits
from pod_integrate.engines.sglang.speculation import Speculation, speculation
from pod_integrate.engines.sglang.windows import WindowSlots, is_served, plain_pools, pool_name
from pod_integrate.terms.keys import Dtype, Geometry, KvDtype


@dataclasses.dataclass(frozen=True, kw_only=True)
class EngineFacts:
    """What start-up decides on; fields are named after SGLang's own terms.

    limits                what the kernel takes on the model's device
    has_graphs            whether that device captures steps into graphs
    dtype, kv_cache_dtype of the model and of the KV pool
    pool, pool_layout     class name and memory layout of the KV pool, see windows.pool_name
    speculation           None where the server does not speculate
    dllm                  diffusion-LLM algorithm or None
    prefill_graph         backend of prefill CUDA graphs, e.g. `disabled` or `full`
    alibi                 whether a layer of the model has slopes that nobody may pass on
    masked_images         whether the model takes images and has masks made for their tokens
    table_rows, _columns  shape of req_to_token: requests and padding, longest context
    pool_slots, _bytes    of the keys of one layer, where the pool is one that is served
    chunked_prefill_size  -1 attends prompts whole, None is SGLang's choice
    """

    limits: Limits
    has_graphs: bool
    dtype: torch.dtype
    kv_cache_dtype: torch.dtype
    pool: str
    pool_layout: str = "nhd"
    mla: bool = False
    encoder_decoder: bool = False
    speculation: Speculation | None = None
    dllm: str | None = None
    prefill_graph: str = "disabled"
    unified_memory: bool = False
    pdmux: bool = False
    two_batch_overlap: bool = False
    mis: bool = False
    hisparse: bool = False
    dcp_size: int = 1
    cp_size: int = 1
    alibi: bool = False
    masked_images: bool = False
    table_rows: int = 0
    table_columns: int = 0
    pool_slots: int = 0
    pool_bytes: int = 0
    torch_compile: bool = False
    deterministic: bool = False
    chunked_prefill_size: int | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class LayerFacts:
    """One RadixAttention layer; fields are named after its attributes.

    head_dims  that the kernel takes on the model's device
    in_window_pool  whether its keys are in the window pool; None where the pool has none
    """

    layer_id: int
    head_dims: tuple[int, ...]
    in_window_pool: bool | None = None
    sliding_window_size: int = -1
    attn_type: str = "decoder"
    is_cross_attention: bool = False
    qk_head_dim: int = 64
    v_head_dim: int = 64
    use_irope: bool = False
    xai_temperature_len: int = -1
    logit_cap: float = 0.0
    logit_capping_method: str = "tanh"
    pos_encoding_mode: str = "NONE"


def device_type(runner: Any) -> str:
    """Torch device type that a ModelRunner puts its model on."""
    return str(runner.device).split(":", 1)[0]


def engine_facts(runner: Any, device: Device) -> EngineFacts:
    """What start-up decides on, of a ModelRunner; unknown flags of older SGLang count as off.

    device  what its model runs on
    """
    pool, args = runner.token_to_kv_pool, resolved_arguments(runner)

    def flag(name: str, default: Any = False) -> Any:
        return getattr(args, name, default) or default

    graphs = flag("cuda_graph_config", None)
    return EngineFacts(
        limits=device.limits,
        has_graphs=device.has_graphs,
        dtype=runner.dtype,
        kv_cache_dtype=runner.kv_cache_dtype,
        pool=pool_name(pool),
        pool_layout=next(
            filter(lambda name: name != "nhd", map(_layout, plain_pools(pool))), "nhd"
        ),
        mla=bool(runner.use_mla_backend),
        encoder_decoder=bool(runner.model_config.is_encoder_decoder),
        speculation=speculation(runner, args),
        dllm=flag("dllm_algorithm", None),
        prefill_graph=str(getattr(graphs.prefill, "backend", "disabled")) if graphs else "disabled",
        unified_memory=flag("enable_unified_memory"),
        pdmux=flag("enable_pdmux"),
        two_batch_overlap=flag("enable_two_batch_overlap"),
        mis=flag("enable_mis"),
        hisparse=flag("enable_hisparse"),
        dcp_size=flag("dcp_size", 1),
        cp_size=flag("attn_cp_size", 1),
        alibi=any(getattr(m, "alibi_slopes", None) is not None for m in runner.model.modules()),
        masked_images=bool(getattr(runner.model_config, "is_multimodal", False))
        and hasattr(runner.model, "prepare_attn_masks"),
        torch_compile=flag("enable_torch_compile"),
        deterministic=flag("enable_deterministic_inference"),
        chunked_prefill_size=flag("chunked_prefill_size", None),
        **_sizes(runner),
    )


def resolved_arguments(runner: Any) -> Any:
    """Server arguments as SGLang decided on them: the attributes are what the user typed."""
    from sglang.srt.arg_groups.overrides import resolved_view

    return resolved_view(runner.server_args)


def _sizes(runner: Any) -> dict[str, int]:
    """What the op counts in 32 bits."""
    table, pool = runner.req_to_token_pool.req_to_token, runner.token_to_kv_pool
    sizes = {"table_rows": int(table.shape[0]), "table_columns": int(table.shape[1])}
    if is_served(pool_name(pool)):
        parts = plain_pools(pool)
        keys = [part.get_key_buffer(getattr(part, "start_layer", None) or 0) for part in parts]
        sizes["pool_slots"] = max(int(k.shape[0]) for k in keys)
        sizes["pool_bytes"] = max(
            int(k.shape[0]) * int(k.stride(0)) * k.element_size() for k in keys
        )
    return sizes


def layer_facts(layer: Any, device: Device, windows: WindowSlots | None = None) -> LayerFacts:
    """What one RadixAttention layer asks for on a device, over a pool with `windows` or without."""
    return LayerFacts(
        layer_id=layer.layer_id,
        head_dims=device.limits.head_dims,
        in_window_pool=None if windows is None else windows.holds(layer.layer_id),
        sliding_window_size=_window(layer),
        attn_type=str(getattr(layer.attn_type, "value", layer.attn_type)),
        is_cross_attention=layer.is_cross_attention,
        qk_head_dim=layer.qk_head_dim,
        v_head_dim=layer.v_head_dim,
        use_irope=layer.use_irope,
        xai_temperature_len=layer.xai_temperature_len,
        logit_cap=layer.logit_cap or 0.0,
        logit_capping_method=layer.logit_capping_method,
        pos_encoding_mode=layer.pos_encoding_mode,
    )


def layer_geometry(layer: Any, dtype: Dtype, kv_dtype: KvDtype) -> Geometry:
    """Geometry of one RadixAttention layer; every slot of SGLang's pool is a page of one token."""
    return Geometry(
        num_q_heads=layer.tp_q_head_num,
        num_kv_heads=layer.tp_k_head_num,
        head_dim=layer.qk_head_dim,
        dtype=dtype,
        kv_dtype=kv_dtype,
        page_size=1,
        # SGLang's window keeps keys j >= i - window, the same as window_left.
        window_left=_window(layer),
        logit_cap=float(layer.logit_cap or 0.0),
    )


def _window(layer: Any) -> int:
    window = layer.sliding_window_size
    return int(window) if window is not None and window > -1 else -1


def cache_scales(layer: Any) -> tuple[float, float]:
    """What a layer's keys and values in a quantised pool are multiplied by.

    What SGLang divides by when it writes: a checkpoint's scales are tensors there, with the same
    numbers beside them; those of --quantization-param-path are numbers, with nothing beside. 1 for
    a layer without any.
    """
    keys = layer.k_scale if layer.k_scale_float is None else layer.k_scale_float
    values = layer.v_scale if layer.v_scale_float is None else layer.v_scale_float
    return 1.0 if keys is None else float(keys), 1.0 if values is None else float(values)


def is_reporting_rank(runner: Any) -> bool:
    """Whether this rank records and saves: the first of its tensor and pipeline group.

    The ranks of one group attend the same lengths at the same time, so one of them speaks for
    all; every data-parallel replica has its own.
    """
    return _rank(runner, "attn_tp_rank", "tp_rank") == 0 and _rank(runner, "pp_rank") == 0


def server_name(runner: Any) -> str:
    """Id of this serving process for the tuner: host, port and replica, new at each start."""
    host = socket.gethostname()[:64]
    port = getattr(runner.server_args, "port", 0)
    # Replicas that share no attention group are all of attention rank 0.
    replica = _rank(runner, "dp_rank") or _rank(runner, "attn_dp_rank")
    return f"{host}:{port}/dp{replica}/{os.getpid()}-{uuid.uuid4().hex[:8]}"


def _rank(runner: Any, *names: str) -> int:
    # 0.5.22 moved the ranks from the runner to a context of the process.
    try:
        from sglang.srt.runtime_context import get_parallel
    except ImportError:
        places = [runner]
    else:
        places = [get_parallel(), runner]
    for place in places:
        for name in names:
            try:
                value = getattr(place, name)
            except (AssertionError, AttributeError, RuntimeError, ValueError):
                # How the context says that no launcher has stated this rank: a lone process.
                continue
            if value is not None:
                return int(value)
    return 0


def _layout(pool: Any) -> str:
    return "hnd" if getattr(pool, "use_hnd", False) else getattr(pool, "kv_cache_layout", "nhd")
