"""Batches whose prefill outweighs their decodes, or small ones, which a config leaves to the batch.

CTAs that stay and run both ops keep FlashAttention-3's rate of prefill, but beside its products
their decode reads at half of the memory's rate. Times of an H200 over 35 batches
(benchmarks/results/gpu_tiles_h200.json), with these tiles against the default's in one launch:
where prefill computes enough for a byte that decodes read, 0.71 to 0.99 of the time, prefill alone
0.62 to 0.98 but for tiny ones; all other batches 0.98 to 1.14. So it is done only on what it was
measured to pay on.

Beside decodes that read little neither is what a batch waits for, but how soon its prefill items
are done, and two warpgroups are sooner done with one than one is. Over 916 batches
(benchmarks/results/gpu_small_h200.json) such CTAs took 0.91 of the time of the default's where
decodes read at most FEW_BYTES, 0.99 where they read more, and what is chosen here is within 1.5 %
of the quicker of both in the mean of each head dim. What loses is a second wave of short items,
which the default's two CTAs of an SM run at once.

Over a cache of 8 bits such CTAs run one op after the other, at no higher rate. There they pay in
small batches of head dim 128 alone. In ad hoc runs of both in turns, five prefills with at most two
waves of items took 0.81 to 0.94 of the time, two longer ones 1.01 and 1.02, two hybrid batches of
short contexts 0.93 and 0.95.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from pod_integrate.devices.cuda.decode_rows import Counts, is_decode
from pod_integrate.devices.cuda.limits import default_config, pair_tiles
from pod_integrate.devices.cuda.variants import with_tiles
from pod_integrate.terms.config import PodConfig
from pod_integrate.terms.keys import ELEMENT_BYTES, DeviceKey, Geometry

MEASURED_TO_PAY = frozenset({"nvidia-h200"})
# What prefill computes for a byte that decodes read, from where they pay; and at all. Below head
# dim 128 twice the keys of a decode tile find room beside prefill.
FLOP_PER_BYTE, LEAST_FLOP = {64: 35.0, 96: 55.0, 128: 95.0}, 3.3e9
# Beside decodes that read at most so many bytes, by head dim, they pay for prefill of any weight,
# but for what follows; the least that was tried computed so much.
FEW_BYTES, _LEAST_TRIED = {64: 1.4e8, 96: 3e8, 128: 7e7}, 8e6
# SMs of the devices above, each of which has an item of so many packed rows at once.
_SMS, _ITEM_ROWS = 132, 128
# Not for very short items past two waves, unless these outweigh the decodes. FLOP of one in the
# mean, here and below.
_TWO_WAVES, _VERY_SHORT = 2, 5e6
# Where decodes read very few bytes, not for short items past so many waves, whatever they weigh:
# nothing covers for the pair's last wave, and the default's two CTAs of an SM are done with both.
_VERY_FEW_BYTES = {64: 2.5e7, 96: 3.4e7, 128: 3.4e7}
_FULL_WAVES, _SHORT = 1.43, {64: 2e7, 96: 3e7, 128: 3e7}
# Up to two waves the default's CTAs run all of them at once, so that longer ones count as short.
_SHORT_IN_TWO = {64: 2e7, 96: 4e7, 128: 4e7}
# Nor at head dim 64 for very short ones alone, or fewer than so many.
_FEW_ITEMS = {64: 30, 96: 0, 128: 0}


class OverBytes(NamedTuple):
    """Where they pay over a cache of 8 bits: decodes' bytes, waves of items, FLOP in all."""

    most_read: float
    most_waves: int
    least_flop: float


_OVER_BYTES = OverBytes(3.4e7, 2, 3e7)
# By bytes of an element of K and V.
_DIMS = {1: (128,), 2: tuple(FLOP_PER_BYTE)}


def heavy_config(config: PodConfig, geometry: Geometry, device: DeviceKey) -> PodConfig | None:
    """What batches heavy in prefill run with where `config` leaves that open, None: with itself.

    Open is the default's tiles in one launch with the ratio 0:0, on a device on which it pays. A
    config whose bits are the same in any batch is not: its kernel cannot depend on the batch.
    """
    is_open = config.strategy == "fused" and (config.prefill_ctas, config.decode_ctas) == (0, 0)
    kv_bytes = ELEMENT_BYTES[geometry.kv_dtype]
    suits = geometry.head_dim in _DIMS.get(kv_bytes, ())
    if not is_open or not suits or device.name not in MEASURED_TO_PAY:
        return None
    if config.is_batch_invariant:
        return None
    if with_tiles(config, default_config(device, geometry)) != config:
        return None
    return with_tiles(config, pair_tiles(geometry.head_dim, kv_bytes))


def is_heavy(q: Counts, kv: Counts, geometry: Geometry) -> bool:
    """Whether prefill outweighs decodes by enough, or these are few; what is which: the planner's.

    q, kv  tokens and keys of each request; of different lengths, which no plan takes: not
    """
    kv_bytes = ELEMENT_BYTES[geometry.kv_dtype]
    if q.size != kv.size or geometry.head_dim not in _DIMS.get(kv_bytes, ()):
        return False
    work = _work(q.astype(np.float64), kv.astype(np.float64), geometry)
    if kv_bytes == 1:
        return _pays_over_bytes(work)
    dim = geometry.head_dim
    outweighs = work.flop >= max(LEAST_FLOP, FLOP_PER_BYTE[dim] * work.read)
    if work.flop < _LEAST_TRIED or work.read > FEW_BYTES[dim]:
        return outweighs
    if work.read > _VERY_FEW_BYTES[dim]:
        return work.waves <= _TWO_WAVES or work.each >= _VERY_SHORT or outweighs
    return _pays_beside_very_few(work, dim)


class _Work(NamedTuple):
    """FLOP of prefill, bytes that decodes read, items of prefill."""

    flop: float
    read: float
    items: int

    @property
    def each(self) -> float:
        return self.flop / self.items

    @property
    def waves(self) -> float:
        return self.items / _SMS


def _work(q: Counts, kv: Counts, geometry: Geometry) -> _Work:
    pairs, keys = q * (kv - (q - 1) / 2), kv
    if geometry.window_left >= 0:
        seen = geometry.window_left + 1.0
        pairs, keys = np.minimum(pairs, q * seen), np.minimum(keys, seen)
    decodes = is_decode(q, geometry.group)
    # Padding, which nobody attends.
    keys = np.where(q > 0, keys, 0.0)
    row = 2 * ELEMENT_BYTES[geometry.kv_dtype] * geometry.head_dim * geometry.num_kv_heads
    blocks = np.ceil(q[~decodes] * geometry.group / _ITEM_ROWS)
    return _Work(
        4.0 * geometry.head_dim * geometry.num_q_heads * float(pairs[~decodes].sum()),
        row * float(keys[decodes].sum()),
        int(blocks.sum()) * geometry.num_kv_heads,
    )


def _pays_over_bytes(work: _Work) -> bool:
    few = work.read <= _OVER_BYTES.most_read and 0 < work.waves <= _OVER_BYTES.most_waves
    return few and work.flop >= _OVER_BYTES.least_flop


def _pays_beside_very_few(work: _Work, head_dim: int) -> bool:
    few_items = _FEW_ITEMS[head_dim]
    is_little = work.items < few_items or (few_items > 0 and work.read == 0)
    if is_little and work.each < _VERY_SHORT:
        return False
    short = _SHORT_IN_TWO if work.waves <= _TWO_WAVES else _SHORT
    return work.waves <= _FULL_WAVES or work.each >= short[head_dim]
