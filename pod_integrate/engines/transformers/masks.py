"""The mask function `pod`: which slots of a contiguous cache each row sees, as [B, S] validity.

Everything that is not causal attention with padding on the left becomes the 4-D mask of stock
SDPA; the attention function then hands the layer to stock attention.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch

from pod_integrate.engines.transformers import paged
from pod_integrate.engines.transformers.dense import DenseStep, tag, tagged, validity
from pod_integrate.engines.transformers.stock import transformed

# How transformers' own causal and sliding-window masks are built; an unknown part is never ours.
_CAUSAL = "causal_mask_function"
_WINDOW = "sliding_window_overlay.<locals>.inner_mask"


@torch.compiler.disable  # type: ignore[untyped-decorator]
def pod_mask(
    batch_size: int,
    q_length: int,
    kv_length: int,
    q_offset: Any = 0,
    kv_offset: Any = 0,
    mask_function: Callable[..., Any] | None = None,
    attention_mask: torch.Tensor | None = None,
    local_size: int | None = None,
    device: torch.device | str = "cpu",
    **kwargs: Any,
) -> torch.Tensor | None:
    """Validity (see dense) tagged with its DenseStep, a 4-D mask, or None when paged.

    Arguments are those of transformers' AttentionMaskInterface. Reads lengths on the host: with a
    mask or a StaticCache on a GPU that waits for the device once a step, as stock SDPA does.
    """
    if paged.current() is not None:
        # Continuous batching brings lengths and page tables of its own.
        return None
    if tagged(attention_mask) is not None:
        # generate() makes the masks of a StaticCache itself and hands them to the model.
        return attention_mask
    parts = set(_parts(mask_function)) if mask_function is not None else {_CAUSAL}
    served = parts == {_CAUSAL} or (parts == {_CAUSAL, _WINDOW} and local_size is not None)
    # Under a transform nothing can be read on the host, and the layers go to stock attention.
    if served and transformed() is None:
        end = int(q_offset) + q_length - int(kv_offset)
        starts = _starts(attention_mask, batch_size, int(kv_offset), end)
        if starts is not None and end <= kv_length:
            window = local_size if _WINDOW in parts else None
            step = DenseStep(starts, end, q_length, window)
            return tag(validity(step, kv_length, device), step)
    return _stock_mask(
        batch_size=batch_size,
        q_length=q_length,
        kv_length=kv_length,
        q_offset=q_offset,
        kv_offset=kv_offset,
        mask_function=mask_function,
        attention_mask=attention_mask,
        local_size=local_size,
        device=device,
        **{**kwargs, "allow_is_causal_skip": False, "allow_is_bidirectional_skip": False},
    )


def _stock_mask(**kwargs: Any) -> torch.Tensor | None:
    from transformers import masking_utils

    if kwargs["mask_function"] is None:
        kwargs["mask_function"] = masking_utils.causal_mask_function
    mask: torch.Tensor | None = masking_utils.sdpa_mask(**kwargs)
    return mask


def _parts(function: Callable[..., Any]) -> Iterator[str]:
    """Names of the functions whose conjunction `function` is."""
    name = getattr(function, "__qualname__", "")
    cells: Any = getattr(function, "__closure__", None) or ()
    if name != "and_masks.<locals>.and_mask" or len(cells) != 1:
        yield name
        return
    for part in cells[0].cell_contents:
        yield from _parts(part)


def _starts(
    mask: torch.Tensor | None, batch_size: int, kv_offset: int, end: int
) -> list[int] | None:
    """First valid slot of each row; None unless all padding is on the left."""
    if mask is None:
        return [0] * batch_size
    slots = np.asarray(mask[:, kv_offset : kv_offset + end].bool().cpu())
    if slots.shape[1] != end:
        return None
    counts = slots.sum(axis=1)
    starts = end - counts
    if (slots != (np.arange(end)[None] >= starts[:, None])).any():
        return None
    return [int(start) for start in starts]
