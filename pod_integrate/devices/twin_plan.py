"""TwinPlan: two plans at fixed places in device memory that one upload writes.

Layers of a captured graph read one or the other, so that one replay can hold two plans of a batch.
Mostly both are alike, and then the second costs a header: headers count offsets from themselves, so
that one may point into the other plan. In device memory:

    second header | first header | first items ... | second items ..., where they are others
"""

from __future__ import annotations

from typing import Any

import torch

from pod_integrate.devices.cuda.planning import (
    HEADER_WORDS,
    OFFSET_WORDS,
    STAMP_WORD,
    Capacity,
    max_words,
)
from pod_integrate.devices.device_plan import DevicePlan
from pod_integrate.terms.batch import HybridBatch
from pod_integrate.terms.config import PodConfig
from pod_integrate.terms.keys import Geometry


class TwinPlan:
    """A first and a second DevicePlan of one config, for batches of decodes.

    Arguments as of DevicePlan; `update` is called here, never on one of the two.
    """

    def __init__(
        self,
        device: torch.device,
        geometry: Geometry,
        *,
        config: PodConfig,
        max_tokens: int,
        max_requests: int,
        capacity: Capacity,
        num_sms: int,
    ) -> None:
        size = 2 * max_words(capacity, config)
        self._words = torch.zeros(size, dtype=torch.int32, device=device)
        self.first, self.second = (
            DevicePlan(
                device,
                geometry,
                config=config,
                max_tokens=max_tokens,
                max_requests=max_requests,
                capacity=capacity,
                num_sms=num_sms,
                words=words,
            )
            for words in (self._words[HEADER_WORDS:], self._words)
        )

    def promise(self, decode_tokens: int) -> None:
        """As DevicePlan.promise, of both."""
        for plan in (self.first, self.second):
            plan.promise(decode_tokens)

    @property
    def config(self) -> PodConfig:
        """Whose tiles and, unless `update` is told another, whose split both are planned with."""
        return self.first.config

    @property
    def capacity(self) -> Capacity:
        """Grid sizes and split rows of every launch with one of the two."""
        return self.first.capacity

    def of(self, position: int) -> DevicePlan:
        """What the layer at `position` reads: the first plan where that is even."""
        return self.second if position % 2 else self.first

    def update(
        self, batch: HybridBatch, split: int, second: int | None = None, *, stamp: int = 0
    ) -> None:
        """Replace both plans, ordered on the current stream; nothing waits for the device.

        split, second  decode_split_tokens of the first and second plan; default as the first
        stamp          as of DevicePlan.update

        Raises as DevicePlan.update.
        """
        self.first.require_promised(batch)
        words = self.first.plan(batch, decode_split_tokens=split, ahead=HEADER_WORDS)
        array: Any = words.numpy()
        if second is None or second == split:
            array[:HEADER_WORDS] = array[HEADER_WORDS : 2 * HEADER_WORDS]
            moved = HEADER_WORDS
        else:
            others = self.second.plan(batch, decode_split_tokens=second)
            array[:HEADER_WORDS] = others[:HEADER_WORDS]
            # Its items follow the first plan in place of its own header.
            moved = len(array) - HEADER_WORDS
            words = _joined(words, others[HEADER_WORDS:])
            array = words.numpy()
        array[OFFSET_WORDS] += moved
        if stamp:
            array[STAMP_WORD] = array[HEADER_WORDS + STAMP_WORD] = stamp
        # torch keeps the page-locked source until the copy has run.
        self._words[: len(array)].copy_(words, non_blocking=True)
        self.first.hold(batch)
        self.second.hold(batch)


def _joined(words: torch.Tensor, more: torch.Tensor) -> torch.Tensor:
    size = words.numel() + more.numel()
    joined = torch.empty(size, dtype=torch.int32, pin_memory=words.is_pinned())
    return torch.cat((words, more), out=joined)
