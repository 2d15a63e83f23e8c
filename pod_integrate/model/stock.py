"""Roughly how long a stock engine's attention takes: SGLang on `fa3`, fitted to steps it served.

prefill  at a share of the rate of the best published kernel
alone    decodes of a step without prefill. Once requests x KV heads fill most SMs, each pair is one
         CTA's, whole: what is left for the last round runs on a few SMs, at what an SM draws
beside   decodes in the launch of a prefill: each pair is one CTA's there too, and the last one runs
         when the prefill is done

Keys of 8 bits are read at half the bytes per second, so decodes gain nothing from them, while
products of 8 bits are faster. Fitted with dense.STEP_US as it is, which steps of shallower models
show, to the steps recorded in benchmarks/results/gpu_serving.json:
`python -m benchmarks.step_fit`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from pod_integrate.model.devices import Device
from pod_integrate.model.estimate import Work, work_of
from pod_integrate.terms.keys import ELEMENT_BYTES, Geometry

# Of SMs: fewer pairs than that are split.
_FULL = 0.8


class Shares(NamedTuple):
    """Of the data sheet's bandwidth, by decodes alone and beside prefill (more than 1: hidden).

    tail     most that one SM draws, over its even share of what all of them do
    last     what the last CTA draws that decodes beside a prefill, over an SM's even share of the
             data sheet's bandwidth
    prefill  of the rate of the best published kernel
    """

    alone: float = 0.88
    beside: float = 0.93
    tail: float = 2.0
    last: float = 1.6
    prefill: float = 0.86


FITTED = Shares()
# By keys of 8 bits.
FITTED_NARROW = Shares(alone=0.44, beside=0.56, last=1.8, prefill=1.37)


def fitted(geometry: Geometry) -> Shares:
    """Of a cache's dtype."""
    return FITTED_NARROW if ELEMENT_BYTES[geometry.kv_dtype] == 1 else FITTED


def stock_us(
    q_lens: Sequence[int], kv_lens: Sequence[int], geometry: Geometry, device: Device,
    shares: Shares | None = None,
) -> float:  # fmt: skip
    """Microseconds of one layer's attention over a batch; rows of one token are decodes.

    shares  None: those of the cache's dtype
    """
    shares = fitted(geometry) if shares is None else shares
    return work_us(work_of(q_lens, kv_lens, geometry), geometry.num_kv_heads, device, shares)


def work_us(work: Work, kv_heads: int, device: Device, shares: Shares) -> float:
    """As stock_us, of what there is to do."""
    prefill = work.flops / (device.best_flops * shares.prefill) * 1e6
    if not work.decodes:
        return prefill
    pairs = work.decodes * kv_heads
    if not work.flops:
        return _alone_us(work.read, pairs, device, shares)
    last = work.read / pairs / (device.dram_bytes / device.sms * shares.last)
    return prefill + (work.read / (device.dram_bytes * shares.beside) + last) * 1e6


def _alone_us(read: float, pairs: int, device: Device, shares: Shares) -> float:
    rate = device.dram_bytes * shares.alone
    rounds, left = divmod(pairs, device.sms)
    if not left or pairs < _FULL * device.sms:
        return read / rate * 1e6
    each = read / pairs
    last = min(rate, left * shares.tail * rate / device.sms)
    return (rounds * device.sms * each / rate + left * each / last) * 1e6
