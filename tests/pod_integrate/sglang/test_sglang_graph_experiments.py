"""Experiments on captured decode steps: two plans in one replay, pairs from its stamps."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import pytest
import torch
from support.captured import ITEMS, LAYERS, LENGTHS, OTHER, Server
from support.emulated import CONFIG, emulated_gpu
from support.graphs import attend, tensors

from pod_integrate.devices.cuda.choices import tiles_name
from pod_integrate.devices.cuda.variants import Variant, with_tiles
from pod_integrate.devices.emulated.device import EmulatedDevice
from pod_integrate.devices.graph_timer import SLOTS
from pod_integrate.devices.registry import standing_in
from pod_integrate.engines.sglang.decode_room import DecodeRoom
from pod_integrate.live.experiments import NO_ROOM_STEPS
from pod_integrate.measure.accuracy import BF16_TOLERANCE
from pod_integrate.measure.reference import attention_reference
from pod_integrate.terms.config import PodConfig
from pod_integrate.terms.experiment import StepLengths
from pod_integrate.terms.keys import Bucket


@pytest.fixture(autouse=True)
def gpu() -> Iterator[EmulatedDevice]:
    device = emulated_gpu()
    with standing_in(device):
        yield device


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
