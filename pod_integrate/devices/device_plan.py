"""DevicePlan: a plan at a fixed place in device memory, for CUDA graphs to replay with."""

from __future__ import annotations

import dataclasses
import functools
import operator
from collections.abc import Iterable
from typing import Self

import numpy as np
import torch

from pod_integrate.devices import registry
from pod_integrate.devices.call import PlanWords
from pod_integrate.devices.cuda.decode_rows import FEW_ROWS, is_decode
from pod_integrate.devices.cuda.planning import STAMP_WORD, Capacity, Planned, max_words, plan_batch
from pod_integrate.errors import ShapeError
from pod_integrate.terms.batch import HybridBatch
from pod_integrate.terms.config import PodConfig
from pod_integrate.terms.keys import Geometry


class DevicePlan:
    """Words of a plan in device memory, with room for any batch up to what was reserved.

    Capture `hybrid_attention(..., plan=plan)` once, then `update` and replay for every step: grid
    sizes come from the reserved capacity, everything else from the words. Page indices and starts
    of the captured call must be updated in place by the caller too. Launches with one plan must
    follow each other: some count in its words which items have been taken.

    words         int32 on the device; its address never changes
    capacity      grid sizes and split rows of every launch with this plan
    held          what a captured call reads of it
    config        the PodConfig that all batches are planned with
    max_tokens    rows that q needs, because any of them may be written
    max_requests  entries that page_starts needs
    """

    def __init__(
        self,
        device: torch.device,
        geometry: Geometry,
        *,
        config: PodConfig | None = None,
        max_tokens: int,
        max_requests: int,
        capacity: Capacity,
        num_sms: int | None = None,
        words: torch.Tensor | None = None,
    ) -> None:
        """Allocate room; `reserve` works the numbers out from batches.

        config   default default_config() of the device and geometry
        num_sms  SMs to plan for; default all of the device
        words    zeroed place to use in place of memory of its own, at least max_words long
        The variant is compiled and loaded here. Raises ConfigInfeasibleError when `config` does
        not fit the device, BuildError when it does not compile.
        """
        self.device, self.geometry, self.capacity = torch.device(device), geometry, capacity
        self.max_tokens, self.max_requests = max_tokens, max_requests
        self.config, self.num_sms = _resolve(self.device, geometry, config, num_sms)
        # All zero: an empty batch, in case that a graph is replayed before the first update.
        if words is None:
            size = max_words(capacity, self.config)
            words = torch.zeros(size, dtype=torch.int32, device=self.device)
        self.words = words
        self.held = PlanWords(self.words, tuple(capacity))
        self._batch: torch.Tensor | None = None
        self._decode_tokens: int | None = None
        if self.device.type == "cuda":
            # Compiled and loaded now: neither may happen during a capture.
            registry.device_of(self.words).attention(geometry, self.config)

    @classmethod
    def reserve(
        cls,
        batches: Iterable[HybridBatch],
        device: torch.device,
        geometry: Geometry,
        *,
        config: PodConfig | None = None,
        num_sms: int | None = None,
    ) -> Self:
        """Room for each of `batches`, and for the prefill of one beside the decodes of another.

        A smaller batch has shorter decode items only as far as this room holds their splits: name
        small batches too that should.
        Holds none of them yet. Raises ShapeError when there is no batch.
        """
        config, num_sms = _resolve(torch.device(device), geometry, config, num_sms)
        make = functools.partial(plan_batch, geometry=geometry, config=config, num_sms=num_sms)
        # Items of the config's length may need more, and smaller batches may have them.
        planned = [[make(b.q_indptr, b.kv_lens, fill_ctas=n) for n in (None, 0)] for b in batches]
        if not planned:
            raise ShapeError("DevicePlan.reserve got no batch; name the largest ones to come")
        needs = [Capacity(*map(max, *(p.capacity for p in ways))) for ways in planned]
        return cls(
            device,
            geometry,
            config=config,
            max_tokens=max(p.tokens for p, _ in planned),
            max_requests=max(p.requests for p, _ in planned),
            capacity=_room(needs),
            num_sms=num_sms,
        )

    def promise(self, decode_tokens: int) -> None:
        """Hold every batch to decodes of at most so many tokens.

        Once, before any batch and any capture: what is captured may have smaller decode tiles then.
        Raises ShapeError when it comes later.
        """
        if self._decode_tokens is not None or self._batch is not None:
            raise ShapeError(
                "promise comes once, before the first update of a plan: what was captured since "
                "may have tiles for other decodes. Make another plan"
            )
        self._decode_tokens = decode_tokens
        self.held = self.held._replace(few_rows=decode_tokens * self.geometry.group <= FEW_ROWS)

    def update(
        self, batch: HybridBatch, *, decode_split_tokens: int | None = None, stamp: int = 0
    ) -> None:
        """Replace the plan, ordered on the current stream; nothing waits for the device.

        decode_split_tokens  of this batch; default the config's. More makes a batch of many keys
                             fit a smaller grid
        stamp                row that the stamps of the next replay go to, from 1; 0: none are made

        Outside of a capture. Raises ShapeError with the numbers, and leaves the plan as it was,
        when the batch needs more than was reserved.
        """
        self.require_promised(batch)
        words = self.plan(batch, decode_split_tokens=decode_split_tokens)
        if stamp:
            words[STAMP_WORD] = stamp
        # torch keeps the page-locked source until the copy has run.
        self.words[: words.numel()].copy_(words, non_blocking=True)
        self.hold(batch)

    def plan(
        self, batch: HybridBatch, *, decode_split_tokens: int | None = None, ahead: int = 0
    ) -> torch.Tensor:
        """The words of a batch as promised, on the host; page-locked where that is faster.

        ahead  words before the plan's own that the caller fills
        Raises ShapeError when the batch needs more than was reserved.
        """
        config = self.config
        if decode_split_tokens is not None and decode_split_tokens != config.decode_split_tokens:
            config = dataclasses.replace(config, decode_split_tokens=decode_split_tokens)
        fill = min(self.num_sms * config.ctas_per_sm, self.capacity.decode_ctas)
        planned = self._plan(batch, config, fill, ahead)
        if fill and not self._holds(planned):
            # No room to merge what shorter items split: a batch that fits without them goes on.
            planned = self._plan(batch, config, 0, ahead)
        if config.max_prefill_waves and not self._holds(planned):
            # Prefill is cut more often where fewer decodes are beside it: whole it needs least.
            whole = dataclasses.replace(config, max_prefill_waves=0)
            planned = self._plan(batch, whole, 0, ahead)
        if not self._holds(planned):
            raise self._too_large(planned)
        return planned.words

    def hold(self, batch: HybridBatch) -> None:
        """Its words are now those of `batch`, whoever wrote them."""
        self._batch = batch.q_indptr

    def require_fits(
        self, q: torch.Tensor, k_cache: torch.Tensor, batch: HybridBatch, window_left: int
    ) -> None:
        """Raise ShapeError unless this plan is of `batch` and the tensors have room for any."""
        # A traced call sees stand-ins of tensors, which are nobody.
        if not torch.compiler.is_compiling() and self._batch is not batch.q_indptr:
            raise ShapeError("plan holds another batch; call plan.update(batch) first")
        g = self.geometry
        want = (g.num_q_heads, g.num_kv_heads, g.window_left)
        got = (q.shape[1], k_cache.shape[2], window_left)
        if got != want:
            raise ShapeError(
                f"plan was made for Hq, Hkv, window_left = {want}, the call has {got}; make one "
                "plan per geometry"
            )
        if q.shape[0] < self.max_tokens or batch.page_starts.numel() < self.max_requests:
            raise ShapeError(
                f"q has {q.shape[0]} rows and page_starts {batch.page_starts.numel()} entries, but "
                f"the plan may hold {self.max_tokens} tokens of {self.max_requests} requests; pad "
                "both to that"
            )

    def require_promised(self, batch: HybridBatch) -> None:
        """Raise ShapeError when a decode of the batch has more tokens than `promise` was told."""
        if self._decode_tokens is None:
            return
        tokens = np.diff(batch.q_indptr.numpy())
        most = int(tokens.max(where=is_decode(tokens, self.geometry.group), initial=0))
        if most > self._decode_tokens:
            raise ShapeError(
                f"a decode of the batch has {most} tokens, and the plan was promised at most "
                f"{self._decode_tokens}; make another one for such batches"
            )

    def _plan(self, batch: HybridBatch, config: PodConfig, fill_ctas: int, ahead: int) -> Planned:
        return plan_batch(
            batch.q_indptr,
            batch.kv_lens,
            self.geometry,
            config,
            num_sms=self.num_sms,
            fill_ctas=fill_ctas,
            ahead=ahead,
            pin=self.device.type == "cuda",
        )

    def _holds(self, planned: Planned) -> bool:
        return (
            planned.tokens <= self.max_tokens
            and planned.requests <= self.max_requests
            and all(map(operator.le, planned.capacity, self.capacity))
        )

    def _too_large(self, planned: Planned) -> ShapeError:
        limits = {"tokens": self.max_tokens, "requests": self.max_requests}
        limits |= self.capacity._asdict()
        needs = {"tokens": planned.tokens, "requests": planned.requests}
        needs |= planned.capacity._asdict()
        short = [f"{n} {needs[n]} of {limits[n]}" for n in limits if needs[n] > limits[n]]
        return ShapeError(
            f"the batch ({planned.requests} requests, {planned.tokens} tokens) needs more than "
            f"the plan has reserved: {', '.join(short)}. Reserve it with a batch this large"
        )


def _room(needs: list[Capacity]) -> Capacity:
    prefill, decode, merge, rows = (sorted(column) for column in zip(*needs, strict=True))
    # Both ops of a mixture may split their KV, each as much as the batch that it came from.
    return Capacity(prefill[-1], decode[-1], sum(merge[-2:]), sum(rows[-2:]))


def _resolve(
    device: torch.device, geometry: Geometry, config: PodConfig | None, num_sms: int | None
) -> tuple[PodConfig, int]:
    if device.type != "cuda" and config is not None and num_sms is not None:
        return config, num_sms
    here = registry.device_of(device)
    if config is None:
        config = here.default_config(geometry)
    here.require_feasible(config, geometry)
    return config, here.key.units if num_sms is None else num_sms
