"""Random hybrid batches over a paged cache whose unused slots hold NaN (or any other filler)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch

from pod_integrate.terms.batch import HybridBatch
from pod_integrate.terms.geometry import TORCH_DTYPES
from pod_integrate.terms.keys import Geometry


class Case(NamedTuple):
    """Inputs of one call: q [T, Hq, D], k_cache and v_cache [P, S, Hkv, D], batch."""

    q: torch.Tensor
    k_cache: torch.Tensor
    v_cache: torch.Tensor
    batch: HybridBatch


def dequantised(case: Case, *, k_scale: float = 1.0, v_scale: float = 1.0) -> Case:
    """With what a quantised cache stands for, in float64, in its place; others as they are."""
    keys, values = (
        cache.double() * scale if cache.itemsize == 1 else cache
        for cache, scale in ((case.k_cache, k_scale), (case.v_cache, v_scale))
    )
    return case._replace(k_cache=keys, v_cache=values)


def make_batch(
    q_lens: Sequence[int],
    kv_lens: Sequence[int],
    *,
    geometry: Geometry,
    seed: int,
    fill_unused: float = math.nan,
    spare_pages: int = 3,
    row_starts: bool = False,
    strided: bool = False,
    device: torch.device | None = None,
) -> Case:
    """Unit-normal q, k, v of `geometry` in randomly ordered pages.

    fill_unused  value of every slot that no request owns, page tails included
    spare_pages  pages that no request owns, placed anywhere
    row_starts   page_indices is [B, width] with a padded row per request, as a server keeps it;
                 else one ragged list
    strided      heads outside of slots in memory and padded q rows: only D is contiguous
    device       where values are drawn and tensors live; default the CPU. Equal seeds give equal
                 values on one device only
    """
    device = device or torch.device("cpu")
    generator = torch.Generator().manual_seed(seed)
    same = device == generator.device
    values = generator if same else torch.Generator(device).manual_seed(seed)
    size, pages = geometry.page_size, [-(-n // geometry.page_size) for n in kv_lens]
    total = sum(pages) + spare_pages
    order = torch.randperm(total, generator=generator, dtype=torch.int32)
    indices, starts = _indices(pages, order, row_starts)
    indices = indices.to(device)
    batch = HybridBatch.build(
        q_lens, kv_lens, page_indices=indices, page_starts=starts, page_size=size
    )
    owned = torch.zeros(total, size, dtype=torch.bool, device=device)
    for start, count, kv_len in zip(starts, pages, kv_lens, strict=True):
        slots = torch.arange(count * size, device=device).view(count, size) < kv_len
        owned[indices.view(-1)[start : start + count].long()] = slots
    dtype, kv_dtype = TORCH_DTYPES[geometry.dtype], TORCH_DTYPES[geometry.kv_dtype]
    shape = (total, size, geometry.num_kv_heads, geometry.head_dim)
    caches = []
    for _ in range(2):
        cache = torch.randn(shape, generator=values, device=device)
        cache[~owned] = fill_unused
        caches.append(_spread(cache.to(kv_dtype)) if strided else cache.to(kv_dtype))
    q_shape = (sum(q_lens), geometry.num_q_heads, geometry.head_dim)
    q = torch.randn(q_shape, generator=values, device=device).to(dtype)
    if strided:
        q = torch.cat([q, torch.full_like(q, fill_unused)], dim=1)[:, : geometry.num_q_heads]
    return Case(q, caches[0], caches[1], batch)


def _indices(
    pages: list[int], order: torch.Tensor, row_starts: bool
) -> tuple[torch.Tensor, list[int]]:
    if not row_starts:
        starts = [sum(pages[:b]) for b in range(len(pages))]
        return order[: sum(pages)].contiguous(), starts
    width = max(pages, default=0) + 2
    # An index far outside of the cache: reading a row's padding is an error, not a wrong answer.
    rows = torch.full((len(pages), width), 2**31 - 1, dtype=torch.int32)
    used = 0
    for b, count in enumerate(pages):
        rows[b, :count] = order[used : used + count]
        used += count
    return rows, [b * width for b in range(len(pages))]


def _spread(cache: torch.Tensor) -> torch.Tensor:
    """The same values as [P, S, Hkv, D] over memory laid out [Hkv, P, S, D]."""
    return cache.permute(2, 0, 1, 3).contiguous().permute(1, 2, 0, 3)
