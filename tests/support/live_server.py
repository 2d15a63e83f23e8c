"""A layer group whose steps run on a stream made by hand, with one experiment at work."""

from __future__ import annotations

from collections.abc import Callable

import torch

from pod_integrate.devices.call import Attention
from pod_integrate.devices.cpu.device import this_cpu
from pod_integrate.live.budget import Budget
from pod_integrate.live.experiments import Arms, Experiments, LiveExperiment
from pod_integrate.live.layer_group import LayerGroup
from pod_integrate.live.recorder import Recorder
from pod_integrate.live.registry import ActiveTable
from pod_integrate.terms.batch import HybridBatch
from pod_integrate.terms.config import PodConfig
from pod_integrate.terms.experiment import Experiment
from support.clock import Stream
from support.exchange import GEOMETRY
from support.layers import run_layers

CPU = this_cpu()
DEFAULT = CPU.default_config(GEOMETRY)
OTHER = PodConfig.from_dict(DEFAULT.to_dict() | {"decode_split_tokens": 64})
LAYERS = 6


def make_batch(kv_len: int = 9) -> HybridBatch:
    table = torch.zeros((2, 64), dtype=torch.int32)
    return HybridBatch.build(
        [3, 1], [kv_len, 7], page_indices=table, page_starts=[0, 64], page_size=1
    )


class Server:
    """Steps of one group on a GPU's stream, each config as slow as told."""

    def __init__(
        self,
        *,
        share: float = 1.0,
        baseline: PodConfig = DEFAULT,
        candidate: PodConfig = OTHER,
        seconds: Callable[[PodConfig], float] = lambda config: 1e-3,
        recorder: bool = True,
        steps: int = 100,
        phase: str = "screen",
    ) -> None:
        self.stream, self.now = Stream(), 0.0
        clock = self.stream.clock()
        active = ActiveTable(GEOMETRY, CPU.key, CPU.kernel_build)
        self.recorder = Recorder(clock, sample=1.0)
        self.experiments = Experiments(Budget(share, seed=1, now=lambda: self.now))
        self.group = LayerGroup(
            *(GEOMETRY, active, self.recorder if recorder else None, CPU),
            clock=clock,
            experiments=self.experiments,
        )
        self.seconds = seconds
        batch = make_batch()
        arms = [self.group.readiness.prepare(c, batch.lengths) for c in (baseline, candidate)]
        experiment = Experiment(
            id="e1",
            bucket=str(batch.bucket),
            number=1,
            phase=phase,
            baseline=baseline.to_dict(),
            candidate=candidate.to_dict(),
            steps=steps,
            seconds=60.0,
        )
        self.live = LiveExperiment(experiment, Arms(*arms))
        self.experiments.running[self.live.bucket] = self.live

    def step(self, batch: HybridBatch | None = None, layers: int = LAYERS) -> list[PodConfig]:
        """What ran; the step has ended on the device when it returns."""
        self.now += 0.01

        def work(attention: Attention) -> None:
            self.stream.work(self.seconds(attention.config))

        plan = self.group.plan(batch or make_batch(), live=True)
        ran = run_layers(plan, layers, work=work)
        self.stream.catch_up()
        return ran

    def experiment_steps(self, count: int) -> list[list[PodConfig]]:
        """As `step`, until so many experiment steps have run; the last one's times are in."""
        found = []
        for _ in range(100 * count):
            ran = self.step()
            if len(set(ran)) > 1 and len(ran) == LAYERS:
                found.append(ran)
            if len(found) == count:
                break
        self.group.close_step()
        self.group.clock.harvest()
        return found
