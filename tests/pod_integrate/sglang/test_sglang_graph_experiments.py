"""Experiments on captured decode steps: two plans in one replay, pairs from its stamps."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator

import pytest
import torch
from support import emulated
from support.clock import HandClock
from support.emulated import CONFIG, emulated_gpu
from support.graphs import FILL, attend, forward_batch, slots_table, tensors

from pod_integrate.devices.cuda.choices import tiles_name
from pod_integrate.devices.cuda.planning import STAMP_WORD
from pod_integrate.devices.cuda.variants import Variant, with_tiles
from pod_integrate.devices.emulated.device import EmulatedDevice
from pod_integrate.devices.graph_timer import SLOTS, GraphTimer
from pod_integrate.devices.registry import standing_in
from pod_integrate.engines.sglang.decode_room import DecodeRoom
from pod_integrate.engines.sglang.graphs import DecodeGraphs, GraphStep
from pod_integrate.live.budget import Budget
from pod_integrate.live.experiments import NO_ROOM_STEPS, Arms, Experiments, LiveExperiment
from pod_integrate.live.layer_group import LayerGroup
from pod_integrate.live.recorder import Recorder
from pod_integrate.live.registry import ActiveTable
from pod_integrate.measure.accuracy import BF16_TOLERANCE
from pod_integrate.measure.reference import attention_reference
from pod_integrate.terms.config import PodConfig
from pod_integrate.terms.experiment import Experiment, StepLengths
from pod_integrate.terms.keys import Bucket

GEOMETRY = dataclasses.replace(emulated.GEOMETRY, page_size=1)
OTHER = dataclasses.replace(CONFIG, decode_split_tokens=128)
# More than run it: the grid has room for several splits.
PLANNED_SMS = 16
LAYERS = 8
KEYS, ROWS = [350, 330, 390, 340], [3, 1, 7, 2]
LENGTHS = [1] * 4, KEYS
# Decode items of a layer that runs each config: parts of every request, for two KV heads.
ITEMS = {CONFIG: 2 * (6 + 6 + 7 + 6), OTHER: 2 * (3 + 3 + 4 + 3)}


@pytest.fixture(autouse=True)
def gpu() -> Iterator[EmulatedDevice]:
    device = emulated_gpu()
    with standing_in(device):
        yield device


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


def test_layers_of_even_and_odd_position_take_turns_step_by_step(
    gpu: EmulatedDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = Server(gpu, monkeypatch)
    base, other = ITEMS[CONFIG], ITEMS[OTHER]
    assert server.experiment_steps(3) == [[base, other], [other, base], [base, other]]


@pytest.mark.parametrize("recorder", [True, False])
def test_a_slow_candidate_shows_in_the_stamps_whichever_plan_it_is(
    gpu: EmulatedDevice, monkeypatch: pytest.MonkeyPatch, recorder: bool
) -> None:
    def cost(items: int) -> int:
        return 60_000 if items == ITEMS[OTHER] else 50_000

    server = Server(gpu, monkeypatch, cost=cost, recorder=recorder)
    server.experiment_steps(4)
    assert len(server.live.pairs) == 4 and server.live.layers == LAYERS
    for pair in server.live.pairs:
        assert pair.baseline_us == pytest.approx(50.0)
        assert pair.candidate_us == pytest.approx(60.0)
        assert pair.batch == StepLengths(*LENGTHS).digest


def test_the_incumbent_against_itself_shows_nothing(
    gpu: EmulatedDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = Server(gpu, monkeypatch, candidate=CONFIG)
    for _ in range(40):
        server.step()
    server.group.close_step()
    assert len(server.live.pairs) > 4
    assert all(pair.speedup == pytest.approx(1.0) for pair in server.live.pairs)


def test_answers_of_an_experiment_are_those_of_each_config(
    gpu: EmulatedDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, inputs = Server(gpu, monkeypatch), tensors(4)
    before = server.step()
    assert server.items(before) == [ITEMS[CONFIG]] * 2
    alone = attend(before, server.group, inputs)
    step = before
    while len(set(server.items(step))) == 1:
        step = server.step()
    outs = [attend(step, server.group, inputs, position) for position in range(3)]
    assert torch.equal(outs[0], alone) and torch.equal(outs[2], alone)
    want = attention_reference(*inputs, step.batch).out
    torch.testing.assert_close(outs[1].double(), want, atol=BF16_TOLERANCE, rtol=BF16_TOLERANCE)


def test_a_step_without_its_stamps_is_no_pair_and_is_taken_again(
    gpu: EmulatedDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = Server(gpu, monkeypatch)
    server.blind = True
    server.experiment_steps(1)
    begun = server.live.begun
    server.experiments.running.clear()
    for _ in range(SLOTS):
        server.step()
    assert not server.live.pairs and server.live.begun < begun


@pytest.mark.parametrize(
    "candidate",
    [
        with_tiles(OTHER, Variant.parse("bf16-d64-p64x32s1w4-d16x32s1w1-c2-v2")),
        dataclasses.replace(CONFIG, decode_split_tokens=32),
    ],
    ids=["tiles", "room"],
)
def test_what_the_graph_cannot_run_is_never_begun(
    gpu: EmulatedDevice, monkeypatch: pytest.MonkeyPatch, candidate: PodConfig
) -> None:
    server = Server(gpu, monkeypatch, candidate=candidate)
    for _ in range(20):
        assert server.items(server.step()) == [ITEMS[CONFIG]] * 2
    assert server.live.begun == 0


def test_a_split_without_room_costs_no_budget_and_ends_as_infeasible(
    gpu: EmulatedDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = Server(gpu, monkeypatch, candidate=dataclasses.replace(CONFIG, decode_split_tokens=32))
    monkeypatch.setattr(server.experiments.budget, "draw", lambda **_: pytest.fail("drawn"))
    for _ in range(1 + NO_ROOM_STEPS):
        assert not server.live.ended
        server.step()
    assert server.live.infeasible and "decode_split_tokens 32" in server.live.ended


def test_a_candidate_that_had_room_before_is_not_infeasible(
    gpu: EmulatedDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = Server(gpu, monkeypatch)
    server.experiment_steps(1)
    monkeypatch.setattr(DecodeRoom, "holds", lambda room, split: split == 64)
    for _ in range(2 * NO_ROOM_STEPS):
        server.step()
    assert server.live.begun >= 1 and not server.live.infeasible


def test_a_tuner_is_told_the_tiles_of_a_captured_bucket(
    gpu: EmulatedDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = Server(gpu, monkeypatch)
    server.step()
    seen = server.experiments.take_seen()[Bucket.of(*LENGTHS)]
    assert (seen.tiles, seen.lengths) == (tiles_name(CONFIG), LENGTHS)


def test_steps_of_an_experiment_are_counted_and_not_traced(
    gpu: EmulatedDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = Server(gpu, monkeypatch)
    for _ in range(20):
        server.step()
    server.group.close_step()
    assert server.group.recorder is not None
    drained = server.group.recorder.drain()
    # The first replay of a graph is neither.
    assert drained.seen == 20
    assert len(drained.records) == 20 - 1 - server.live.begun < 19


def test_a_captured_split_without_room_is_compared_as_it_runs(
    gpu: EmulatedDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = Server(gpu, monkeypatch)
    # As where contexts are so long that what was captured is cut into longer parts.
    other = OTHER.decode_split_tokens
    monkeypatch.setattr(DecodeRoom, "holds", lambda room, split: split == other)
    assert len(server.experiment_steps(2)) == 2 and len(server.live.pairs) == 2
