"""The CUDA path of the op: plan, workspace and streams of one call.

A batch is planned and uploaded once per geometry, config and stream (`uploads`), however many
layers share it, and what does not change between calls is looked up once: a layer pays each line.
Nothing waits for the device: memory comes from torch's caching allocator, so it is safe on any
stream and inside graph captures.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

import torch
import tvm_ffi

from pod_integrate.builds import native
from pod_integrate.devices.call import Attention, Call
from pod_integrate.devices.cuda.batch_tiles import Kind, Weighed
from pod_integrate.devices.cuda.kernel_library import KernelLibrary
from pod_integrate.devices.cuda.planning import Capacity
from pod_integrate.devices.cuda.runtime import Runtime
from pod_integrate.devices.cuda.side_by_side import runs_beside
from pod_integrate.devices.cuda.uploads import Plans, Room, Uploaded
from pod_integrate.errors import ShapeError, UnsupportedFeatureError
from pod_integrate.terms.config import STRATEGIES, PodConfig
from pod_integrate.terms.keys import Geometry

_STREAMS = STRATEGIES.index("streams")
# %smid may have gaps: an SM beyond the last slot is served, but shares a counter.
_MIN_SM_SLOTS = 256


class Chosen(NamedTuple):
    """What runs one geometry with one config on one device.

    may_run_beside  as of side_by_side
    others          runs batches of a kind, as of batch_tiles; kinds that are missing: as any other
    """

    library: KernelLibrary
    config: PodConfig
    geometry: Geometry
    num_sms: int
    may_run_beside: bool = False
    others: Mapping[Kind, Attention] = MappingProxyType({})

    @property
    def sm_slots(self) -> int:
        """Ticket counters of a launch."""
        return max(_MIN_SM_SLOTS, 2 * self.num_sms)


class CudaAttention(Attention):
    """Launches one compiled variant on the current stream."""

    def __init__(self, chosen: Chosen, runtime: Runtime) -> None:
        super().__init__(chosen.geometry, chosen.config)
        self.library, self.num_sms = chosen.library, chosen.num_sms
        host = native.load("host")
        self._attend, self._workspace_size = host.attend, host.workspace_size
        self._addresses = (chosen.library.launch, chosen.library.error)
        self._sm_slots, self._head_dim = chosen.sm_slots, chosen.geometry.head_dim
        self._strategy = STRATEGIES.index(chosen.config.strategy)
        self._two_streams = chosen.config.strategy == "streams"
        self._may_run_beside = chosen.may_run_beside
        self._others, self._kind = chosen.others, Weighed(chosen.geometry, chosen.others)
        self.runtime = runtime
        self._plans = Plans(
            chosen.geometry, chosen.config, chosen.num_sms, runtime=runtime, room=self._room
        )

    def __call__(self, call: Call) -> None:
        other = self._other(call) if self._others else None
        if other is None:
            # A captured grid is replayed with batches of any shape, and records are of the launch
            # that the config names.
            self._launch(call, is_open=call.plan is None and call.records is None)
        else:
            other(call)

    def _other(self, call: Call) -> Attention | None:
        if call.records is not None:
            return None
        if call.plan is not None:
            return self._others.get("few") if call.plan.few_rows else None
        kind = self._kind(call.batch)
        return None if kind is None else self._others[kind]

    def _launch(self, call: Call, *, is_open: bool) -> None:
        runtime, batch = self.runtime, call.batch
        with runtime.current():
            stream = runtime.stream()
            if call.plan is None:
                self._require_no_capture()
                uploaded = self._plans.get(batch.q_indptr, batch.kv_lens, stream)
                _require_rows(call, uploaded)
                words, room = uploaded.words, uploaded.room
                beside = room.beside and is_open
            else:
                words, room = call.plan.words, self._room(Capacity(*call.plan.capacity))
                beside = False
            self._attend(
                *(*self._addresses, call.q, call.k_cache, call.v_cache, words),
                *(batch.page_indices, batch.page_starts, batch.page_size, call.scalars.pack()),
                *(call.sinks, call.out, call.lse),
                torch.empty(room.workspace, dtype=torch.uint8, device=runtime.place),
                *(room.capacity, _STREAMS if beside else self._strategy, self._sm_slots, stream),
                *(runtime.side_stream() if beside or self._two_streams else 0, call.records),
            )

    def stamp(self, plan: torch.Tensor, ring: torch.Tensor, index: int) -> None:
        """Queue a stamp at `index` of the row of `ring` that a plan's words name."""
        stream, width = self.runtime.stream(), ring.shape[1]
        self.library.stamp(plan.data_ptr(), ring.data_ptr(), width, index, stream)

    def _room(self, capacity: Capacity) -> Room:
        """Of a launch with these grid sizes."""
        size = self._workspace_size(self._sm_slots, capacity.partial_rows, self._head_dim)
        beside = self._may_run_beside and runs_beside(capacity, self.config, self.num_sms)
        return Room(tvm_ffi.Shape(capacity), int(size), beside)

    def _require_no_capture(self) -> None:
        if self.runtime.is_capturing():
            # The graph would replay with a plan whose memory belongs to this batch alone.
            raise UnsupportedFeatureError(
                "a CUDA graph is being captured and the call has no plan; make a DevicePlan "
                "before the capture and pass it as plan="
            )


def _require_rows(call: Call, uploaded: Uploaded) -> None:
    if call.q.shape[0] != uploaded.tokens:
        raise ShapeError(
            f"q has T = {call.q.shape[0]} rows but the batch has {uploaded.tokens} tokens"
        )
    starts = call.batch.page_starts
    if starts.numel() != uploaded.requests:
        raise ShapeError(
            f"page_starts has {starts.numel()} requests but kv_lens {uploaded.requests}"
        )
