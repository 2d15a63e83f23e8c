"""Decode steps under CUDA graphs: plans and page starts at fixed addresses, rewritten per replay.

A captured step reads three things of a batch: the words of its plan, page starts, and SGLang's
req_to_token table in place. All are on the device at addresses that never change.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch

from pod_integrate.devices.cuda.planning import LEAST_SPLIT, Capacity, plan_batch
from pod_integrate.devices.device_plan import DevicePlan
from pod_integrate.devices.graph_timer import GraphTimer
from pod_integrate.devices.registry import device_of
from pod_integrate.engines.sglang.step import replayed_lengths
from pod_integrate.errors import UnsupportedFeatureError
from pod_integrate.live.layer_group import LayerGroup
from pod_integrate.terms.batch import HybridBatch
from pod_integrate.terms.config import PodConfig
from pod_integrate.terms.keys import Geometry

logger = logging.getLogger(__name__)

# KV parts beyond one per item and KV head that a captured grid has CTAs for, in waves of the GPU:
# enough to fill it twice; a CTA without work still costs its launch.
SPARE_WAVES = 2
_MAX_SPLIT = 1 << 20


class GraphStep(NamedTuple):
    """A batch and, for each group of layers, the plan that holds it and what times its layers."""

    batch: HybridBatch
    plans: Mapping[LayerGroup, DevicePlan]
    timers: Mapping[LayerGroup, GraphTimer | None]


class DecodeGraphs:
    """What captured decode steps read, one set of plans per captured batch size.

    Captured steps run each group's default config; config tables act on the other steps.

    req_to_token  [requests, context] int32, SGLang's table of slots
    max_requests  largest batch size that will be captured
    num_sms       SMs to plan for; default all of the device
    """

    def __init__(
        self, req_to_token: torch.Tensor, max_requests: int, *, num_sms: int | None = None
    ) -> None:
        self.max_requests = max_requests
        self._req_to_token = req_to_token
        self._num_sms = device_of(req_to_token.device).key.units if num_sms is None else num_sms
        self._starts = torch.zeros(max_requests, dtype=torch.int64, device=req_to_token.device)
        self._plans: dict[int, dict[LayerGroup, DevicePlan]] = {}
        self._timers: dict[int, dict[LayerGroup, GraphTimer | None]] = {}

    def capture(self, forward_batch: Any, groups: Iterable[LayerGroup]) -> GraphStep:
        """The step to capture, with plans made for its batch size unless it has some."""
        size = int(forward_batch.batch_size)
        if size not in self._plans:
            self._plans[size] = {group: self._reserve(group, size) for group in groups}
            self._timers[size] = {g: g.graph_timer(plan) for g, plan in self._plans[size].items()}
        return self.update(forward_batch, live=False)

    def update(self, forward_batch: Any, *, live: bool = True) -> GraphStep:
        """Rewrite the plans and page starts of a captured batch size for the next replay.

        live  whether it is a step of the server's, to be traced, and no capture

        Ordered on the current stream; nothing waits for the device. Rows that SGLang pads the
        batch with are requests of one key. Raises UnsupportedFeatureError for a size that was
        not captured, or when the lengths are on the device only.
        """
        size = int(forward_batch.batch_size)
        plans = self._plans.get(size)
        if plans is None:
            raise UnsupportedFeatureError(
                f"attention backend pod has no decode graph of {size} requests, captured are "
                f"{sorted(self._plans)}; pass --disable-decode-cuda-graph or report this"
            )
        batch = self._batch(forward_batch, size)
        lengths, timers = replayed_lengths(batch, forward_batch), self._timers[size]
        for group, plan in plans.items():
            stamp = group.replay(lengths, plan.config, timers[group]) if live else 0
            split = split_tokens(batch, plan, group.geometry)
            plan.update(batch, decode_split_tokens=split, stamp=stamp)
        return GraphStep(batch, plans, timers)

    def _batch(self, forward_batch: Any, size: int) -> HybridBatch:
        if forward_batch.seq_lens_cpu is None:
            raise UnsupportedFeatureError(
                "attention backend pod plans decode steps from lengths on the host, this mode "
                "keeps them on the device only; drop the speculative or GPU-only-lengths flag"
            )
        starts = self._starts[:size]
        rows = forward_batch.req_pool_indices[:size].to(torch.int64)
        torch.mul(rows, self._req_to_token.stride(0), out=starts)
        return HybridBatch.build(
            [1] * size,
            forward_batch.seq_lens_cpu[:size].tolist(),
            page_indices=self._req_to_token,
            page_starts=starts,
            page_size=1,
        )

    def _reserve(self, group: LayerGroup, size: int) -> DevicePlan:
        context = self._req_to_token.shape[1]
        capacity = decode_capacity(group.geometry, group.default, size, context, self._num_sms)
        logger.debug("decode graph of %d requests, %s: %s", size, group.geometry, capacity)
        return DevicePlan(
            self._req_to_token.device,
            group.geometry,
            config=group.default,
            max_tokens=size,
            max_requests=size,
            capacity=capacity,
            num_sms=self._num_sms,
        )


def decode_capacity(
    geometry: Geometry, config: PodConfig, size: int, context: int, num_sms: int
) -> Capacity:
    """Room for any batch of `size` decodes of up to `context` keys.

    The config's own KV split where that needs at most SPARE_WAVES of the GPU beyond unsplit
    items; with more keys than that `split_tokens` makes the parts longer instead. At least one
    wave where shorter parts can fill it.
    """
    context, slots = max(1, context), num_sms * config.ctas_per_sm
    whole = _needs(geometry, config, [1] * size, num_sms)
    room = _at_most(
        _needs(geometry, config, [context] * size, num_sms),
        whole.decode_ctas + SPARE_WAVES * slots,
        geometry,
        config,
    )
    if config.decode_split_tokens <= LEAST_SPLIT or whole.decode_ctas > slots:
        return room
    least = dataclasses.replace(config, decode_split_tokens=LEAST_SPLIT)
    filled = _at_most(_needs(geometry, least, [context] * size, num_sms), slots, geometry, config)
    return Capacity(*map(max, room, filled))


def split_tokens(batch: HybridBatch, plan: DevicePlan, geometry: Geometry) -> int:
    """Most KV tokens of a decode item with which a batch of decodes fits its plan's capacity.

    The config's own where that fits, else the least that does; 0, no split, where none does. The
    plan goes below it for a batch that would not fill the GPU.
    """
    config = plan.config
    keys = batch.kv_lens.numpy().astype(np.int64)
    if geometry.window_left >= 0:
        keys = np.minimum(keys, geometry.window_left + 1)
    group = geometry.num_q_heads // geometry.num_kv_heads
    items = geometry.num_kv_heads * -(-group // config.decode.q_rows)
    parts = plan.capacity.decode_ctas * config.virtual_decode // items
    own = config.decode_split_tokens
    if own == 0 or int((-(-keys // own)).sum()) <= parts:
        return own
    spare = parts - len(keys)
    if spare <= 0:
        return 0
    # A request of n keys has less than n / split + 1 parts.
    split = max(own, -(-int(keys.sum()) // spare))
    split = -(-split // 16) * 16
    return split if split <= _MAX_SPLIT else 0


def _at_most(needs: Capacity, ctas: int, geometry: Geometry, config: PodConfig) -> Capacity:
    """What a decode grid of `ctas` CTAs at most can need of it."""
    rows = min(config.decode.q_rows, geometry.num_q_heads // geometry.num_kv_heads)
    ctas = min(needs.decode_ctas, ctas)
    return needs._replace(
        decode_ctas=ctas, partial_rows=min(needs.partial_rows, ctas * config.virtual_decode * rows)
    )


def _needs(geometry: Geometry, config: PodConfig, kv_lens: list[int], num_sms: int) -> Capacity:
    """Of a batch of decodes, in parts of the config's own length."""
    indptr = torch.arange(len(kv_lens) + 1, dtype=torch.int32)
    lengths = torch.tensor(kv_lens, dtype=torch.int32)
    planned = plan_batch(indptr, lengths, geometry, config, num_sms=num_sms, fill_ctas=0)
    return planned.capacity
