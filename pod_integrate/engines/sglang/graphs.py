"""Decode and verify steps under CUDA graphs: plans and page starts at fixed addresses.

A captured step reads three things of a batch: the words of its plan and page starts, rewritten
before each replay, and SGLang's req_to_token table in place. All are on the device at addresses
that never change. Layers of even and of odd position in their group read a plan each; they differ
in steps of an experiment only.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import torch

from pod_integrate.devices.cuda.decode_rows import DECODE_ROWS
from pod_integrate.devices.registry import device_of
from pod_integrate.devices.twin_plan import TwinPlan
from pod_integrate.engines.sglang.decode_room import DecodeRoom, decode_capacity
from pod_integrate.engines.sglang.graph_tiles import CapturedConfigs, configs_to_capture
from pod_integrate.engines.sglang.speculation import verify_parts
from pod_integrate.engines.sglang.step import GraphLayers, lengths_elsewhere, replayed_lengths
from pod_integrate.errors import UnsupportedFeatureError
from pod_integrate.live import replays
from pod_integrate.live.captured import Captured, Replay, ReplayStep
from pod_integrate.live.layer_group import LayerGroup
from pod_integrate.terms.batch import HybridBatch
from pod_integrate.terms.keys import Bucket

logger = logging.getLogger(__name__)

_Layers = Mapping[LayerGroup, GraphLayers]


class GraphStep(NamedTuple):
    """A batch, what the layers of each group read of it, and the bucket of its own rows."""

    batch: HybridBatch
    layers: _Layers
    bucket: Bucket


class DecodeGraphs:
    """What captured decode steps read, one set of plans per captured batch size.

    The config table acts on them as far as a plan can: an entry with the captured tiles, whose
    KV split the captured grid has room for, runs in its bucket. Others wait for the next capture.
    Verify steps, of several tokens each, run the default config and are not traced.

    req_to_token  [requests, context] int32, SGLang's table of slots
    max_requests  largest batch size that will be captured
    tokens        of each request
    num_sms       SMs to plan for; default all of the device
    """

    def __init__(
        self,
        req_to_token: torch.Tensor,
        max_requests: int,
        *,
        tokens: int = 1,
        num_sms: int | None = None,
    ) -> None:
        self._req_to_token = req_to_token
        self._num_sms = device_of(req_to_token.device).key.units if num_sms is None else num_sms
        self._tokens, self._parts = tokens, [1]
        self._starts = torch.empty(0)
        self._captured: dict[int, _Layers] = {}
        # Captured since `renew`, and what graphs of before read, which may not be dropped yet.
        self._fresh: set[int] = set()
        self._replaced: list[object] = []
        self.renew(max_requests)

    def renew(self, max_requests: int) -> None:
        """Sizes up to `max_requests` are about to be captured, again or for the first time.

        What was captured keeps its plans until it is captured again, with new ones: the table may
        have other tiles for it by then.
        """
        self._replaced = []
        self._fresh = set()
        # A token each at most.
        starts = max_requests * self._tokens
        if starts > self._starts.numel():
            self._replaced.append(self._starts)
            place = self._req_to_token.device
            self._starts = torch.zeros(starts, dtype=torch.int64, device=place)

    def capture(self, forward_batch: Any, groups: Iterable[LayerGroup]) -> GraphStep:
        """The step to capture, with plans made for its batch size once after `renew`.

        Graphs of one size that differ elsewhere, such as in adapters, share them.
        """
        size = int(forward_batch.batch_size)
        if size not in self._fresh:
            self._fresh.add(size)
            self._replaced.append(self._captured.get(size))
            groups = tuple(groups)
            self._parts = _parts(self._tokens, groups)
            self._captured[size] = {group: self._reserve(group, size) for group in groups}
        return self.update(forward_batch, live=False)

    def update(self, forward_batch: Any, *, live: bool = True) -> GraphStep:
        """Rewrite the plans and page starts of a captured batch size for the next replay.

        live  whether it is a step of the server's, to be traced, and no capture

        Ordered on the current stream; nothing waits for the device. Rows that SGLang pads the
        batch with are requests of one key. Raises UnsupportedFeatureError for a size that was
        not captured, or when the lengths are on the device only.
        """
        size = int(forward_batch.batch_size)
        layers = self._captured.get(size)
        if layers is None:
            raise UnsupportedFeatureError(
                f"attention backend pod has no decode graph of {size} requests, captured are "
                f"{sorted(self._captured)}; pass --disable-decode-cuda-graph or report this"
            )
        batch = self._batch(forward_batch, size)
        lengths = replayed_lengths(batch, forward_batch, len(self._parts))
        step = ReplayStep(lengths, Bucket.of(*lengths))
        traced = live and self._tokens == 1
        for group, mine in layers.items():
            _rewrite(mine, batch, group, step if traced else None)
        return GraphStep(batch, layers, step.bucket)

    def is_wrong(self, size: int) -> bool:
        """Whether the graph that runs a batch of `size` launches tiles that gave wrong answers.

        Not where they are the default's, which run eagerly too.
        """
        found = self._captured.get(size)
        if found is None:
            larger = [captured for captured in self._captured if captured > size]
            found = self._captured[min(larger)] if larger else {}
        return any(group.is_wrong(layers.captured) for group, layers in found.items())

    def _batch(self, forward_batch: Any, size: int) -> HybridBatch:
        if forward_batch.seq_lens_cpu is None:
            raise lengths_elsewhere()
        # Items of one request are requests here: their keys begin alike and end at their own.
        parts, kv_lens = len(self._parts), forward_batch.seq_lens_cpu[:size]
        if self._tokens > 1:
            # SGLang counts a verify step's tokens once they are accepted.
            ends = torch.tensor(self._parts).cumsum(0)
            kv_lens = (kv_lens[:, None] + ends).view(-1)
        starts = self._starts[: size * parts]
        rows = forward_batch.req_pool_indices[:size, None].expand(size, parts).to(torch.int64)
        torch.mul(rows, self._req_to_token.stride(0), out=starts.view(size, parts))
        return HybridBatch.build(
            self._parts * size,
            kv_lens.tolist(),
            page_indices=self._req_to_token,
            page_starts=starts,
            page_size=1,
        )

    def _reserve(self, group: LayerGroup, size: int) -> GraphLayers:
        context = self._req_to_token.shape[1]
        base, tuned = CapturedConfigs(group.readiness.default, [])
        if self._tokens == 1:
            base, tuned = configs_to_capture(group, size)
        capacity = decode_capacity(
            group.geometry, [base.config, *tuned], size, context, self._num_sms, self._parts
        )
        logger.debug("decode graph of %d requests, %s: %s", size, group.geometry, capacity)
        plan = TwinPlan(
            self._req_to_token.device,
            group.geometry,
            config=base.config,
            max_tokens=size * self._tokens,
            max_requests=size * len(self._parts),
            capacity=capacity,
            num_sms=self._num_sms,
        )
        plan.promise(decode_tokens=max(self._parts))
        timer = group.graph_timer(plan.first) if self._tokens == 1 else None
        return GraphLayers(plan, Captured(base, timer))


def _parts(tokens: int, groups: Iterable[LayerGroup]) -> list[int]:
    """Items of a request that are decodes to every group."""
    found = [verify_parts(tokens, each.geometry.group, DECODE_ROWS) for each in groups]
    # The narrowest; without a group, of any width.
    return max(found or [[1]], key=len)


def _rewrite(
    layers: GraphLayers, batch: HybridBatch, group: LayerGroup, step: ReplayStep | None
) -> None:
    """Write a group's plans of a batch, as its next replay, a live `step` or none, runs it."""
    plan, captured = layers
    room = DecodeRoom(batch, plan.capacity, plan.config, group.geometry)
    replay = Replay(plan.config)
    if step is not None:
        replay = replays.replay(group, step, captured, room.holds)
    first = room.longest(replay.config.decode_split_tokens)
    second = replay.second
    other = None if second is None else room.longest(second.decode_split_tokens)
    plan.update(batch, first, other, stamp=replay.stamp)
