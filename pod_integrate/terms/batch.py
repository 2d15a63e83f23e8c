"""HybridBatch: one step's lengths and page indices, validated once and shared by all layers."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Self

import numpy as np
import torch

from pod_integrate.errors import DtypeError, PageIndexError, ShapeError
from pod_integrate.terms.keys import Bucket

_INT32_MAX = 2**31 - 1


@dataclasses.dataclass(frozen=True, eq=False)
class HybridBatch:
    """Lengths and page indices of one hybrid batch of B requests and T query tokens.

    q_indptr      int32 [B + 1] on the host; rows of request b are q_indptr[b]:q_indptr[b + 1]
    kv_lens       int32 [B] on the host, this step's tokens included
    page_indices  int32, flat, where the KV cache lives; request b's i-th page is
                  page_indices[page_starts[b] + i]
    page_starts   int64 [B], on the device of page_indices
    page_size     tokens per page

    Make one with `build`; the constructor checks nothing.
    """

    q_indptr: torch.Tensor
    kv_lens: torch.Tensor
    page_indices: torch.Tensor
    page_starts: torch.Tensor
    page_size: int

    @classmethod
    def build(
        cls,
        q_lens: Sequence[int],
        kv_lens: Sequence[int],
        *,
        page_indices: torch.Tensor,
        page_starts: torch.Tensor | Sequence[int],
        page_size: int,
    ) -> Self:
        """Check host lengths and index shapes, copy nothing but the lengths.

        q_lens, kv_lens  B host integers each, 0 <= q_len <= kv_len; requests in any order
        page_indices     int32 tensor of any shape, contiguous, read flat and in place
        page_starts      B offsets into the flat page_indices (tensor or host integers)
        page_size        tokens per page, >= 1

        Whether page_starts stay inside page_indices is checked when both are on the host (a
        device tensor would need a sync); values of page_indices are checked by the op.
        Raises ShapeError, DtypeError, PageIndexError.
        """
        q, kv = _host_lengths(q_lens, "q_lens"), _host_lengths(kv_lens, "kv_lens")
        _check_lengths(q, kv)
        if not isinstance(page_size, int | np.integer) or isinstance(page_size, bool):
            raise DtypeError(f"page_size must be an integer, got {page_size!r}")
        if not 1 <= page_size <= _INT32_MAX:
            raise ShapeError(f"page_size must be >= 1, got {page_size}, and fit int32")
        if not isinstance(page_indices, torch.Tensor):
            raise DtypeError(
                f"page_indices must be an int32 tensor, got {type(page_indices).__name__}; make "
                "one where the KV cache lives, and keep it"
            )
        if page_indices.dtype != torch.int32:
            raise DtypeError(f"page_indices must be int32, got {page_indices.dtype}; cast it once")
        if not page_indices.is_contiguous():
            raise ShapeError(
                "page_indices must be contiguous because it is read flat and in place, got strides "
                f"{page_indices.stride()} for shape {tuple(page_indices.shape)}"
            )
        starts = _starts(page_starts, page_indices.device)
        if starts.shape != (len(q),):
            raise ShapeError(f"page_starts must be [{len(q)}], got {list(starts.shape)}")
        indptr = np.zeros(len(q) + 1, dtype=np.int32)
        np.cumsum(q, out=indptr[1:])
        lengths = torch.from_numpy(kv.astype(np.int32))
        if starts.device == lengths.device:
            _check_starts(starts.numpy(), kv, page_size, page_indices.numel())
        return cls(
            q_indptr=torch.from_numpy(indptr),
            kv_lens=lengths,
            page_indices=page_indices.view(-1),
            page_starts=starts,
            page_size=int(page_size),
        )

    @property
    def num_requests(self) -> int:
        """B, requests in the batch, padding rows of q_len 0 included."""
        return int(self.kv_lens.numel())

    @functools.cached_property
    def num_tokens(self) -> int:
        """T, query tokens in the batch."""
        return int(self.q_indptr[-1])

    @functools.cached_property
    def lengths(self) -> tuple[list[int], list[int]]:
        """(q_lens, kv_lens) as host integers."""
        return torch.diff(self.q_indptr).tolist(), self.kv_lens.tolist()

    @functools.cached_property
    def bucket(self) -> Bucket:
        """The coarse class that this batch is tuned under."""
        return Bucket.of(*self.lengths)


def _host_lengths(values: Sequence[int], name: str) -> np.ndarray:
    try:
        array = np.asarray(values)
    except (TypeError, ValueError) as error:
        raise DtypeError(f"{name} must be a flat list of host integers: {error}") from error
    if array.ndim != 1:
        raise ShapeError(f"{name} must be one-dimensional, got shape {list(array.shape)}")
    if array.size and array.dtype.kind not in "iu":
        raise DtypeError(f"{name} must hold integers, got {array.dtype}")
    return array.astype(np.int64)


def _starts(values: torch.Tensor | Sequence[int], device: torch.device) -> torch.Tensor:
    if isinstance(values, torch.Tensor):
        # A cast would cut fractions off.
        if values.is_floating_point() or values.is_complex() or values.dtype == torch.bool:
            raise DtypeError(f"page_starts must hold integers, got {values.dtype}")
        return values.to(device, torch.int64)
    return torch.from_numpy(_host_lengths(values, "page_starts")).to(device)


def _check_lengths(q: np.ndarray, kv: np.ndarray) -> None:
    if q.shape != kv.shape:
        raise ShapeError(f"q_lens and kv_lens must match, got {len(q)} and {len(kv)} requests")
    if not len(q):
        return
    if int(q.min()) < 0:
        raise ShapeError(f"q_lens must be >= 0, got {int(q.min())} at request {int(q.argmin())}")
    short = np.flatnonzero(kv < q)
    if len(short):
        b = int(short[0])
        raise ShapeError(
            f"kv_len must be >= q_len because it includes this step's tokens, got q_len {q[b]} and "
            f"kv_len {kv[b]} at request {b}"
        )
    if int(q.sum()) > _INT32_MAX or int(kv.max()) > _INT32_MAX:
        raise ShapeError(f"lengths must fit int32, got {q.sum()} query tokens, kv_len {kv.max()}")


def _check_starts(starts: np.ndarray, kv: np.ndarray, page_size: int, total: int) -> None:
    pages = -(-kv // page_size)
    # Not starts + pages: that overflows where a start is huge.
    bad = np.flatnonzero((starts < 0) | (starts > total - pages))
    if len(bad):
        b = int(bad[0])
        start, end = int(starts[b]), int(starts[b]) + int(pages[b])
        raise PageIndexError(
            f"request {b} reads page_indices[{start}:{end}] (kv_len {kv[b]}, page size "
            f"{page_size}) but page_indices holds {total}; check page_starts and kv_lens"
        )
