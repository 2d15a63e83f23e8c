"""A server that replays one captured size while it experiments; its kernel's stamps are ours."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest

from pod_integrate.devices.cuda.planning import STAMP_WORD
from pod_integrate.devices.emulated.device import EmulatedDevice
from pod_integrate.devices.graph_timer import GraphTimer
from pod_integrate.engines.sglang.graphs import DecodeGraphs, GraphStep
from pod_integrate.live.budget import Budget
from pod_integrate.live.experiments import Arms, Experiments, LiveExperiment
from pod_integrate.live.layer_group import LayerGroup
from pod_integrate.live.recorder import Recorder
from pod_integrate.live.registry import ActiveTable
from pod_integrate.terms.config import PodConfig
from pod_integrate.terms.experiment import Experiment
from pod_integrate.terms.keys import Bucket
from support import emulated
from support.clock import HandClock
from support.emulated import CONFIG
from support.graphs import FILL, forward_batch, slots_table

GEOMETRY = dataclasses.replace(emulated.GEOMETRY, page_size=1)
OTHER = dataclasses.replace(CONFIG, decode_split_tokens=128)
# More than run it: the grid has room for several splits.
PLANNED_SMS = 16
LAYERS = 8
KEYS, ROWS = [350, 330, 390, 340], [3, 1, 7, 2]
LENGTHS = [1] * 4, KEYS
# Decode items of a layer that runs each config: parts of every request, for two KV heads.
ITEMS = {CONFIG: 2 * (6 + 6 + 7 + 6), OTHER: 2 * (3 + 3 + 4 + 3)}


class Server:
    """Replays of one captured size; a layer takes as many ns as `cost` says of its items."""

    def __init__(
        self,
        gpu: EmulatedDevice,
        monkeypatch: pytest.MonkeyPatch,
        *,
        candidate: PodConfig = OTHER,
        cost: Callable[[int], int] = lambda items: 50_000,
        recorder: bool = True,
    ) -> None:
        self.now, self.ns, self.cost = 0.0, 1_000, cost
        self.blind = False
        monkeypatch.setattr(GraphTimer, "_stamp", lambda timer, index: self._stamp(timer, index))
        self.experiments = Experiments(Budget(1.0, seed=1, now=lambda: self.now))
        active = ActiveTable(GEOMETRY, gpu.key, "b")
        clock = HandClock()
        self.group = LayerGroup(
            *(GEOMETRY, active, Recorder(clock, sample=1.0) if recorder else None, gpu),
            clock=clock,
            experiments=self.experiments,
        )
        self.group.layers = list(range(LAYERS))
        self.graphs = DecodeGraphs(slots_table(), 4, num_sms=PLANNED_SMS)
        self.graphs.capture(forward_batch([FILL] * 4, [0] * 4), [self.group])
        arms = Arms(*(self.group.readiness.prepare(c, LENGTHS) for c in (CONFIG, candidate)))
        experiment = Experiment(
            id="e1",
            bucket=str(Bucket.of(*LENGTHS)),
            number=1,
            phase="screen",
            baseline=CONFIG.to_dict(),
            candidate=candidate.to_dict(),
            steps=100,
            seconds=60.0,
        )
        self.live = LiveExperiment(experiment, arms)
        self.experiments.running[self.live.bucket] = self.live

    def _stamp(self, timer: GraphTimer, index: int) -> None:
        # As the kernel does, by a clock of ours.
        row = int(timer._plan[STAMP_WORD])
        if row and not self.blind:
            timer._ring[row - 1, index] = self.ns
        self.ns += 300

    def step(self) -> GraphStep:
        self.now += 0.01
        step = self.graphs.update(forward_batch(KEYS, ROWS))
        plan, captured = step.layers[self.group]
        assert captured.timer is not None
        for position, layer in enumerate(self.group.layers):
            mark = captured.timer.start(layer)
            self.ns += self.cost(int(plan.of(position).words[1]))
            if mark is not None:
                captured.timer.stop(mark)
        return step

    def items(self, step: GraphStep) -> list[int]:
        """Of the layers of even and of odd position."""
        plan = step.layers[self.group].plan
        return [int(plan.of(position).words[1]) for position in range(2)]

    def experiment_steps(self, count: int) -> list[list[int]]:
        """Items by position of so many experiment steps; their pairs are in."""
        found: list[list[int]] = []
        for _ in range(100 * count):
            items = self.items(self.step())
            if len(set(items)) > 1:
                found.append(items)
            if len(found) == count:
                break
        self.group.close_step()
        return found
