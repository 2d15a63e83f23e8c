"""Layers that POD passes to transformers' own attention: same answer, with one warning per reason.

Nothing here computes attention.
"""

from __future__ import annotations

import logging
import sys
from typing import Any

import torch

from pod_integrate.errors import UnsupportedFeatureError

logger = logging.getLogger(__name__)

_warned: set[str] = set()


def warn_once(reason: str) -> None:
    """Log a reason at its first occurrence in the process."""
    if reason not in _warned:
        _warned.add(reason)
        logger.warning(
            "attention 'pod' passes layers to stock attention: %s (logged once per reason)", reason
        )


def reason_for_stock(
    module: torch.nn.Module,
    query: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float,
    is_causal: bool,
    output_attentions: bool,
) -> str | None:
    """Why this call of the attention function is not POD's; None when it is."""
    if torch.is_grad_enabled() and query.requires_grad:
        return "gradients are on; the op is for inference, use torch.no_grad() or generate()"
    if dropout:
        return f"dropout {dropout:g} in training mode; call model.eval()"
    if output_attentions:
        return "output_attentions=True needs the weights, which the op never forms"
    if not is_causal:
        return f"{type(module).__name__} is not causal"
    if attention_mask is not None and attention_mask.dim() != 2:
        return "the mask is more than causal with padding on the left"
    return None


def stock_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    arguments: dict[str, Any],
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """SDPA, or the model's own eager function where SDPA lacks what the layer asks for."""
    # Not every eager function takes the arguments that a layer leaves at None.
    kwargs = {name: value for name, value in arguments.items() if value is not None}
    mask = _four_dims(query, key, attention_mask, kwargs)
    needs_eager = kwargs.get("output_attentions") or "softcap" in kwargs or "s_aux" in kwargs
    if not needs_eager:
        from transformers.integrations.sdpa_attention import sdpa_attention_forward

        out, weights = sdpa_attention_forward(module, query, key, value, mask, **kwargs)
        return out, weights
    eager = getattr(sys.modules[type(module).__module__], "eager_attention_forward", None)
    if eager is None:
        raise UnsupportedFeatureError(
            f"{type(module).__name__} asks for output_attentions, a logit cap or sinks, which SDPA "
            "lacks, and brings no eager attention; load the model with attn_implementation='eager'"
        )
    if mask is not None and mask.dtype == torch.bool:
        lowest = torch.finfo(query.dtype).min
        mask = torch.where(mask, 0.0, lowest).to(query.dtype)
    out, weights = eager(module, query, key, value, mask, **kwargs)
    return out, weights


def _four_dims(
    query: torch.Tensor, key: torch.Tensor, mask: torch.Tensor | None, kwargs: dict[str, Any]
) -> torch.Tensor | None:
    """Our own [B, S] validity as the mask [B, 1, T, S] that stock attention takes."""
    if mask is None or mask.dim() != 2:
        return mask
    from pod_integrate.engines.transformers.dense import tagged

    step = tagged(mask)
    length, slots = query.shape[2], key.shape[2]
    end = slots if step is None else step.end
    rows = torch.arange(end - length, end, device=mask.device)[:, None]
    columns = torch.arange(slots, device=mask.device)[None]
    seen = columns <= rows
    window = kwargs.get("sliding_window") if step is None else step.window
    if window is not None:
        seen = seen & (columns > rows - window)
    return (seen[None] & mask[:, None].bool())[:, None]
