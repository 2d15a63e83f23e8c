"""hybrid_attention: check, choose a config, launch. Registered as torch.ops.pod.hybrid_attention.

The native library checks shapes, dtypes, strides and page indices before it computes anything.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import torch
import tvm_ffi

from pod_integrate import native
from pod_integrate.batch import HybridBatch
from pod_integrate.config import STRATEGIES, PodConfig, TileConfig
from pod_integrate.defaults import default_config, require_feasible
from pod_integrate.device import ISAS, device_key, isa, kernel_unavailable, num_threads
from pod_integrate.errors import DtypeError, ShapeError, UnsupportedFeatureError
from pod_integrate.keys import Dtype, Geometry

_DTYPES: dict[torch.dtype, Dtype] = {
    torch.float32: "fp32",
    torch.bfloat16: "bf16",
    torch.float16: "fp16",
}
_SCHEMA = (
    "hybrid_attention(Tensor q, Tensor k_cache, Tensor v_cache, Tensor q_indptr, Tensor kv_lens, "
    "Tensor page_indices, Tensor page_starts, int page_size, float scale, int window_left, "
    "float logit_cap, Tensor? sinks, int[] config, Tensor(a!) out, Tensor(b!) lse) -> ()"
)
# torch leaves Library untyped.
_library: Any = torch.library.Library("pod", "DEF")  # type: ignore[no-untyped-call]
_library.define(_SCHEMA)


class Attention(NamedTuple):
    """out [T, Hq, D] in the dtype of q, lse [T, Hq] fp32 natural log."""

    out: torch.Tensor
    lse: torch.Tensor


def hybrid_attention(
    q: torch.Tensor,
    k_cache: torch.Tensor,
    v_cache: torch.Tensor,
    batch: HybridBatch,
    *,
    config: PodConfig | None = None,
    scale: float | None = None,
    window_left: int = -1,
    logit_cap: float = 0.0,
    sinks: torch.Tensor | None = None,
    out: torch.Tensor | None = None,
) -> Attention:
    """Attend one hybrid batch (prefill chunks and decode tokens in any order) in one launch.

    T query tokens, B requests, Hq/Hkv heads, D head dim, P pages of S tokens.

    q                [T, Hq, D]        fp32, bf16 or fp16; D contiguous, T = batch.num_tokens
    k_cache, v_cache [P, S, Hkv, D]    dtype of q; D contiguous, other strides free
    batch            HybridBatch: lengths, page_indices, page_starts (see HybridBatch.build)
    config           how to run it; default default_config() of this device and geometry
    scale            multiplies q.k before softmax; default D ** -0.5
    window_left      a query at position i sees keys j >= i - window_left; -1: all before it
    logit_cap        score becomes cap * tanh(score / cap); 0: no cap
    sinks            [Hq] fp32; exp(sink) joins each row's softmax denominator and so its lse
    out              [T, Hq, D] to write into, D contiguous; default a new tensor

    Causal, bottom-right aligned. Slots that no row sees are never read. Calls from several
    threads run one after the other. For inference: the op has no gradient.
    Raises ShapeError, DtypeError, PageIndexError, ConfigInfeasibleError, KernelUnavailableError,
    UnsupportedFeatureError; nothing launches then.
    Source: POD-Attention, arXiv:2410.18038.
    """
    # A meta or fake tensor among real ones would reach the fake kernel and leave `out` unwritten.
    for tensor in (q, k_cache, v_cache, batch.page_indices, batch.page_starts, sinks, out):
        if tensor is not None and tensor.device.type != "cpu":
            raise kernel_unavailable(tensor.device)
    if q.dim() != 3:
        raise ShapeError(f"q must be [T, Hq, D], got shape {list(q.shape)}")
    if torch.is_grad_enabled() and (q.requires_grad or k_cache.requires_grad):
        raise UnsupportedFeatureError(
            "hybrid_attention has no gradient but q or k_cache requires one; call it under "
            "torch.no_grad() or torch.inference_mode()"
        )
    result = torch.empty_like(q, memory_format=torch.contiguous_format) if out is None else out
    lse = q.new_empty(q.shape[:2], dtype=torch.float32)
    torch.ops.pod.hybrid_attention(
        q,
        k_cache,
        v_cache,
        batch.q_indptr,
        batch.kv_lens,
        batch.page_indices,
        batch.page_starts,
        batch.page_size,
        q.shape[-1] ** -0.5 if scale is None else scale,
        window_left,
        logit_cap,
        sinks,
        [] if config is None else flatten_config(config),
        result,
        lse,
    )
    return Attention(result, lse)


def geometry_of(
    q: torch.Tensor,
    k_cache: torch.Tensor,
    *,
    window_left: int = -1,
    logit_cap: float = 0.0,
) -> Geometry:
    """Geometry of a call; raises DtypeError for a dtype that no kernel takes."""
    return _geometry(
        q.shape[1],
        k_cache.shape[2],
        q.shape[2],
        q.dtype,
        k_cache.dtype,
        k_cache.shape[1],
        window_left,
        logit_cap,
    )


def flatten_config(config: PodConfig) -> list[int]:
    """Fields of a config as the integers that the torch op takes."""
    p, d = config.prefill, config.decode
    return [
        *(p.q_rows, p.kv_rows, p.stages, p.warps),
        *(d.q_rows, d.kv_rows, d.stages, d.warps),
        *(config.ctas_per_sm, config.prefill_ctas, config.decode_ctas, config.max_prefill_waves),
        *(config.decode_split_tokens, config.virtual_decode, STRATEGIES.index(config.strategy)),
    ]


def _unflatten(values: tuple[int, ...]) -> PodConfig:
    names = ("q_rows", "kv_rows", "stages", "warps")
    prefill, decode = (
        TileConfig(**dict(zip(names, part, strict=True))) for part in (values[:4], values[4:8])
    )
    return PodConfig(
        prefill=prefill,
        decode=decode,
        ctas_per_sm=values[8],
        prefill_ctas=values[9],
        decode_ctas=values[10],
        max_prefill_waves=values[11],
        decode_split_tokens=values[12],
        virtual_decode=values[13],
        strategy=STRATEGIES[values[14]],  # type: ignore[arg-type]
    )


@functools.lru_cache(maxsize=4096)
def _geometry(
    num_q_heads: int,
    num_kv_heads: int,
    head_dim: int,
    dtype: torch.dtype,
    kv_dtype: torch.dtype,
    page_size: int,
    window_left: int,
    logit_cap: float,
) -> Geometry:
    if dtype not in _DTYPES or kv_dtype not in _DTYPES:
        raise DtypeError(
            f"q is {dtype}, k_cache {kv_dtype}; the kernel takes float32, bfloat16 and float16. "
            "Cast q and the caches to one of them"
        )
    return Geometry(
        num_q_heads=num_q_heads,
        num_kv_heads=num_kv_heads,
        head_dim=head_dim,
        dtype=_DTYPES[dtype],
        kv_dtype=_DTYPES[kv_dtype],
        page_size=page_size,
        window_left=window_left,
        logit_cap=logit_cap,
    )


@functools.lru_cache(maxsize=4096)
def native_config(values: tuple[int, ...], geometry: Geometry, threads: int, level: str) -> Any:
    """The integers that the native library takes; an empty tuple stands for the default."""
    device = device_key(torch.device("cpu"), threads)
    config = _unflatten(values) if values else default_config(device, geometry)
    require_feasible(config, device, geometry)
    flat = flatten_config(config)
    return tvm_ffi.Shape([value for i, value in enumerate(flat) if i not in (3, 7)])


def native_arguments(
    q: torch.Tensor,
    k_cache: torch.Tensor,
    v_cache: torch.Tensor,
    q_indptr: torch.Tensor,
    kv_lens: torch.Tensor,
    page_indices: torch.Tensor,
    page_starts: torch.Tensor,
    page_size: int,
    scale: float,
    window_left: int,
    logit_cap: float,
    sinks: torch.Tensor | None,
    config: list[int],
    out: torch.Tensor,
    lse: torch.Tensor,
) -> tuple[Any, ...]:
    """Arguments of the native `attend` and `attend_logged` for those of the torch op."""
    geometry = geometry_of(q, k_cache, window_left=window_left, logit_cap=logit_cap)
    threads, level = num_threads(), isa()
    chosen = native_config(tuple(config), geometry, threads, level)
    tensors = (q, k_cache, v_cache, q_indptr, kv_lens, page_indices, page_starts)
    numbers = (page_size, scale, window_left, logit_cap)
    return (*tensors, *numbers, sinks, out, lse, chosen, threads, ISAS.index(level))


def _attend_cpu(*arguments: Any) -> None:
    native.load("cpu").attend(*native_arguments(*arguments))


def _attend_cuda(q: torch.Tensor, *_: Any) -> None:
    raise kernel_unavailable(q.device)


_library.impl("hybrid_attention", _attend_cpu, "CPU")
_library.impl("hybrid_attention", _attend_cuda, "CUDA")


torch.library.register_fake("pod::hybrid_attention", lambda *_: None, lib=_library)
