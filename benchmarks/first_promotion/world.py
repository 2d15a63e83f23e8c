"""A server, its two threads and its tuner in one thread of ours: the code is theirs, time is not.

Serving steps move the clock. What the laboratory waits for (a compiler, the network) lets the
server go on until it is over.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable
from typing import Any, cast

import httpx
import msgspec
import torch

from benchmarks.first_promotion.gpu import (
    GEOMETRY,
    LAYERS,
    HandClock,
    SimulatedBuilds,
    SimulatedGpu,
    SimulatedReadiness,
    Truth,
)
from benchmarks.first_promotion.load import Load, Step
from pod_integrate.devices.call import Attention, Result
from pod_integrate.engines.sglang.decode_room import DecodeRoom, decode_capacity
from pod_integrate.live import replays
from pod_integrate.live.budget import Budget
from pod_integrate.live.captured import Captured, ReplayStep
from pod_integrate.live.client import TunerClient
from pod_integrate.live.exchange import Channel, Exchange
from pod_integrate.live.experimenter import Experimenter
from pod_integrate.live.experiments import Experiments
from pod_integrate.live.failures import Failures
from pod_integrate.live.groups import end_step
from pod_integrate.live.laboratory import LEAST_PAUSE_SECONDS, Laboratory
from pod_integrate.live.layer_group import LayerGroup
from pod_integrate.live.recorder import Recorder
from pod_integrate.live.registry import ActiveTable
from pod_integrate.terms import trace
from pod_integrate.terms.batch import HybridBatch
from pod_integrate.terms.experiment import ExperimentAsk, ExperimentReport
from pod_integrate.terms.keys import Bucket
from tuner.core import Tuner
from tuner.messages import Scope

# Everything but attention, and what a message to the tuner and back takes.
_STEP_SECONDS, _HTTP_SECONDS = 0.006, 0.004
_CONTEXT = 32768
_SIZES = (1, 2, 4, 8, 16, 24, 32, 48, 64)


class _Stamps:
    """As a GraphTimer: what replays took, once they were."""

    def __init__(self) -> None:
        self.taken: dict[int, list[float]] = {}

    def arm(self) -> int:
        return len(self.taken) + 1

    def each(self, slot: int) -> list[float] | None:
        return self.taken.get(slot)

    def seconds(self, slot: int) -> float | None:
        layers = self.each(slot)
        return sum(layers) / len(layers) if layers else None


class World:
    """See the module.

    tuner   made with the world's clock
    counts  of asks and reports that reached it
    """

    def __init__(
        self, make_tuner: Callable[[Callable[[], float]], Tuner], load: Load, *, share: float,
        poll: float, seed: int,
    ) -> None:  # fmt: skip
        self.now, self._poll, self._load = 0.0, poll, load
        self.tuner = make_tuner(lambda: 1.8e9 + self.now)
        self.counts: Counter[str] = Counter()
        self._clock = HandClock(lambda: self.now)
        self.gpu = SimulatedGpu(lambda: self.now, self._pass)
        active = ActiveTable(GEOMETRY, self.gpu.key, self.gpu.kernel_build)
        recorder = Recorder(self._clock, sample=0.25, seed=seed)
        budget = Budget(share, seed=seed, now=lambda: self.now)
        self.group = LayerGroup(
            *(GEOMETRY, active, recorder, self.gpu), clock=self._clock,
            experiments=Experiments(budget),
        )  # fmt: skip
        default = self.group.default
        self.group.readiness = SimulatedReadiness(self.gpu, GEOMETRY, default, self._clock)
        self.group.layers = list(range(LAYERS))
        self.truth = Truth(default, seed)
        self._timers = {size: _Stamps() for size in _SIZES}
        self._captured = {
            size: Captured(self.group.readiness.default, cast(Any, timer))
            for size, timer in self._timers.items()
        }
        self._capacity = {
            size: decode_capacity(GEOMETRY, [default], size, _CONTEXT, self.gpu.key.units)
            for size in _SIZES
        }
        self._table = torch.zeros((1, _CONTEXT), dtype=torch.int32)
        self._start_threads(active, recorder)

    def _wake(self) -> None:
        self._awake = True

    def _start_threads(self, active: ActiveTable, recorder: Recorder) -> None:
        readiness = self.group.readiness
        transport = httpx.MockTransport(self._answer)
        self._exchange = Exchange("http://tuner", server="s", transport=transport)
        self._exchange.add(Channel(active, recorder))
        failures = Failures("http://tuner", [], None)
        client = TunerClient("http://tuner", transport=transport)
        experimenter = Experimenter(
            "s", client, failures, can_compile=lambda: True, now=lambda: self.now
        )
        self.laboratory = Laboratory(
            lambda: [self.group], failures, pause=self._poll, experimenter=experimenter
        )
        self.events = failures.counts
        self._builds = SimulatedBuilds(self.gpu, self._wake)
        readiness.wake, readiness.builds = self._wake, self._builds
        self._next = {"exchange": 0.0, "laboratory": 0.0}
        self._busy = self._awake = False
        self._again = 0.0

    def serve(self, until: float, stop: Callable[[], bool]) -> None:
        """Steps, and rounds of both threads when they are due."""
        while self.now < until and not stop():
            self._step()
            due = self._next["laboratory"] <= self.now
            if due or (self._awake and self._again <= self.now):
                self._busy, self._awake = True, False
                self.laboratory.run_round()
                self._busy = False
                self._next["laboratory"] = self.now + self._poll
                self._again = self.now + LEAST_PAUSE_SECONDS

    def _pass(self, seconds: float) -> None:
        """The thread whose turn it is waits, the server does not."""
        until = self.now + seconds
        while self.now < until:
            self._step()

    def _step(self) -> None:
        self._serve(self._load.step())
        self._builds.go_on()
        if self._next["exchange"] <= self.now:
            self._next["exchange"] = self.now + self._poll
            self._exchange.run_round()

    def _serve(self, step: Step) -> None:
        mark = self._clock.start()
        self.now += _STEP_SECONDS
        if step.captured:
            self._replay(step)
        else:
            batch = HybridBatch.build(
                *step, page_indices=self._table, page_starts=[0] * len(step.q_lens), page_size=1
            )
            plan = self.group.plan(batch, live=True)
            for layer in range(LAYERS):
                plan.run(layer, functools.partial(self._attend, step, batch.bucket))
        end_step(self._clock, [self.group], mark)

    def _attend(
        self, step: Step, bucket: Bucket, attention: Attention, out: torch.Tensor | None
    ) -> Result:
        self.now += self.truth.seconds(attention.config, step, bucket)
        return Result(torch.ones(1, 1, 1) if out is None else out.fill_(1.0), torch.ones(1, 1))

    def _replay(self, step: Step) -> None:
        size = next(size for size in _SIZES if size >= len(step.q_lens))
        batch = HybridBatch.build(
            *step, page_indices=self._table, page_starts=[0] * len(step.q_lens), page_size=1
        )
        captured, stamps = self._captured[size], self._timers[size]
        room = DecodeRoom(batch, self._capacity[size], captured.config, GEOMETRY)
        ran = replays.replay(
            self.group, ReplayStep((step.q_lens, step.kv_lens), batch.bucket), captured, room.holds
        )
        turns = (ran.config, ran.second or ran.config)
        taken = [
            self.truth.seconds(turns[layer % 2], step, batch.bucket) for layer in range(LAYERS)
        ]
        self.now += sum(taken)
        if ran.stamp:
            stamps.taken[ran.stamp] = taken

    def _answer(self, request: httpx.Request) -> httpx.Response:
        path, body = request.url.path, request.read()
        self.counts[path.split("/")[2] + ("/report" if path.endswith("report") else "")] += 1
        if self._busy:
            self._pass(_HTTP_SECONDS)
        if path == "/v1/traces":
            self.tuner.ingest(trace.decode(body))
            return httpx.Response(202)
        if path == "/v1/table":
            return self._give_table(request)
        if path == "/v1/experiments":
            made = self.tuner.next_experiment(ExperimentAsk.decode(body))
            return httpx.Response(200, content=made.encode()) if made else httpx.Response(204)
        noted = self.tuner.report_experiment(ExperimentReport.decode(body))
        return httpx.Response(200, content=msgspec.json.encode(noted._asdict()))

    def _give_table(self, request: httpx.Request) -> httpx.Response:
        scope = Scope(*(request.url.params[name] for name in ("geometry", "device", "build")))
        table = self.tuner.table(scope)
        return httpx.Response(404) if table is None else httpx.Response(200, content=table)
