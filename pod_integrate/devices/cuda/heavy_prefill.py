"""Batches whose prefill outweighs their decodes, where a config leaves the launch to the batch.

CTAs that stay and run both ops keep FlashAttention-3's rate of prefill, but beside its products
their decode reads at half of the memory's rate. Times of an H200 over 31 batches
(benchmarks/results/gpu_tiles_h200.json), with these tiles against the default's in one launch:
where prefill computes at least 95 FLOP for a byte that decodes read, 0.70 to 0.99 of the time,
prefill alone 0.67 to 0.98 but for tiny ones; all other batches 0.81 to 1.16. So it is done only on
what it was measured to pay on.
"""

from __future__ import annotations

import weakref
from typing import Any

import numpy as np
import torch

from pod_integrate.devices.cuda.limits import DECODE_ROWS, default_config, pair_tiles
from pod_integrate.devices.cuda.variants import with_tiles
from pod_integrate.terms.batch import HybridBatch
from pod_integrate.terms.config import PodConfig
from pod_integrate.terms.keys import ELEMENT_BYTES, DeviceKey, Geometry

Counts = np.ndarray[Any, np.dtype[Any]]

MEASURED_TO_PAY = frozenset({"nvidia-h200"})
HEAD_DIMS = (64, 128)
# What prefill computes for a byte that decodes read, from where they pay; and at all.
FLOP_PER_BYTE, LEAST_FLOP = 95.0, 3.3e9


def heavy_config(config: PodConfig, geometry: Geometry, device: DeviceKey) -> PodConfig | None:
    """What batches heavy in prefill run with where `config` leaves that open, None: with itself.

    Open is the default's tiles in one launch with the ratio 0:0, on a device on which it pays. A
    config whose bits are the same in any batch is not: its kernel cannot depend on the batch.
    """
    is_open = config.strategy == "fused" and (config.prefill_ctas, config.decode_ctas) == (0, 0)
    suits = geometry.head_dim in HEAD_DIMS and ELEMENT_BYTES[geometry.kv_dtype] == 2
    if not is_open or not suits or device.name not in MEASURED_TO_PAY:
        return None
    if config == config.batch_invariant():
        return None
    if with_tiles(config, default_config(device, geometry)) != config:
        return None
    return with_tiles(config, pair_tiles(geometry.head_dim))


def is_heavy(q: Counts, kv: Counts, geometry: Geometry) -> bool:
    """Whether a batch's prefill outweighs its decodes by enough; what is which is the planner's.

    q, kv  tokens and keys of each request; of different lengths, which no plan takes: not
    """
    if q.size != kv.size:
        return False
    q, kv = q.astype(np.float64), kv.astype(np.float64)
    pairs, keys = q * (kv - (q - 1) / 2), kv
    if geometry.window_left >= 0:
        seen = geometry.window_left + 1.0
        pairs, keys = np.minimum(pairs, q * seen), np.minimum(keys, seen)
    group = geometry.num_q_heads // geometry.num_kv_heads
    decodes = (q == 1) | (q * group <= DECODE_ROWS)
    # Padding, which nobody attends.
    keys = np.where(q > 0, keys, 0.0)
    flop = 4.0 * geometry.head_dim * geometry.num_q_heads * float(pairs[~decodes].sum())
    row = 2 * ELEMENT_BYTES[geometry.kv_dtype] * geometry.head_dim * geometry.num_kv_heads
    return flop >= max(LEAST_FLOP, FLOP_PER_BYTE * row * float(keys[decodes].sum()))


class Weighed:
    """is_heavy() of the last batch, which the layers of a step share."""

    def __init__(self, geometry: Geometry) -> None:
        self._geometry = geometry
        self._last: tuple[weakref.ref[torch.Tensor], weakref.ref[torch.Tensor], bool] | None = None

    def __call__(self, batch: HybridBatch) -> bool:
        """Whether it is heavy."""
        last = self._last
        if last and last[0]() is batch.q_indptr and last[1]() is batch.kv_lens:
            return last[2]
        heavy = is_heavy(np.diff(batch.q_indptr.numpy()), batch.kv_lens.numpy(), self._geometry)
        self._last = weakref.ref(batch.q_indptr), weakref.ref(batch.kv_lens), heavy
        return heavy
