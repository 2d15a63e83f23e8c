"""Roughly how long a stock engine's attention takes: SGLang on `fa3`, fitted to steps it served.

prefill  at the rate of the best published kernel
alone    decodes of a step without prefill. Once requests x KV heads fill most SMs, each pair is one
         CTA's, whole: what is left for the last round runs on a few SMs, at what an SM draws
beside   decodes in the launch of a prefill, whose tiles have few rows of theirs

Of the steps recorded in benchmarks/results/gpu_serving.json: `python -m benchmarks.step_fit`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from pod_integrate.model.devices import Device
from pod_integrate.model.estimate import work_of
from pod_integrate.terms.keys import Geometry

# Of SMs: fewer pairs than that are split.
_FULL = 0.8


class Shares(NamedTuple):
    """Of the data sheet's bandwidth, by decodes alone and beside prefill.

    tail  most that one SM draws, over its even share of what all of them do
    """

    alone: float = 0.88
    beside: float = 0.66
    tail: float = 2.0


FITTED = Shares()


def stock_us(
    q_lens: Sequence[int], kv_lens: Sequence[int], geometry: Geometry, device: Device,
    shares: Shares = FITTED,
) -> float:  # fmt: skip
    """Microseconds of one layer's attention over a batch; rows of one token are decodes."""
    work = work_of(q_lens, kv_lens, geometry)
    prefill = work.flops / device.best_flops * 1e6
    if not work.decodes:
        return prefill
    if work.flops:
        return prefill + work.read / (device.dram_bytes * shares.beside) * 1e6
    return _alone_us(work.read, work.decodes * geometry.num_kv_heads, device, shares)


def _alone_us(read: float, pairs: int, device: Device, shares: Shares) -> float:
    rate = device.dram_bytes * shares.alone
    rounds, left = divmod(pairs, device.sms)
    if not left or pairs < _FULL * device.sms:
        return read / rate * 1e6
    each = read / pairs
    last = min(rate, left * shares.tail * rate / device.sms)
    return (rounds * device.sms * each / rate + left * each / last) * 1e6
