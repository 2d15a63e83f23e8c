"""Batches whose prefill outweighs their decodes, or small ones, which a config leaves to the batch.

CTAs that stay and run both ops keep FlashAttention-3's rate of prefill, but beside its products
their decode reads at half of the memory's rate. Times of an H200 over 35 batches
(benchmarks/results/gpu_tiles_h200.json), with these tiles against the default's in one launch:
where prefill computes enough for a byte that decodes read, 0.71 to 0.99 of the time, prefill alone
0.62 to 0.98 but for tiny ones; all other batches 0.98 to 1.14. So it is done only on what it was
measured to pay on.

Beside decodes that read little neither is what a batch waits for, but how soon its prefill items
are done, and two warpgroups are sooner done with one than one is
(benchmarks/results/gpu_small_h200.json, against one launch at 1:1; against what the default does
otherwise 108 of 216 batches took 0.89 of the time in an ad hoc run). At head dim 64, whose tiles
are done soon anyway, that pays where there are some and all run at once, or are long.

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


class Small(NamedTuple):
    """Beside decodes that read at most `bytes`, from where they pay.

    items    fewest of prefill
    at_once  FLOP of prefill whose items all run at once
    in_turn  FLOP of an item in the mean, of others
    """

    bytes: float
    items: int
    at_once: float
    in_turn: float


_SMALL = {
    64: Small(1.7e7, 30, 3e8, 3e7),
    96: Small(3.4e7, 1, 1e8, 3e7),
    128: Small(3.4e7, 1, 3e7, 3e7),
}
# SMs of the devices above, each of which has an item of so many packed rows at once.
_SMS, _ITEM_ROWS = 132, 128
# Over bytes: waves of all items.
_BYTES_WAVES = 2
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
    if q.size != kv.size:
        return False
    q, kv = q.astype(np.float64), kv.astype(np.float64)
    pairs, keys = q * (kv - (q - 1) / 2), kv
    if geometry.window_left >= 0:
        seen = geometry.window_left + 1.0
        pairs, keys = np.minimum(pairs, q * seen), np.minimum(keys, seen)
    decodes = is_decode(q, geometry.group)
    # Padding, which nobody attends.
    keys = np.where(q > 0, keys, 0.0)
    flop = 4.0 * geometry.head_dim * geometry.num_q_heads * float(pairs[~decodes].sum())
    kv_bytes = ELEMENT_BYTES[geometry.kv_dtype]
    is_bytes, row = kv_bytes == 1, 2 * kv_bytes * geometry.head_dim * geometry.num_kv_heads
    read = row * float(keys[decodes].sum())
    small = _SMALL[geometry.head_dim]
    if read <= small.bytes:
        items = np.ceil(q[~decodes] * geometry.group / _ITEM_ROWS).sum() * geometry.num_kv_heads
        at_once, beyond = (
            (_BYTES_WAVES * _SMS, np.inf) if is_bytes else (_SMS, small.in_turn * items)
        )
        least = small.at_once if items <= at_once else beyond
        return bool(items >= small.items and flop >= least)
    return not is_bytes and flop >= max(LEAST_FLOP, FLOP_PER_BYTE[geometry.head_dim] * read)
