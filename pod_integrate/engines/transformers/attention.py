"""The attention function `pod` that transformers calls in every layer."""

from __future__ import annotations

from typing import Any

import torch

from pod_integrate.engines.transformers import dense, paged
from pod_integrate.engines.transformers.checks import check_arguments, check_tensors
from pod_integrate.engines.transformers.engine import Options, attend
from pod_integrate.engines.transformers.stock import (
    BEYOND_PADDING,
    reason_for_stock,
    stock_attention,
    warn_once,
)
from pod_integrate.errors import UnsupportedFeatureError


# Lengths, plans and times live on the host: a compiled model breaks its graph here, as it does
# around stock paged attention.
@torch.compiler.disable  # type: ignore[untyped-decorator]
def pod_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: torch.Tensor | None = None,
    is_causal: bool | None = None,
    cache: Any = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Attend q [B, Hq, T, D] over k, v [B, Hkv, S, D], or over the paged `cache`; [B, T, Hq, D].

    Arguments are those of transformers' AttentionInterface. What the op cannot compute goes to
    stock attention with one warning, or raises UnsupportedFeatureError in continuous batching.
    """
    causal = getattr(module, "is_causal", True) if is_causal is None else is_causal
    check_arguments(kwargs)
    inputs = (query, key, value, attention_mask, s_aux)
    reason = reason_for_stock(module, inputs, dropout, causal, kwargs)
    options = Options(scaling, sliding_window, softcap, s_aux)
    if "write_index" in kwargs:
        return _paged(module, query, key, value, cache, options, reason, kwargs), None
    step = None
    if reason is None:
        step = dense.step_of(attention_mask, query, key, sliding_window)
    if step is None:
        warn_once(reason or BEYOND_PADDING)
        kwargs |= {"dropout": dropout, "scaling": scaling, "sliding_window": sliding_window}
        kwargs |= {"softcap": softcap, "s_aux": s_aux, "is_causal": is_causal}
        return stock_attention(module, query, key, value, attention_mask, causal, kwargs)
    query, key, value = _as_autocast(query, key, value)
    try:
        return _dense(query, key, value, step, options), None
    except Exception:
        # Asked afterwards, for the better message: every layer of every step would pay for it.
        check_tensors(query, key, value)
        raise


def _as_autocast(*tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """What torch.autocast makes of the inputs of SDPA, which is on its list."""
    # One answer for all devices first: asking by device costs more than the rest of the guard.
    if not torch._C._is_any_autocast_enabled():
        return tensors
    device = tensors[0].device.type
    if not torch.is_autocast_enabled(device):
        return tensors
    dtype = torch.get_autocast_dtype(device)
    return tuple(t if t.dtype is torch.float64 else t.to(dtype) for t in tensors)


def _dense(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    step: dense.DenseStep,
    options: Options,
) -> torch.Tensor:
    # The mask decides, as it does for stock SDPA; some models keep the window there only.
    options.window = step.window
    keys, values, stride = dense.paged_view(key, value)
    batch = step.batch(key.shape[2], stride, key.device)
    q = dense.gather_queries(query, step)
    return dense.scatter_outputs(attend(q, keys, values, batch, options, step.plans), query, step)


def _paged(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    cache: Any,
    options: Options,
    reason: str | None,
    kwargs: dict[str, Any],
) -> torch.Tensor:
    # By cache, not by thread: the warm-up of 5.12 runs beside what is timed as a step.
    step = None if cache is None else paged.prepared(cache)
    if step is None or kwargs.get("block_table") is not None:
        reason = "the step was not prepared by this process's continuous batching"
    if step is None or reason is not None:
        raise UnsupportedFeatureError(
            f"attention 'pod' cannot serve continuous batching here: {reason}; use "
            "attn_implementation='sdpa'"
        )
    check_tensors(query, key, value)
    views = step.layout.layer(int(module.layer_idx))  # type: ignore[arg-type]
    group = step.group(views.group, query.device)
    # The cache's groups follow the layer types, so they know a layer's window best.
    options.window = views.group.window
    read = paged.store(
        *(views, group, key[0].transpose(0, 1), value[0].transpose(0, 1), kwargs["write_index"])
    )
    q = query[0].transpose(0, 1)
    out = torch.empty(q.shape, dtype=q.dtype, device=q.device)
    # Rows beyond the batch are padding of compiled steps; NaN there would spread.
    out[step.num_tokens :].zero_()
    attend(
        *(q[: step.num_tokens], read.k, read.v, group.batch, options, step.plans),
        live=step.live,
        out=out[: step.num_tokens],
    )
    return out[None]
