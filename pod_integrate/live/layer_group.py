"""The layers of one geometry: which config attends a step, and what of it is traced."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

from pod_integrate.devices.base import Device
from pod_integrate.devices.call import Attention, Result
from pod_integrate.devices.clock import Clock, Mark
from pod_integrate.devices.device_plan import DevicePlan
from pod_integrate.devices.graph_timer import GraphTimer
from pod_integrate.live.captured import Captured, StampedSteps
from pod_integrate.live.experiments import Experiments, ExperimentStep
from pod_integrate.live.open_step import OpenStep
from pod_integrate.live.readiness import Readiness
from pod_integrate.live.recorder import Recorder
from pod_integrate.live.registry import ActiveTable
from pod_integrate.live.shadow import Attend, Shadow
from pod_integrate.terms.batch import HybridBatch
from pod_integrate.terms.config import PodConfig
from pod_integrate.terms.keys import Geometry
from pod_integrate.terms.table import Source


class StepPlan(NamedTuple):
    """How one group attends one step.

    attention  what runs its config, loaded
    traced     the step's record, if it was sampled
    timer      of the graph that is being captured, if it is
    experiment      the experiment that it is a step of: its layers run two configs then
    shadow     a config that is tried beside `attention`, if one is
    """

    attention: Attention
    traced: OpenStep | None = None
    timer: GraphTimer | None = None
    experiment: ExperimentStep | None = None
    shadow: Shadow | None = None

    @property
    def config(self) -> PodConfig:
        """That the step is attended with."""
        return self.attention.config

    def run(self, layer: int, attend: Attend) -> Result:
        """Layer number `layer`: calls `attend` with what its turn is to run, and times it."""
        if self.experiment is not None:
            return self.experiment.run(attend)
        mark = self.start(layer)
        result = attend(self.attention, None)
        if mark is not None:
            self.stop(mark)
        if self.shadow is not None:
            self.shadow.run(attend, result)
        return result

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

    device           what attends
    layers           numbers of the layers, where the engine knows them beforehand
    batch_invariant  every step runs the default config without KV splits: a request's bits are
                     the same alone and in any batch, eager and captured
    clock            of the serving thread; default the recorder's
    experiments      experiments on this group's steps; None where none are run

    The first step that runs a config with prefill rows, with decode rows, with both or as a graph
    is not traced: each is a kernel of its own, and what its first launch takes (threads, memory
    touched for the first time) says nothing about the traffic. Nor is a step that runs two configs.
    """

    def __init__(
        self,
        geometry: Geometry,
        active: ActiveTable,
        recorder: Recorder | None,
        device: Device,
        *,
        batch_invariant: bool = False,
        clock: Clock | None = None,
        experiments: Experiments | None = None,
    ) -> None:
        self.geometry, self.active, self.recorder = geometry, active, recorder
        self.default = device.default_config(geometry)
        self.batch_invariant = batch_invariant
        if batch_invariant:
            # Not split at all: a captured grid has no room for parts of one length at any context.
            unsplit = dataclasses.replace(self.default, decode_split_tokens=0)
            self.default = unsplit.batch_invariant()
        known = clock if recorder is None else recorder.clock
        self.clock = device.clock() if known is None else known
        self.readiness = Readiness(device, geometry, self.default, self.clock)
        self.experiments = experiments
        self.layers: list[int] = []
        self.open: OpenStep | None = None
        self._experiment_step: ExperimentStep | None = None
        self.stamped = StampedSteps()
        self._warm: set[tuple[PodConfig, str]] = set()

    def plan(self, batch: HybridBatch, *, live: bool) -> StepPlan:
        """Choose how a step is attended, and close the one before.

        live  False for warm-up batches, which leave no trace and ask for nothing
        """
        default = self.readiness.default
        if self.batch_invariant:
            return StepPlan(default)
        kind = batch.bucket.sides
        found = self.active.lookup(batch.bucket)
        config = found.config or self.default
        attention = self.readiness.usable(config, kind)
        if not live:
            return StepPlan(attention or default)
        self.close_step()
        if self.readiness.owed or self.experiments is not None:
            # Where nothing is recorded nobody else asks the clock.
            self.clock.harvest()
        experiment, missing = self._experiment(batch, kind)
        if experiment is not None:
            self.skip_step()
            return StepPlan(attention or default, experiment=experiment)
        if attention is None:
            missing = config
        shadow = None
        if missing is not None:
            shadow = self.readiness.approach(missing, kind, batch.lengths)
        source = "default" if attention is None else found.source
        return self._traced(batch, attention or default, source, shadow)

    def _experiment(
        self, batch: HybridBatch, kind: str
    ) -> tuple[ExperimentStep | None, PodConfig | None]:
        """The experiment that this step is one of, or a config that it lacks yet."""
        experiment = (
            None if self.experiments is None else self.experiments.see(batch.bucket, batch.lengths)
        )
        if experiment is None or self.experiments is None:
            return None, None
        for arm in experiment.arms:
            if self.readiness.usable(arm.config, kind) is None:
                return None, arm.config
        if not self.experiments.draw(experiment):
            return None, None
        self._experiment_step = experiment.begin(batch.lengths, self.clock, self.experiments.budget)
        return self._experiment_step, None

    def _traced(
        self, batch: HybridBatch, attention: Attention, source: Source, shadow: Shadow | None
    ) -> StepPlan:
        if self.recorder is None:
            return StepPlan(attention, shadow=shadow)
        if self._warms_up(attention.config, batch.bucket.sides) or shadow is not None:
            self.recorder.skip()
        else:
            self.open = self.recorder.begin(batch, attention.config, source)
        return StepPlan(attention, self.open, shadow=shadow)

    def skip_step(self) -> None:
        """Count a step that is not traced."""
        if self.recorder is not None:
            self.recorder.skip()

    def graph_timer(self, plan: DevicePlan) -> GraphTimer | None:
        """A timer for a graph to be captured with `plan`; None where nobody asks for times."""
        if self.recorder is None and self.experiments is None:
            return None
        return GraphTimer(plan, self.layers)

    def is_wrong(self, captured: Captured) -> bool:
        """Whether a graph launches tiles that gave wrong answers and are not the default's."""
        wrong = self.readiness.wrong
        if not wrong or captured.has_tiles_of(self.default):
            return False
        return any(captured.has_tiles_of(config) for config in list(wrong))

    def _warms_up(self, config: PodConfig, kind: str) -> bool:
        if (config, kind) in self._warm:
            return False
        self._warm.add((config, kind))
        return True

    def close_step(self) -> OpenStep | None:
        """File the open step, if there is one, and return it."""
        if self._experiment_step is not None:
            self._experiment_step.close()
            self._experiment_step = None
        self.stamped.settle()
        step, self.open = self.open, None
        if self.recorder is not None:
            if step is not None:
                self.recorder.end(step)
            else:
                self.recorder.settle()
        return step
