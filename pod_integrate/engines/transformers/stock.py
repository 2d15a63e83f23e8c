"""Layers that POD passes to transformers' own attention: same answer, with one warning per reason.

Nothing here computes attention.
"""

from __future__ import annotations

import logging
import sys
from typing import Any

import torch
from torch.autograd import forward_ad

from pod_integrate.engines.transformers.dense import DenseStep, parted, step_of
from pod_integrate.errors import UnsupportedFeatureError

logger = logging.getLogger(__name__)

_warned: set[str] = set()

BEYOND_PADDING = "the mask is more than causal with padding on the left"
# Arguments that change the scores: SDPA lacks all of these, some eager functions have them.
_NEED_EAGER = ("softcap", "s_aux", "sinks")


def warn_once(reason: str) -> None:
    """Log a reason at its first occurrence in the process."""
    if reason not in _warned:
        _warned.add(reason)
        logger.warning(
            "attention 'pod' passes layers to stock attention: %s (logged once per reason)", reason
        )


def transformed() -> str | None:
    """What watches tensors in a way that the op knows nothing of; None when nothing does."""
    if torch._C._functorch.peek_interpreter_stack() is not None:
        return "a torch.func transform (grad, vmap, jvp) is on; the op has no rule for it"
    if forward_ad._current_level >= 0:
        return "forward-mode derivatives are on; the op has none"
    if torch._C._get_tracing_state() is not None:
        return "torch.jit.trace would keep the lengths of this one call"
    return None


def reason_for_stock(
    module: torch.nn.Module,
    inputs: tuple[torch.Tensor | None, ...],
    dropout: float,
    is_causal: bool,
    arguments: dict[str, Any],
) -> str | None:
    """Why this call of the attention function is not POD's; None when it is.

    `inputs` are all tensors that stock attention differentiates: q, k, v, mask and sinks.
    """
    if torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in inputs):
        return "gradients are on; the op is for inference, use torch.no_grad() or generate()"
    if (watched := transformed()) is not None:
        return watched
    if dropout:
        return f"dropout {dropout:g} in training mode; call model.eval()"
    if arguments.get("output_attentions"):
        return "output_attentions=True needs the weights, which the op never forms"
    if not is_causal:
        return f"{type(module).__name__} is not causal"
    query, _, _, mask, sinks = inputs
    if mask is not None and mask.dim() != 2:
        return BEYOND_PADDING
    one_per_head = sinks is None or query is None or sinks.numel() == query.shape[1]
    if not one_per_head or arguments.get("sinks") is not None:
        return f"{type(module).__name__} has sinks that are not one for each head"
    return None


def stock_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    is_causal: bool,
    arguments: dict[str, Any],
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """SDPA, or the model's own eager function where SDPA lacks what the layer asks for."""
    # Not every eager function takes the arguments that a layer leaves at None.
    kwargs = {name: value for name, value in arguments.items() if value is not None}
    needs_eager = kwargs.get("output_attentions") or any(name in kwargs for name in _NEED_EAGER)
    mask = attention_mask
    if mask.dim() == 2 if mask is not None else is_causal:
        window = kwargs.get("sliding_window")
        mask = _four_dims(query, key, mask, window, skip_plain=not needs_eager)
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
    query: torch.Tensor,
    key: torch.Tensor,
    mask: torch.Tensor | None,
    window: int | None,
    *,
    skip_plain: bool,
) -> torch.Tensor | None:
    """A causal layer's [B, S] validity, or none, as the mask [B, 1, T, S] of stock attention.

    None where `skip_plain` lets stock attention's own causal flag say the same.
    """
    step = step_of(mask, query, key, window)
    length, slots = query.shape[2], key.shape[2]
    if mask is not None:
        mask, found = parted(mask, slots)
        window = window if found is None else found
    if step is None:
        step = DenseStep([0] * key.shape[0], slots, length, window)
    elif skip_plain and step.is_plain(slots):
        return None
    rows = torch.arange(step.end - length, step.end, device=query.device)[:, None]
    columns = torch.arange(slots, device=query.device)[None]
    seen = columns <= rows
    if step.window is not None:
        seen = seen & (columns > rows - step.window)
    if mask is None:
        return seen[None, None]
    return (seen[None] & mask[:, None].bool())[:, None]
