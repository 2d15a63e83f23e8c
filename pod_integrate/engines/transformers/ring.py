"""Sliding-window groups of upstream's paged cache: a ring, position p of a request in slot p % W.

The rows are worked out here rather than taken from upstream, whose first versions misplace the
rows of chunks that are longer than the window.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import NamedTuple, Self

import torch

from pod_integrate.engines.transformers.layouts import CacheGroup
from pod_integrate.engines.transformers.upload import upload
from pod_integrate.terms.batch import HybridBatch


class RingStep(NamedTuple):
    """The requests of a step in a group with a window, each with its block table.

    past    tokens of each before this step
    q_lens  new tokens of each
    """

    group: CacheGroup
    window: int
    tables: list[list[int]]
    past: list[int]
    q_lens: list[int]

    @property
    def readable_in_place(self) -> bool:
        """Whether after the write the ring holds, at most, what each row of the step sees.

        A decode sees the whole ring, in any order. A chunk needs order and rows of its own: it can
        be read while nothing has wrapped around.
        """
        lengths = zip(self.past, self.q_lens, strict=True)
        return all(q == 1 or past + q <= self.window for past, q in lengths)

    def requests(self) -> Iterator[tuple[list[int], int, int]]:
        """(block table, tokens before, new tokens) of each request."""
        return zip(self.tables, self.past, self.q_lens, strict=True)

    def rows(self, blocks: list[int], positions: range) -> list[int]:
        """Cache rows of these positions of one request."""
        size, stride = self.group.page_size, self.group.page_stride
        slots = (position % self.window for position in positions)
        return [blocks[s // size] * stride * size + s % size for s in slots]


@dataclasses.dataclass(frozen=True, eq=False)
class RingRows:
    """Cache rows of a step's new tokens; those that no later row can see are left out.

    kept  indices of the stored ones among the step's tokens; None: all of them
    """

    rows: torch.Tensor
    kept: torch.Tensor | None

    @classmethod
    def of_new(cls, step: RingStep, device: torch.device) -> Self:
        """Rows of the last `window` new tokens of each request."""
        rows: list[int] = []
        kept: list[int] = []
        first = 0
        for blocks, start, length in step.requests():
            skipped = max(0, length - step.window)
            rows += step.rows(blocks, range(start + skipped, start + length))
            kept += range(first + skipped, first + length)
            first += length
        return cls(
            upload(rows, device),
            upload(kept, device) if len(kept) < first else None,
        )

    def select(
        self, key: torch.Tensor, value: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """(cache rows, K, V) to store."""
        if self.kept is not None:
            return self.rows, key[self.kept], value[self.kept]
        # Rows beyond are padding of compiled steps.
        return self.rows, key[: self.rows.numel()], value[: self.rows.numel()]


@dataclasses.dataclass(frozen=True, eq=False)
class RingGather:
    """Old rows of the ring and new rows, laid side by side: at most window - 1 + chunk a request.

    batch    the step over the joined rows, as pages of one token
    old      cache rows to copy; old_at: where to
    new_at   where the step's new rows go
    """

    batch: HybridBatch
    old: torch.Tensor
    old_at: torch.Tensor
    new_at: torch.Tensor

    @classmethod
    def of(cls, step: RingStep, device: torch.device) -> Self:
        """Indices of one step, shared by the layers of the group."""
        old: list[int] = []
        old_at: list[int] = []
        new_at: list[int] = []
        starts: list[int] = []
        total = 0
        for blocks, start, length in step.requests():
            seen = min(start, step.window - 1)
            starts.append(total)
            old += step.rows(blocks, range(start - seen, start))
            old_at += range(total, total + seen)
            new_at += range(total + seen, total + seen + length)
            total += seen + length
        ends = [*starts[1:], total]
        batch = HybridBatch.build(
            step.q_lens,
            [end - start for start, end in zip(starts, ends, strict=True)],
            page_indices=torch.arange(total, dtype=torch.int32, device=device),
            page_starts=upload(starts, device),
            page_size=1,
        )
        return cls(batch, *(upload(index, device) for index in (old, old_at, new_at)))

    def join(self, rows: torch.Tensor, new: torch.Tensor) -> torch.Tensor:
        """Old and new rows of one layer's K or V, [N, 1, Hkv, D]."""
        joined = new.new_empty(self.old.numel() + self.new_at.numel(), 1, *new.shape[1:])
        joined[self.old_at, 0] = rows[self.old]
        joined[self.new_at, 0] = new[: self.new_at.numel()]
        return joined
