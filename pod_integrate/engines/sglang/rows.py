"""Tensors of one attention call: where its keys and values go, and its output."""

from __future__ import annotations

from typing import Any

import torch
from sglang.srt.mem_cache.memory_pool import KVWriteLoc


def write_loc(forward_batch: Any, window: torch.Tensor | None) -> Any:
    """Slots of a step's new tokens, as the KV pool of this SGLang takes them.

    window  where they go in the window pool, where there is one
    """
    if window is not None:
        # SGLang narrows a padded prompt's slots to its real rows for the call of a layer.
        window = window[: forward_batch.out_cache_loc.shape[0]]
    # for_batch is new in 0.5.22; before, a batch's slots were always physical.
    if hasattr(KVWriteLoc, "for_batch"):
        return KVWriteLoc.for_batch(forward_batch, swa_loc=window)
    return KVWriteLoc(forward_batch.out_cache_loc, window)


def output_rows(forward_batch: Any, rows: torch.Tensor) -> torch.Tensor:
    """Where to attend `rows` [T, Hq, D] into: SGLang's buffer where it gives one, else a new one.

    Between the segments of a breakable prefill graph SGLang copies what is not in its buffer.
    """
    given: torch.Tensor | None = getattr(forward_batch, "_attn_output", None)
    if given is not None and given.numel() == rows.numel() and given.is_contiguous():
        return given.view(rows.shape)
    return torch.empty_like(rows, memory_format=torch.contiguous_format)


def clear_padding(out: torch.Tensor, tokens: int) -> None:
    """Zero the rows of `out` beyond a batch of so many tokens.

    They are padding of data parallelism; nobody reads them, but NaN from uninitialised memory would
    spread through later layers' statistics.
    """
    if tokens < out.shape[0]:
        out[tokens:].zero_()
