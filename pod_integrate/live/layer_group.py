"""The layers of one geometry: which config attends a step, and what of it is traced."""

from __future__ import annotations

import dataclasses
import functools
from typing import NamedTuple

from pod_integrate.devices.base import Device
from pod_integrate.devices.call import Attention
from pod_integrate.devices.clock import Mark
from pod_integrate.devices.device_plan import DevicePlan
from pod_integrate.devices.graph_timer import GraphTimer
from pod_integrate.live.open_step import OpenStep
from pod_integrate.live.recorder import Recorder
from pod_integrate.live.registry import ActiveTable
from pod_integrate.terms.batch import HybridBatch
from pod_integrate.terms.config import PodConfig
from pod_integrate.terms.keys import Geometry


class Plan(NamedTuple):
    """How one group attends one step.

    attention  what runs its config, loaded
    traced     the step's record, if it was sampled
    timer      of the graph that is being captured, if it is
    """

    attention: Attention
    traced: OpenStep | None = None
    timer: GraphTimer | None = None

    @property
    def config(self) -> PodConfig:
        """That the step is attended with."""
        return self.attention.config

    def start(self, layer: int) -> Mark | None:
        """Before layer number `layer` attends; a mark for `stop` if that is timed."""
        if self.traced is not None:
            return self.traced.start_attention()
        return self.timer.start(layer) if self.timer is not None else None

    def stop(self, mark: Mark) -> None:
        """The attention that `mark` was taken for has been called."""
        if self.traced is not None:
            self.traced.stop_attention(mark)
        elif self.timer is not None:
            self.timer.stop(mark)


class LayerGroup:
    """Layers of one geometry; window and logit cap are part of it.

    device           what attends; a config is loaded there before a step may run it
    layers           numbers of the layers, where the engine knows them beforehand
    batch_invariant  every step runs the default config without KV splits: a request's bits are
                     the same alone and in any batch, eager and captured

    The first step that runs a config with prefill rows, with decode rows, with both or as a graph
    is not traced: each is a kernel of its own, and what its first launch takes (compiling, loading,
    threads, memory touched for the first time) says nothing about the traffic.
    """

    def __init__(
        self,
        geometry: Geometry,
        active: ActiveTable,
        recorder: Recorder | None,
        device: Device,
        *,
        batch_invariant: bool = False,
    ) -> None:
        self.geometry, self.active, self.recorder = geometry, active, recorder
        self.default = device.default_config(geometry)
        self._fixed = batch_invariant
        if batch_invariant:
            # Not split at all: a captured grid has no room for parts of one length at any context.
            unsplit = dataclasses.replace(self.default, decode_split_tokens=0)
            self.default = unsplit.batch_invariant()
        self._device, self._ready = device, dict[PodConfig, Attention]()
        self.attention(self.default)
        self.layers: list[int] = []
        self.open: OpenStep | None = None
        self._warm: set[tuple[PodConfig, str]] = set()

    def plan(self, batch: HybridBatch, *, live: bool) -> Plan:
        """Choose a step's config; `live` is False for warm-up batches, which leave no trace."""
        if self._fixed:
            return Plan(self.attention(self.default))
        found = self.active.lookup(batch.bucket)
        config = found.config or self.default
        attention = self.attention(config)
        if self.recorder is None or not live:
            return Plan(attention)
        self.close_step()
        if self._warms_up(config, batch.bucket.sides):
            self.recorder.skip()
        else:
            self.open = self.recorder.begin(batch, config, found.source)
        return Plan(attention, self.open)

    def attention(self, config: PodConfig) -> Attention:
        """What attends with `config`, loaded at the first time; raises as Device.attention."""
        found = self._ready.get(config)
        if found is None:
            found = self._ready[config] = self._device.attention(self.geometry, config)
        return found

    def graph_timer(self, plan: DevicePlan) -> GraphTimer | None:
        """A timer for a graph to be captured with `plan`; None where nothing is recorded."""
        return None if self.recorder is None else GraphTimer(plan, self.layers)

    def replay(
        self,
        lengths: tuple[list[int], list[int]],
        config: PodConfig,
        timer: GraphTimer | None,
    ) -> int:
        """Trace a step that replays a captured graph: the stamp for its plan, 0 if it is not."""
        if self.recorder is None or timer is None:
            return 0
        self.close_step()
        if self._warms_up(config, "graph"):
            self.recorder.skip()
            return 0
        slot = timer.arm()
        read = functools.partial(timer.seconds, slot)
        self.open = self.recorder.begin_replay(
            lengths, config, layers=len(self.layers), read_graph=read
        )
        return 0 if self.open is None else slot

    def _warms_up(self, config: PodConfig, kind: str) -> bool:
        if (config, kind) in self._warm:
            return False
        self._warm.add((config, kind))
        return True

    def close_step(self) -> OpenStep | None:
        """File the open step, if there is one, and return it."""
        step, self.open = self.open, None
        if self.recorder is not None:
            if step is not None:
                self.recorder.end(step)
            else:
                self.recorder.settle()
        return step
