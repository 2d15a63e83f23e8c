"""One forward step of SGLang as a HybridBatch that all layers share."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch

from pod_integrate.devices.device_plan import DevicePlan
from pod_integrate.devices.twin_plan import TwinPlan
from pod_integrate.engines.sglang.windows import WindowStep
from pod_integrate.errors import UnsupportedFeatureError
from pod_integrate.live.captured import Captured
from pod_integrate.live.layer_group import LayerGroup, StepPlan
from pod_integrate.terms.batch import HybridBatch


class GraphLayers(NamedTuple):
    """The layers of one group in a captured decode step: what they read, and how they run."""

    plan: TwinPlan
    captured: Captured


@dataclasses.dataclass
class StepMetadata:
    """One forward step, shared by its layers; `live` is False for warm-up batches.

    layers  of a captured step, empty for others
    window  the step to layers of the window pool, where there is one
    """

    batch: HybridBatch
    live: bool
    plans: dict[LayerGroup, StepPlan] = dataclasses.field(default_factory=dict)
    layers: Mapping[LayerGroup, GraphLayers] = dataclasses.field(default_factory=dict)
    window: WindowStep | None = None

    @property
    def window_write(self) -> torch.Tensor | None:
        """Slots of the step's new tokens in the window pool."""
        return None if self.window is None else self.window.write

    def batch_of(self, group: LayerGroup) -> HybridBatch:
        """The step over the slots that a group's layers read."""
        if self.window is None or group.geometry.window_left < 0:
            return self.batch
        return self.window.batch

    def device_plan(self, group: LayerGroup, layer: int) -> DevicePlan | None:
        """What layer number `layer` of a captured step reads; None in other steps."""
        mine = self.layers.get(group)
        return None if mine is None else mine.plan.of(group.layers.index(layer))


def step_lengths(forward_batch: Any) -> tuple[list[int], list[int]]:
    """(q_lens, kv_lens) of the rows of a ForwardBatch, kv_lens with this step's tokens.

    EXTEND and MIXED look alike here, on purpose: a running request in a mixed batch is an
    extend of one token. Rows that data parallelism pads have q_len 0. Requests of a verify step
    have as many tokens each, which SGLang does not count yet.
    """
    if forward_batch.seq_lens_cpu is None:
        raise lengths_elsewhere()
    kv_lens = [int(n) for n in forward_batch.seq_lens_cpu.tolist()]
    if forward_batch.forward_mode.is_idle():
        return [0] * len(kv_lens), kv_lens
    if forward_batch.forward_mode.is_decode():
        return [1] * len(kv_lens), kv_lens
    if forward_batch.forward_mode.is_target_verify():
        tokens = int(forward_batch.spec_info.draft_token_num)
        return [tokens] * len(kv_lens), [n + tokens for n in kv_lens]
    if forward_batch.extend_seq_lens_cpu is None:
        raise lengths_elsewhere()
    q_lens = [int(n) for n in forward_batch.extend_seq_lens_cpu]
    return q_lens + [0] * (len(kv_lens) - len(q_lens)), kv_lens


def lengths_elsewhere() -> UnsupportedFeatureError:
    """Why a step whose lengths are on the device alone is not attended."""
    return UnsupportedFeatureError(
        "attention backend pod plans steps from lengths on the host, this mode keeps them on the "
        "device only; use another attention backend beside it, or drop the GPU-only-lengths flag"
    )


def hybrid_batch(forward_batch: Any, req_to_token: torch.Tensor) -> HybridBatch:
    """HybridBatch that reads SGLang's req_to_token table in place, whatever the page size.

    The table lists token slots, so every slot is a page of one token. A table of page ids would
    have to be built each step and attends no faster (benchmarks/sglang_slots.py).
    """
    q_lens, kv_lens = step_lengths(forward_batch)
    rows = forward_batch.req_pool_indices[: len(kv_lens)].to(torch.int64)
    return HybridBatch.build(
        q_lens,
        kv_lens,
        page_indices=req_to_token,
        page_starts=rows * req_to_token.stride(0),
        page_size=1,
    )


def replayed_lengths(
    batch: HybridBatch, forward_batch: Any, parts: int = 1
) -> tuple[list[int], list[int]]:
    """Lengths of a captured step without the rows that its batch size was padded with.

    parts  items of each request
    """
    q_lens, kv_lens = batch.lengths
    real = len(q_lens) - parts * int(getattr(forward_batch, "num_padding", 0))
    return q_lens[:real], kv_lens[:real]
