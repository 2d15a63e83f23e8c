"""hybrid_attention: check, find what runs it, call that; `attend` for who has found it before.

arguments.py checks types, devices and gradients, the native libraries shapes, dtypes, strides and
ranges before anything is computed, the CPU kernel page indices as well.
"""

from __future__ import annotations

import torch

from pod_integrate import dispatch
from pod_integrate.arguments import (
    check_devices,
    check_gradients,
    check_types,
    default_scale,
    plain,
)
from pod_integrate.devices.call import Attention, Call
from pod_integrate.devices.call import Result as Result
from pod_integrate.devices.device_plan import DevicePlan
from pod_integrate.devices.registry import device_of
from pod_integrate.errors import ConfigError, ShapeError
from pod_integrate.terms.batch import HybridBatch
from pod_integrate.terms.config import PodConfig
from pod_integrate.terms.scalars import Scalars


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
    k_scale: float = 1.0,
    v_scale: float = 1.0,
    sinks: torch.Tensor | None = None,
    out: torch.Tensor | None = None,
    plan: DevicePlan | None = None,
) -> Result:
    """Attend one hybrid batch (prefill chunks and decode tokens in any order) in one launch.

    T query tokens, B requests, Hq/Hkv heads, D head dim, P pages of S tokens.

    q                [T, Hq, D]        fp32, bf16 or fp16; D contiguous, T = batch.num_tokens
    k_cache, v_cache [P, S, Hkv, D]    dtype of q, or both float8_e4m3fn; D contiguous, other
                                       strides free
    batch            HybridBatch: lengths, page_indices, page_starts (see HybridBatch.build)
    config           how to run it; default default_config() of this device and geometry
    scale            multiplies q.k before softmax; default D ** -0.5. 0, or of a size within
                     2^-100..2^100
    window_left      a query at position i sees keys j >= i - window_left; -1: all before it
    logit_cap        score becomes cap * tanh(score / cap), cap within 2^-100..2^100; 0: no cap
    k_scale, v_scale what numbers of a float8_e4m3fn cache are multiplied by to be keys and values,
                     > 0, scale x k_scale within the range of scale; 1 for any other cache
    sinks            [Hq] fp32; exp(sink) joins each row's softmax denominator and so its lse
    out              [T, Hq, D] to write into, D contiguous, no two rows in one place, none of
                     them in memory of an input; default a new tensor
    plan             DevicePlan that holds `batch`, for CUDA graphs; rows of q past the batch are
                     padding then, and their out and lse are not written

    Causal, bottom-right aligned. Slots that no row sees are never read. For inference: the op has
    no gradient and refuses tensors that require one. On a CPU calls from several threads run one
    after the other. On a GPU (bf16 and fp16; head dim 64, 96, 128 or 256; page indices are not
    checked) the call runs on the current stream and nothing waits for the device; q_indptr and
    kv_lens must not change afterwards.
    Raises ShapeError, DtypeError, DeviceMismatchError, PageIndexError, ConfigError,
    KernelUnavailableError, UnsupportedFeatureError, BuildError; nothing launches then.
    Source: POD-Attention, arXiv:2410.18038.
    """
    check_types(batch, config, plan, q=q, k_cache=k_cache, v_cache=v_cache, sinks=sinks, out=out)
    _check_tensors(q, k_cache, v_cache, batch, sinks, out)
    factor = default_scale(q.shape[-1]) if scale is None else scale
    scalars = plain(Scalars(factor, window_left, logit_cap, k_scale, v_scale))
    call = _call(q, k_cache, v_cache, batch, scalars, sinks=sinks, out=out, plan=plan)
    if plan is not None:
        config = _config_of(config, plan)
    if _nobody_watches(q, k_cache, v_cache, call.out, sinks):
        device_of(q).attend(call, config)
    else:
        dispatch.send(call, config)
    return Result(call.out, call.lse)


def attend(
    attention: Attention,
    q: torch.Tensor,
    k_cache: torch.Tensor,
    v_cache: torch.Tensor,
    batch: HybridBatch,
    scalars: Scalars,
    *,
    sinks: torch.Tensor | None = None,
    out: torch.Tensor | None = None,
    plan: DevicePlan | None = None,
) -> Result:
    """hybrid_attention with an attention from Device.attention: nothing is looked up.

    scalars  as arguments.plain makes them
    plan     made with the config of `attention`
    Raises as hybrid_attention, ShapeError also for tensors that are not of attention.geometry;
    types are the caller's to know.
    """
    _check_tensors(q, k_cache, v_cache, batch, sinks, out)
    call = _call(q, k_cache, v_cache, batch, scalars, sinks=sinks, out=out, plan=plan)
    attention.require_fits(call)
    if plan is not None:
        _config_of(attention.config, plan)
    if _nobody_watches(q, k_cache, v_cache, call.out, sinks):
        attention(call)
    else:
        dispatch.send(call, attention.config)
    return Result(call.out, call.lse)


def _check_tensors(
    q: torch.Tensor,
    k_cache: torch.Tensor,
    v_cache: torch.Tensor,
    batch: HybridBatch,
    sinks: torch.Tensor | None,
    out: torch.Tensor | None,
) -> None:
    check_devices(q, k_cache, v_cache, batch, sinks, out)
    if q.dim() != 3 or k_cache.dim() != 4:
        raise ShapeError(
            f"q must be [T, Hq, D] and k_cache must be [P, S, Hkv, D], got shapes {list(q.shape)} "
            f"and {list(k_cache.shape)}"
        )
    check_gradients(q=q, k_cache=k_cache, v_cache=v_cache, sinks=sinks, out=out)


def _call(
    q: torch.Tensor,
    k_cache: torch.Tensor,
    v_cache: torch.Tensor,
    batch: HybridBatch,
    scalars: Scalars,
    *,
    sinks: torch.Tensor | None,
    out: torch.Tensor | None,
    plan: DevicePlan | None,
) -> Call:
    if plan is not None:
        plan.require_fits(q, k_cache, batch, scalars.window_left)
    result = torch.empty_like(q, memory_format=torch.contiguous_format) if out is None else out
    lse = q.new_empty(q.shape[:2], dtype=torch.float32)
    held = None if plan is None else plan.held
    return Call(q, k_cache, v_cache, batch, scalars, sinks, result, lse, held)


# Asked by every call: looked up once.
_is_profiled = torch._C._autograd._profiler_enabled
_count_modes = torch._C._len_torch_dispatch_stack
_transform = torch._C._functorch.peek_interpreter_stack
_PLAIN = frozenset((torch.Tensor, type(None)))


def _nobody_watches(*tensors: torch.Tensor | None) -> bool:
    """Whether a call may skip torch's dispatcher, which costs as much as all the rest of it.

    Not where something wants to see the op: tracing, gradients, a profiler, a mode, a subclass or
    a functorch transform.
    """
    if torch.compiler.is_compiling() or torch.is_grad_enabled() or _is_profiled():
        return False
    if _count_modes() or _transform() is not None:
        return False
    return _PLAIN.issuperset(map(type, tensors))


def _config_of(config: PodConfig | None, plan: DevicePlan) -> PodConfig:
    if config is not None and config is not plan.config and config != plan.config:
        raise ConfigError(
            f"config is [{config.short()}] but plan was made for [{plan.config.short()}]; leave "
            "config out where a plan is given"
        )
    return plan.config
