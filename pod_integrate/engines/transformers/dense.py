"""Attention over the contiguous caches of generate(): DynamicCache, StaticCache, sliding layers.

Keys of row b are slots of a [B, Hkv, S, D] tensor; each slot is read in place as a page of one
token, so that padding on the left is skipped and the geometry does not change as the cache grows.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import torch

from pod_integrate.engines.transformers.upload import upload
from pod_integrate.errors import ShapeError
from pod_integrate.live.layer_group import StepPlan
from pod_integrate.terms.batch import HybridBatch
from pod_integrate.terms.geometry import Numbers

_TAG = "_pod_step"
_BITS = 32
_WIDEST = 2**31 - 1


@dataclasses.dataclass(eq=False)
class DenseStep:
    """One forward over a contiguous cache, shared by the layers that see the same mask.

    starts    first valid slot of each row
    end       one past the last valid slot, the same for all rows
    q_length  query tokens of each row, padding included
    window    sliding window in tokens, None: none
    """

    starts: list[int]
    end: int
    q_length: int
    window: int | None = None
    plans: dict[Numbers, StepPlan] = dataclasses.field(default_factory=dict)
    _batches: dict[Any, HybridBatch] = dataclasses.field(default_factory=dict)
    _rows: torch.Tensor | None = None

    @property
    def q_lens(self) -> list[int]:
        """Query tokens of each row that are no padding."""
        return [min(self.q_length, self.end - start) for start in self.starts]

    def is_plain(self, slots: int) -> bool:
        """Whether nothing but causality hides any of `slots` keys from any row."""
        whole = self.end == slots and not any(self.starts)
        unlimited = self.window is None or self.window >= slots
        return whole and unlimited and self.q_length in (1, slots)

    def query_rows(self, device: torch.device) -> torch.Tensor | None:
        """Indices of the real query tokens in [B * T]; None when none is padding."""
        q_lens = self.q_lens
        if sum(q_lens) == len(q_lens) * self.q_length:
            return None
        if self._rows is None:
            ends = np.arange(1, len(q_lens) + 1) * self.q_length
            rows = [np.arange(end - n, end) for end, n in zip(ends, q_lens, strict=True)]
            self._rows = torch.from_numpy(np.concatenate(rows)).to(device)
        return self._rows

    def batch(self, slots: int, row_stride: int, device: torch.device) -> HybridBatch:
        """HybridBatch over `slots` slots a row; row b's slot s is page b * row_stride + s."""
        key = (slots, row_stride, device)
        if key not in self._batches:
            rows = torch.arange(len(self.starts), device=device, dtype=torch.int32)
            table = rows[:, None] * row_stride + torch.arange(
                slots, device=device, dtype=torch.int32
            )
            self._batches[key] = HybridBatch.build(
                self.q_lens,
                [self.end - start for start in self.starts],
                page_indices=table,
                page_starts=upload(
                    [b * slots + start for b, start in enumerate(self.starts)], device
                ),
                page_size=1,
            )
        return self._batches[key]


def validity(step: DenseStep, slots: int, device: torch.device | str) -> torch.Tensor:
    """Mask [B, slots] of a step: which slots of each row are tokens.

    With a window [B, slots + 64]: its bits, and their opposites, follow. Some models say their
    window nowhere else, and a copy of the mask, on another device, has no tag.
    """
    places = torch.arange(slots, device=device)[None]
    starts = torch.tensor(step.starts, device=device)[:, None]
    valid = (places >= starts) & (places < step.end)
    if step.window is None:
        return valid
    bits = (min(step.window, _WIDEST) >> torch.arange(_BITS, device=device)) % 2 == 1
    return torch.cat((valid, torch.cat((bits, ~bits)).expand(len(valid), -1)), dim=1)


def parted(mask: torch.Tensor, slots: int) -> tuple[torch.Tensor, int | None]:
    """A mask as `validity` makes them: that of its slots, and its window if it brings one."""
    if mask.shape[1] != slots + 2 * _BITS or not len(mask):
        return mask, None
    bits, opposites = mask[0, slots:].bool().cpu().numpy().reshape(2, _BITS)
    if (bits == opposites).any():
        return mask, None
    window = int(bits @ (1 << np.arange(_BITS)))
    # A run of 32 tokens at either end is no window: it would see nothing, or more than there is.
    return (mask[:, :slots], window) if 1 <= window <= _WIDEST else (mask, None)


def tag(mask: torch.Tensor, step: DenseStep) -> torch.Tensor:
    """Attach the step to the mask that transformers hands to every layer."""
    setattr(mask, _TAG, step)
    return mask


def tagged(mask: torch.Tensor | None) -> DenseStep | None:
    """The step that `tag` attached; None for a mask that is not ours, or was copied since."""
    return getattr(mask, _TAG, None)


def step_of(
    mask: torch.Tensor | None, query: torch.Tensor, key: torch.Tensor, window: int | None
) -> DenseStep | None:
    """The step of a layer that gets this mask; None when the mask is more than left padding.

    `window` is the layer's own, for a mask that says none.
    """
    step = tagged(mask)
    if step is None:
        step = _untagged(mask, query, key, window)
    if step is None:
        return None
    rows, _, slots, _ = key.shape
    # A layer may have cut or repeated what the mask was made for.
    fits = len(step.starts) == rows and step.end <= slots and step.q_length == query.shape[2]
    return step if fits else None


def _untagged(
    mask: torch.Tensor | None, query: torch.Tensor, key: torch.Tensor, window: int | None
) -> DenseStep | None:
    rows, slots = key.shape[0], key.shape[2]
    if mask is None:
        return DenseStep([0] * rows, slots, query.shape[2], window)
    mask, found = parted(mask, slots)
    window = window if found is None else found
    if mask.shape != (rows, slots):
        return None
    valid = mask.bool().cpu().numpy()
    seen = valid.any(axis=0)
    end = int(np.flatnonzero(seen)[-1]) + 1 if seen.any() else slots
    starts = np.where(valid.any(axis=1), valid.argmax(axis=1), end)
    places = np.arange(slots)[None]
    if (valid != ((places >= starts[:, None]) & (places < end))).any():
        return None
    return DenseStep([int(start) for start in starts], end, query.shape[2], window)


def paged_view(key: torch.Tensor, value: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, int]:
    """K and V [B, Hkv, S, D] as [pages, 1, Hkv, D] without a copy, and the pages between rows.

    Pages overlap: page b * stride + s is slot s of row b, whatever lies between is never named.
    """
    if key.shape != value.shape:
        raise ShapeError(f"keys are {list(key.shape)}, values {list(value.shape)}; cut them alike")
    if not _viewable(key) or key.stride() != value.stride():
        key, value = key.contiguous(), value.contiguous()
    batch, heads, slots, dim = key.shape
    row, head, slot, _ = key.stride()
    stride = row // slot if batch > 1 else slots
    shape = ((batch - 1) * stride + slots, 1, heads, dim)
    strides = (slot, slot, head, 1)
    return key.as_strided(shape, strides), value.as_strided(shape, strides), stride


def _viewable(key: torch.Tensor) -> bool:
    row, _, slot, unit = key.stride()
    return unit == 1 and slot > 0 and (key.shape[0] == 1 or row % slot == 0)


def gather_queries(query: torch.Tensor, step: DenseStep) -> torch.Tensor:
    """Real query tokens [T, Hq, D] of [B, Hq, T, D]."""
    rows = query.transpose(1, 2).reshape(-1, query.shape[1], query.shape[3])
    index = step.query_rows(query.device)
    return rows if index is None else rows[index]


def scatter_outputs(out: torch.Tensor, query: torch.Tensor, step: DenseStep) -> torch.Tensor:
    """Inverse of `gather_queries`, as [B, T, Hq, D]; padding tokens get 0."""
    batch, heads, length, dim = query.shape
    index = step.query_rows(query.device)
    if index is not None:
        full = out.new_zeros(batch * length, heads, dim)
        full[index] = out
        out = full
    return out.view(batch, length, heads, dim)
