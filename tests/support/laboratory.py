"""A process with one layer group, a fake tuner and clocks that tests move."""

from __future__ import annotations

import dataclasses

import httpx
import torch

from pod_integrate.devices.cpu.device import CpuDevice, this_cpu
from pod_integrate.live.budget import Budget
from pod_integrate.live.client import TunerClient
from pod_integrate.live.experimenter import Experimenter
from pod_integrate.live.experiments import Experiments
from pod_integrate.live.failures import Failures
from pod_integrate.live.laboratory import Laboratory
from pod_integrate.live.layer_group import LayerGroup
from pod_integrate.live.registry import ActiveTable
from pod_integrate.terms.batch import HybridBatch
from pod_integrate.terms.config import PodConfig
from pod_integrate.terms.experiment import Experiment, ExperimentAsk, ExperimentReport
from support.clock import HandClock
from support.exchange import GEOMETRY
from support.layers import run_layers

CPU = this_cpu()
DEFAULT = CPU.default_config(GEOMETRY)
OTHER = dataclasses.replace(DEFAULT, decode_split_tokens=64)
LAYERS = 4


class FakeTuner:
    """Offers experiments in turn and keeps what is told of them."""

    def __init__(self) -> None:
        self.offers: list[Experiment] = []
        self.asks: list[ExperimentAsk] = []
        self.reports: list[ExperimentReport] = []
        self.taken, self.done = True, False
        self.status: int | None = None
        self.body: bytes | None = None

    def __call__(self, request: httpx.Request) -> httpx.Response:
        if self.status is not None:
            return httpx.Response(self.status)
        assert request.headers["Authorization"] == "Bearer secret"
        if request.url.path == "/v1/experiments":
            self.asks.append(ExperimentAsk.decode(request.read()))
            if self.body is not None:
                return httpx.Response(200, content=self.body)
            return (
                httpx.Response(200, content=self.offers.pop(0).encode())
                if self.offers
                else httpx.Response(204)
            )
        report = ExperimentReport.decode(request.read())
        assert request.url.path == f"/v1/experiments/{report.id}/report"
        self.reports.append(report)
        return httpx.Response(200, json={"taken": self.taken, "done": self.done})


class Host:
    """A process with one group, a fake tuner and a clock that tests move."""

    def __init__(self, device: CpuDevice = CPU) -> None:
        self.now, self.clock = 0.0, HandClock()
        self.tuner = FakeTuner()
        active = ActiveTable(GEOMETRY, CPU.key, CPU.kernel_build)
        experiments = Experiments(Budget(1.0, seed=1, now=lambda: self.clock.now))
        self.group = LayerGroup(
            *(GEOMETRY, active, None, device), clock=self.clock, experiments=experiments
        )
        self.failures = Failures("http://tuner", ["secret"], None)
        client = TunerClient(
            "http://tuner", token="secret", transport=httpx.MockTransport(self.tuner)
        )
        self.experimenter = Experimenter(
            *("s1", client, self.failures), can_compile=lambda: True, now=lambda: self.now
        )
        self.laboratory = Laboratory(
            lambda: [self.group], self.failures, pause=1.0, experimenter=self.experimenter
        )

    def steps(self, count: int, batch: HybridBatch | None = None) -> None:
        for _ in range(count):
            self.clock.now += 0.01
            plan = self.group.plan(batch or make_batch(), live=True)
            run_layers(
                plan, LAYERS, work=lambda _: setattr(self.clock, "now", self.clock.now + 1e-3)
            )
        self.group.close_step()

    def rounds(self, count: int = 1) -> None:
        for _ in range(count):
            self.laboratory.run_round()


def make_batch(kv_len: int = 9) -> HybridBatch:
    table = torch.zeros((2, 64), dtype=torch.int32)
    return HybridBatch.build(
        [3, 1], [kv_len, 7], page_indices=table, page_starts=[0, 64], page_size=1
    )


def offer(
    id: str = "e1", candidate: PodConfig = OTHER, *, steps: int = 4, bucket: str | None = None
) -> Experiment:
    return Experiment(
        id=id,
        bucket=bucket or str(make_batch().bucket),
        number=1,
        phase="screen",
        baseline=DEFAULT.to_dict(),
        candidate=candidate.to_dict(),
        steps=steps,
        seconds=60.0,
    )
