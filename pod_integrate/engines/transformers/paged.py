"""Continuous batching: one step of upstream's scheduler as HybridBatches that read its cache.

Lengths and block tables are taken on the host when the step is prepared. Full-attention layers
and decodes of sliding-window layers read the cache in place; see `ring` for the rest.
"""

from __future__ import annotations

import contextlib
import threading
import weakref
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch

from pod_integrate.engines.transformers.layouts import (
    CacheGroup,
    CacheLayout,
    LayerViews,
    layout_of,
)
from pod_integrate.engines.transformers.ring import RingGather, RingRows, RingStep
from pod_integrate.engines.transformers.upload import upload
from pod_integrate.live.layer_group import StepPlan
from pod_integrate.terms.batch import HybridBatch
from pod_integrate.terms.geometry import Numbers

# Ids that upstream gives to the requests of its warm-up.
_WARMUP = "__warmup_"


class GroupStep(NamedTuple):
    """One step of one cache group, shared by its layers.

    batch   lengths and pages that the layers attend
    writes  where new K/V rows go; None: upstream's write_index is right
    gather  rows to copy together first, because a ring buffer cannot be read in place; else None
    """

    batch: HybridBatch
    writes: RingRows | None
    gather: RingGather | None


class PagedStep:
    """One forward of continuous batching: who is in it, in order, and how far each one is.

    live  False for upstream's warm-up, which leaves no trace
    """

    def __init__(self, cache: Any, requests: list[tuple[str, int, int]]) -> None:
        """`requests`: (id, tokens in the cache before this step, tokens of this step)."""
        self.layout: CacheLayout = layout_of(cache)
        self.ids = [name for name, _, _ in requests]
        self.past = [past for _, past, _ in requests]
        self.q_lens = [length for _, _, length in requests]
        self.kv_lens = [p + q for p, q in zip(self.past, self.q_lens, strict=True)]
        self.num_tokens = sum(self.q_lens)
        self.live = not all(name.startswith(_WARMUP) for name in self.ids)
        self.plans: dict[Numbers, StepPlan] = {}
        self._groups: dict[int, GroupStep] = {}

    def group(self, group: CacheGroup, device: torch.device) -> GroupStep:
        """Batch and indices of one cache group, made at its first layer."""
        step = self._groups.get(group.index)
        if step is None:
            make = self._full if group.window is None else self._sliding
            step = self._groups[group.index] = make(group, device)
        return step

    def _full(self, group: CacheGroup, device: torch.device) -> GroupStep:
        return GroupStep(self._in_place(group, self.kv_lens, device), None, None)

    def _sliding(self, group: CacheGroup, device: torch.device) -> GroupStep:
        assert group.window is not None
        tables = [group.blocks[name] for name in self.ids]
        ring = RingStep(group, group.window, tables, self.past, self.q_lens)
        writes = RingRows.of_new(ring, device)
        if ring.readable_in_place:
            kv_lens = [min(n, group.window) for n in self.kv_lens]
            return GroupStep(self._in_place(group, kv_lens, device), writes, None)
        gather = RingGather.of(ring, device)
        return GroupStep(gather.batch, writes, gather)

    def _in_place(self, group: CacheGroup, kv_lens: list[int], device: torch.device) -> HybridBatch:
        pages: list[int] = []
        starts: list[int] = []
        for name, kv_len in zip(self.ids, kv_lens, strict=True):
            starts.append(len(pages))
            used = group.blocks[name][: -(-kv_len // group.page_size)]
            pages.extend(block * group.page_stride for block in used)
        return HybridBatch.build(
            self.q_lens,
            kv_lens,
            page_indices=upload(pages, device, torch.int32),
            page_starts=upload(starts, device),
            page_size=group.page_size,
        )


class PagedKeys(NamedTuple):
    """K and V that the op reads, [P, S, Hkv, D] each, after the new rows are stored."""

    k: torch.Tensor
    v: torch.Tensor


def store(
    views: LayerViews, step: GroupStep, key: torch.Tensor, value: torch.Tensor, write_index: Any
) -> PagedKeys:
    """Write a layer's new K/V [T, Hkv, D] into the cache and name what to read."""
    read = PagedKeys(views.k_pages, views.v_pages)
    if step.gather is not None:
        # Before the write: new tokens overwrite the oldest ones that this step still sees.
        read = PagedKeys(step.gather.join(views.k_rows, key), step.gather.join(views.v_rows, value))
    if step.writes is None:
        rows = write_index[views.group.index]
    else:
        rows, key, value = step.writes.select(key, value)
    views.k_rows.index_copy_(0, rows, key)
    views.v_rows.index_copy_(0, rows, value)
    return read


_prepared: weakref.WeakKeyDictionary[Any, PagedStep] = weakref.WeakKeyDictionary()
_running = threading.local()


def prepare(cache: Any, requests: list[tuple[str, int, int]]) -> None:
    """Note the step that upstream is about to run on this cache."""
    _prepared[cache] = PagedStep(cache, requests)


def forget(cache: Any) -> None:
    """The next step of this cache is not ours: its model has been switched to other attention."""
    _prepared.pop(cache, None)


def prepared(cache: Any) -> PagedStep | None:
    """The step that this cache was prepared for; None when it was not by us."""
    return _prepared.get(cache)


@contextlib.contextmanager
def running(cache: Any) -> Iterator[PagedStep | None]:
    """Make the prepared step of a cache the current one of this thread."""
    before = current()
    _running.step = prepared(cache)
    try:
        yield _running.step
    finally:
        _running.step = before


def current() -> PagedStep | None:
    """The step that this thread's forward belongs to; None outside of continuous batching."""
    return getattr(_running, "step", None)
