"""Experiments on live steps: which layers run what, and what becomes of their times."""

from __future__ import annotations

import math
import random

import pytest
from support.exchange import GEOMETRY
from support.layers import run_layers
from support.live_server import DEFAULT, LAYERS, OTHER, Server, make_batch
from support.tables import make_table

from pod_integrate.devices.clock import EventClock
from pod_integrate.live.experiments import pair_of
from pod_integrate.terms.config import PodConfig
from pod_integrate.terms.experiment import StepLengths


def test_layers_take_turns_and_the_first_turn_changes_from_step_to_step() -> None:
    first, second, third = Server().experiment_steps(3)
    assert first == third == [DEFAULT, OTHER] * (LAYERS // 2)
    assert second == [OTHER, DEFAULT] * (LAYERS // 2)


def test_each_experiment_step_is_one_pair_of_its_lengths() -> None:
    server = Server(seconds=lambda config: 2e-3 if config == OTHER else 1e-3)
    server.experiments.budget.lose = lambda seconds: None  # type: ignore[method-assign]
    server.experiment_steps(1)
    (pair,) = server.live.pairs
    assert [pair.baseline_us, pair.candidate_us] == pytest.approx([1000, 2000])
    assert pair.batch == StepLengths(*make_batch().lengths).digest
    assert server.live.layers == LAYERS


@pytest.mark.parametrize("recorder", [True, False])
def test_equal_configs_show_no_difference_and_a_slow_candidate_does(recorder: bool) -> None:
    noise = random.Random(4)

    def seconds(config: PodConfig) -> float:
        slow = 1.1 if config == OTHER else 1.0
        return 1e-3 * slow * math.exp(noise.gauss(0, 0.05))

    for candidate, expected in ((DEFAULT, 0.0), (OTHER, math.log(1.1))):
        server = Server(candidate=candidate, seconds=seconds, recorder=recorder)
        if candidate == DEFAULT:
            for _ in range(200):
                server.step()
        else:
            server.experiment_steps(40)
        ratios = [math.log(p.candidate_us / p.baseline_us) for p in server.live.pairs]
        assert len(ratios) >= 38
        assert sum(ratios) / len(ratios) == pytest.approx(expected, abs=0.02)


def test_a_candidate_is_tried_in_shadow_before_any_layer_runs_it() -> None:
    server = Server()
    ran = [step for step in (server.step() for _ in range(40)) if len(set(step)) > 1]
    assert ran[0] == [DEFAULT, OTHER, *[DEFAULT] * (LAYERS - 1)]
    assert ran[1] == [DEFAULT, OTHER] * (LAYERS // 2)


def test_outside_of_its_bucket_and_of_live_steps_one_config_runs() -> None:
    server = Server()
    server.experiment_steps(1)
    before = server.live.begun
    for _ in range(40):
        assert server.step(make_batch(kv_len=60)) == [DEFAULT] * LAYERS
        plan = server.group.plan(make_batch(), live=False)
        assert run_layers(plan, LAYERS) == [DEFAULT] * LAYERS
    assert server.live.begun == before


def test_experiments_keep_to_their_share_of_steps() -> None:
    server = Server(share=0.05)
    mixed = sum(len(set(server.step())) > 1 for _ in range(2000))
    assert 80 <= mixed <= 101


def test_what_slow_candidates_cost_stays_within_the_share_of_time() -> None:
    server = Server(share=0.2, seconds=lambda c: 54e-3 if c == OTHER else 45e-3)
    for _ in range(4000):
        server.step()
        server.now += 0.2
    lost = 9e-3 * (LAYERS // 2) * server.live.begun
    assert server.live.begun == 100
    server = Server(share=0.2, seconds=lambda c: 5.4 if c == OTHER else 4.5, steps=4000)
    for _ in range(4000):
        server.step()
    # 40 s passed, a fifth of them may be lost, 2.7 s of them in one step.
    lost = 0.9 * (LAYERS // 2) * server.live.begun
    assert lost <= 0.2 * 40 + 0.1 + 2 * 2.7


def test_a_candidate_twice_as_slow_ends_after_two_steps() -> None:
    server = Server(seconds=lambda config: 3e-3 if config == OTHER else 1e-3)
    server.experiment_steps(2)
    assert server.live.ended and not server.live.wants_steps
    assert len(server.live.pairs) == 2


def test_the_first_steps_after_a_pause_are_no_experiments() -> None:
    server = Server()
    server.experiment_steps(2)
    for _ in range(20):
        server.now += 5.0
        assert [set(server.step()) for _ in range(3)] == [{DEFAULT}] * 3


def test_a_step_whose_times_were_lost_makes_no_pair_and_is_made_up_for() -> None:
    server = Server(steps=1)
    lost: list[object] = []
    clock = server.group.clock
    assert isinstance(clock, EventClock)
    while not lost:
        ran = server.step()
        if len(set(ran)) > 1 and len(ran) == LAYERS:
            lost.append(ran)
            clock._drop(clock._pending.pop())
    server.group.close_step()
    clock.harvest()
    assert not server.live.pairs and server.live.wants_steps
    server.experiment_steps(1)
    assert len(server.live.pairs) == 1 and server.live.measured_all


def test_steps_that_ran_two_configs_are_seen_and_not_traced() -> None:
    server = Server()
    server.experiment_steps(3)
    drained = server.recorder.drain()
    assert {r.config for r in drained.records} <= {DEFAULT.short()}
    assert drained.seen > len(drained.records) + 3


def test_experiment_compares_with_the_incumbent_that_the_table_names() -> None:
    server = Server(baseline=OTHER, candidate=DEFAULT)
    active = server.group.active
    table = make_table(
        OTHER, [make_batch().bucket], geometry=GEOMETRY, device=active.device, build=active.build
    )
    active.offer(table.to_json())
    (first,) = server.experiment_steps(1)
    assert first == [OTHER, DEFAULT] * (LAYERS // 2)


@pytest.mark.parametrize(
    ("seconds", "swapped", "expected"),
    [
        ([9.0, 2.0, 1.0, 2.0, 1.0, 2.0], False, (1e6, 2e6)),
        ([9.0, 2.0, 2.0, 1.0, 2.0, 1.0], True, (1e6, 2e6)),
        ([1.0, 1.5, 1.0, 1.5, 7.0], False, (1e6, 1.5e6)),
    ],
)
def test_pair_is_the_median_over_neighbours(
    seconds: list[float], swapped: bool, expected: tuple[float, float]
) -> None:
    pair = pair_of(seconds, swapped=swapped, digest="d")
    assert pair is not None
    assert (pair.baseline_us, pair.candidate_us) == pytest.approx(expected)


@pytest.mark.parametrize("seconds", [[], [1.0], [1.0, 0.0], [1.0, float("nan")], [1.0, 1e9]])
def test_what_is_no_pair_is_none(seconds: list[float]) -> None:
    assert pair_of(seconds, swapped=False, digest="d") is None
