"""Roughly how long attention takes: where nobody has measured, and shares are all that matters.

One op after the other at the rates of `devices`, or, for a device that it does not know, at rates
per SM or core of the kind. No kernel's time: `simulate` is closer, and a thousand times slower.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from pod_integrate.devices.registry import target_of
from pod_integrate.errors import KernelUnavailableError
from pod_integrate.model.batches import visible_pairs
from pod_integrate.model.devices import DEVICES
from pod_integrate.terms.keys import ELEMENT_BYTES, DeviceKey, Geometry


class Rates(NamedTuple):
    """FLOP/s of prefill and bytes/s of decode."""

    flops: float
    bandwidth: float


class Work(NamedTuple):
    """FLOPs of prefill, bytes that decodes read, and how many decodes."""

    flops: float
    read: float
    decodes: int


_A100 = DEVICES["a100"]
_PER_UNIT = {
    "SM": Rates(_A100.kernel_flops / _A100.sms, _A100.dram_bytes * _A100.dram_share / _A100.sms),
    # A server's core with wide vectors; assumed.
    "core": Rates(60e9, 8e9),
}


def attention_us(
    q_lens: Sequence[int], kv_lens: Sequence[int], geometry: Geometry, device: DeviceKey
) -> float:
    """Microseconds of one layer's attention over a batch; above 0 unless nothing is attended."""
    rates, work = rates_of(device), work_of(q_lens, kv_lens, geometry)
    return (work.flops / rates.flops + work.read / rates.bandwidth) * 1e6


def work_of(q_lens: Sequence[int], kv_lens: Sequence[int], geometry: Geometry) -> Work:
    """Of one layer over a batch; rows of one token are decodes."""
    q, pairs = np.asarray(q_lens), visible_pairs(q_lens, kv_lens, geometry.window_left)
    # Summed in fp64: messages may name more tokens than int64 counts pairs of.
    prefill, decode = (float(pairs[rows].sum(dtype=np.float64)) for rows in (q > 1, q == 1))
    each = 2.0 * ELEMENT_BYTES.get(geometry.kv_dtype, 2) * geometry.head_dim
    return Work(
        flops=4.0 * geometry.head_dim * geometry.num_q_heads * prefill,
        read=each * geometry.num_kv_heads * decode,
        decodes=int((q == 1).sum()),
    )


@functools.lru_cache(maxsize=1024)
def rates_of(device: DeviceKey) -> Rates:
    """Of a device that the model knows by name; else per SM as an A100, or per core.

    A key that no kernel is made for counts its units as cores: messages may name any device.
    """
    for known in DEVICES.values():
        if known.key.name == device.name:
            # Prefill multiplies with wgmma where the device has it.
            flops = known.wgmma_flops or known.kernel_flops
            return Rates(flops, known.dram_bytes * known.dram_share)
    try:
        each = _PER_UNIT[target_of(device).unit]
    except KernelUnavailableError:
        each = _PER_UNIT["core"]
    return Rates(each.flops * device.units, each.bandwidth * device.units)
