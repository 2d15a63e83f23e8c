"""Plans of the CUDA path: a batch cut into items, as the int32 words that the kernels read."""

from __future__ import annotations

import threading
from typing import NamedTuple

import numpy as np
import torch

from pod_integrate.builds import native
from pod_integrate.devices.cuda import host_facts
from pod_integrate.terms.config import LEAST_SPLIT as LEAST_SPLIT
from pod_integrate.terms.config import PodConfig, pack_config
from pod_integrate.terms.keys import ELEMENT_BYTES, Geometry

_FIRST_WORDS = 1 << 14
# Places in PlanHeader: constants, since every captured step writes there. Offsets are those of the
# first prefill item, decode item and merge block, in words from the header.
HEADER_WORDS, OFFSET_WORDS, STAMP_WORD = 16, slice(5, 8), 10


class Capacity(NamedTuple):
    """Grid sizes of a call's launches, and rows that its KV splits write."""

    prefill_ctas: int
    decode_ctas: int
    merge_ctas: int
    partial_rows: int


def max_words(capacity: Capacity, config: PodConfig) -> int:
    """Words of the longest plan within a capacity."""
    facts = host_facts.facts()
    header, item, merge = map(host_facts.words_of, (facts.header, facts.item, facts.merge))
    items = capacity.prefill_ctas + capacity.decode_ctas * config.virtual_decode
    return header + item * items + merge * capacity.merge_ctas


class Planned(NamedTuple):
    """One batch's plan on the host, and what it needs of a launch."""

    words: torch.Tensor
    capacity: Capacity
    tokens: int
    requests: int


class _Scratch(threading.local):
    """A thread's buffer, grown to the largest plan it has made."""

    def __init__(self) -> None:
        self.grow(_FIRST_WORDS)

    def grow(self, words: int) -> None:
        self.words = torch.empty(words, dtype=torch.int32)
        # The same memory: a copy costs half of what torch's does.
        self.array: np.ndarray[tuple[int], np.dtype[np.int32]] = self.words.numpy()


_scratch = _Scratch()


def plan_batch(
    q_indptr: torch.Tensor,
    kv_lens: torch.Tensor,
    geometry: Geometry,
    config: PodConfig,
    *,
    num_sms: int,
    fill_ctas: int | None = None,
    ahead: int = 0,
    pin: bool = False,
) -> Planned:
    """Plan a batch for a GPU of `num_sms` SMs.

    q_indptr, kv_lens  as in HybridBatch
    fill_ctas          most decode CTAs that a batch too small for the GPU is given by parts shorter
                       than config.decode_split_tokens, and that others have a share of each of;
                       default num_sms x ctas_per_sm, 0 keeps the config's length
    ahead              words before the plan's own that the caller fills
    pin                put the words into page-locked memory, from where they are copied to a GPU
                       without a wait
    Raises ShapeError for lengths that contradict each other.
    """
    packed = pack_config(config)
    fill = num_sms * config.ctas_per_sm if fill_ctas is None else fill_ctas
    g = geometry
    heads = (g.num_q_heads, g.num_kv_heads, g.head_dim, ELEMENT_BYTES[g.kv_dtype], g.window_left)
    plan = native.load("host").plan
    count, *needs = plan(q_indptr, kv_lens, *heads, packed, num_sms, fill, _scratch.words)
    if count > _scratch.words.numel():
        # Twice the need: a batch that grows step by step should not plan twice each time.
        _scratch.grow(2 * count)
        count, *needs = plan(q_indptr, kv_lens, *heads, packed, num_sms, fill, _scratch.words)
    words = torch.empty(ahead + count, dtype=torch.int32, pin_memory=pin)
    words.numpy()[ahead:] = _scratch.array[:count]
    return Planned(words, Capacity(*needs), int(q_indptr[-1]), kv_lens.numel())
