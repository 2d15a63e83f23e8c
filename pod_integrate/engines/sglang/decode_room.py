"""Room of a captured decode step: how many parts of KV its grid holds, fixed at capture."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch

from pod_integrate.devices.cuda import host_facts
from pod_integrate.devices.cuda.planning import LEAST_SPLIT, Capacity, plan_batch
from pod_integrate.terms.batch import HybridBatch
from pod_integrate.terms.config import PodConfig
from pod_integrate.terms.keys import Geometry

# KV parts beyond one per item and KV head that a captured grid has CTAs for, in waves of the GPU:
# enough to fill it twice; a CTA without work still costs its launch.
SPARE_WAVES = 2
Counts = np.ndarray[Any, np.dtype[Any]]
_MAX_SPLIT = 1 << 20


def decode_capacity(
    geometry: Geometry,
    configs: Iterable[PodConfig],
    size: int,
    context: int,
    num_sms: int,
    parts: Sequence[int] = (1,),
) -> Capacity:
    """Room for any batch of `size` requests of up to `context` keys, in configs of the same tiles.

    parts  query tokens of each decode item of a request

    A config's own KV split where that needs at most SPARE_WAVES of the GPU beyond unsplit
    items; with more keys than that `DecodeRoom.longest` makes the parts longer instead. At least
    one wave where shorter parts can fill it, and one beyond unsplit items where a batch that is
    split can have shares of it instead.
    """
    q_lens = [*parts] * size
    rooms = [_capacity(geometry, config, q_lens, max(1, context), num_sms) for config in configs]
    return Capacity(*map(max, zip(*rooms, strict=True)))


def _capacity(
    geometry: Geometry, config: PodConfig, q_lens: list[int], context: int, num_sms: int
) -> Capacity:
    slots = num_sms * config.ctas_per_sm
    whole = _needs(geometry, config, q_lens, 1, num_sms)

    def room(config: PodConfig, ctas: int) -> Capacity:
        needs = _needs(geometry, config, q_lens, _enough(config, context, ctas, whole), num_sms)
        return _at_most(needs, ctas, geometry, config, max(q_lens))

    own = room(config, whole.decode_ctas + SPARE_WAVES * slots)
    if config.decode_split_tokens <= LEAST_SPLIT:
        return own
    finest = dataclasses.replace(config, decode_split_tokens=LEAST_SPLIT)
    if own.decode_ctas > max(slots, whole.decode_ctas):
        return Capacity(*map(max, own, room(finest, whole.decode_ctas + slots)))
    if whole.decode_ctas > slots:
        return own
    filled = room(finest, slots)
    return Capacity(*map(max, own, filled))


def _enough(config: PodConfig, context: int, ctas: int, whole: Capacity) -> int:
    """Keys of each request that need as much of `ctas` CTAs as `context` keys do.

    whole  of the same requests unsplit

    More would be planned for nothing: beyond twice the parts that these CTAs hold, twice because a
    request's items differ in rows, needs are cut to the CTAs.
    """
    if config.decode_split_tokens == 0:
        return context
    items = (whole.decode_ctas - 1) * config.virtual_decode + 1
    parts = 2 * -(-ctas * config.virtual_decode // items) + 2
    return min(context, parts * config.decode_split_tokens)


class DecodeRoom:
    """How one batch of decode items may be cut within a captured grid.

    config  whose tiles it launches
    """

    def __init__(
        self, batch: HybridBatch, capacity: Capacity, config: PodConfig, geometry: Geometry
    ) -> None:
        keys = batch.kv_lens.numpy().astype(np.int64)
        tokens = np.diff(batch.q_indptr.numpy()).astype(np.int64)
        if geometry.window_left >= 0:
            keys = np.minimum(keys, geometry.window_left + tokens)
        self._keys, self._capacity = keys, capacity
        # Of each request in one KV head, and the items that they are, unsplit.
        self._rows = tokens * geometry.group
        self._items = np.maximum(1, -(-self._rows // config.decode.q_rows))
        self._heads = geometry.num_kv_heads
        # Rows of an item that are merged together.
        self._tile = min(config.decode.q_rows, host_facts.facts().merge_rows)
        self._room = capacity.decode_ctas * config.virtual_decode // self._heads

    def longest(self, own: int) -> int:
        """Most KV tokens of a decode item with which the batch fits, for a config that has `own`.

        `own` where that fits, else the least that does; 0, no split, where none does. The plan
        goes below it for a batch that would not fill the GPU, above it for shares of one.
        """
        if own == 0 or self._needs(-(-self._keys // own)) <= self._room:
            return own
        spare = self._room - int(self._items.sum())
        if spare <= 0:
            return 0
        # An item of n keys has less than n / split + 1 parts.
        split = max(own, -(-self._needs(self._keys) // spare))
        split = -(-split // 16) * 16
        return split if split <= _MAX_SPLIT else 0

    def holds(self, split: int) -> bool:
        """Whether the batch fits in parts of `split` keys, which the capture need not have had."""
        if split == 0:
            return int(self._items.sum()) <= self._room
        parts = -(-self._keys // split)
        cut, of_each = parts[parts > 1], self._rows[parts > 1]
        rows = int((cut * of_each).sum()) * self._heads
        blocks = int((-(-of_each // self._tile)).sum()) * self._heads
        room = self._capacity
        fits = rows <= room.partial_rows and blocks <= room.merge_ctas
        return fits and self._needs(parts) <= self._room

    def _needs(self, of_each: Counts) -> int:
        """Items of a KV head, when each item of a request counts as many."""
        return int((self._items * of_each).sum())


def _at_most(
    needs: Capacity, ctas: int, geometry: Geometry, config: PodConfig, tokens: int
) -> Capacity:
    """What a decode grid of `ctas` CTAs at most can need of it, for items of up to `tokens`."""
    rows = min(config.decode.q_rows, tokens * geometry.group)
    ctas = min(needs.decode_ctas, ctas)
    return needs._replace(
        decode_ctas=ctas, partial_rows=min(needs.partial_rows, ctas * config.virtual_decode * rows)
    )


def _needs(
    geometry: Geometry, config: PodConfig, q_lens: list[int], context: int, num_sms: int
) -> Capacity:
    """Of a batch of decodes of `context` keys, in parts of the config's own length."""
    tokens = torch.tensor([0, *q_lens], dtype=torch.int32)
    indptr = torch.cumsum(tokens, 0, dtype=torch.int32)
    lengths = tokens[1:].clamp(min=context)
    planned = plan_batch(indptr, lengths, geometry, config, num_sms=num_sms, fill_ctas=0)
    return planned.capacity
