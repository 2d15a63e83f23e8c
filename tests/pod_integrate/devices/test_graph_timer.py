"""Stamps inside a graph: launched by the kernel's library, on the emulated SM."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import pytest
import torch
from support import emulated
from support.emulated import VARIANT, emulated_gpu

from pod_integrate.devices.cuda.planning import STAMP_WORD
from pod_integrate.devices.device_plan import DevicePlan
from pod_integrate.devices.graph_timer import (
    LAYERS_PER_PAIR,
    SLOTS,
    TIMED_PAIRS,
    GraphTimer,
    timed_positions,
)
from pod_integrate.devices.registry import standing_in
from pod_integrate.terms.batch import HybridBatch

GEOMETRY = dataclasses.replace(emulated.GEOMETRY, page_size=1)
BATCH = HybridBatch.build(
    [1, 1],
    [5, 9],
    page_indices=torch.zeros(14, dtype=torch.int32),
    page_starts=[0, 5],
    page_size=1,
)


@pytest.fixture
def plan() -> Iterator[DevicePlan]:
    with standing_in(emulated_gpu()):
        yield DevicePlan.reserve([BATCH], torch.device("cpu"), GEOMETRY, config=VARIANT.config())


def replay(timer: GraphTimer, layers: int) -> int:
    """What a replay launches; returns the timed layers."""
    marks = [timer.start(layer) for layer in range(layers)]
    for mark in marks:
        if mark is not None:
            timer.stop(mark)
    return sum(mark is not None for mark in marks)


@pytest.mark.parametrize(("layers", "timed"), [(1, 1), (2, 2), (7, 2), (8, 2), (30, 6), (80, 8)])
def test_a_replay_whose_plan_names_a_row_is_timed(
    plan: DevicePlan, layers: int, timed: int
) -> None:
    timer = GraphTimer(plan, range(layers))
    slot = timer.arm()
    plan.update(BATCH, stamp=slot)
    assert timer.seconds(slot) is None
    assert replay(timer, layers) == timed
    found = timer.seconds(slot)
    assert found is not None and 0 <= found < 60


def test_a_replay_without_a_row_writes_nothing(plan: DevicePlan) -> None:
    timer = GraphTimer(plan, range(4))
    slot = timer.arm()
    plan.update(BATCH)
    assert int(plan.words[STAMP_WORD]) == 0
    replay(timer, 4)
    assert timer.seconds(slot) is None


def test_the_next_replay_leaves_what_is_still_to_be_read(plan: DevicePlan) -> None:
    timer = GraphTimer(plan, range(4))
    slots = [timer.arm() for _ in range(2)]
    for slot in slots:
        plan.update(BATCH, stamp=slot)
        replay(timer, 4)
    rows = [timer._ring[slot - 1].tolist() for slot in slots]
    assert min(rows[1]) > max(rows[0]) > 0
    assert [timer.arm() for _ in range(SLOTS)] == [*range(3, SLOTS + 1), 1, 2]
    assert timer.seconds(slots[0]) is None


def test_what_a_pair_of_stamps_costs_is_taken_off(plan: DevicePlan) -> None:
    timer = GraphTimer(plan, range(2))
    timer._ring[0] = torch.tensor([1000, 1300, 2000, 7300, 8000, 11300])
    assert timer.seconds(1) == pytest.approx(4000e-9)
    assert timer.each(1) == pytest.approx([5000e-9, 3000e-9])


@pytest.mark.parametrize("layers", range(2, 140))
def test_timed_layers_are_neighbours_that_read_both_plans_spread_over_the_model(
    layers: int,
) -> None:
    timed = timed_positions(layers)
    firsts, seconds = timed[::2], timed[1::2]
    assert len(timed) == 2 * min(TIMED_PAIRS, max(1, layers // LAYERS_PER_PAIR))
    assert all(a % 2 == 0 and b == a + 1 for a, b in zip(firsts, seconds, strict=True))
    assert timed == sorted(set(timed)) and timed[-1] < layers
    gaps = [b - a for a, b in zip(firsts, firsts[1:], strict=False)]
    assert not gaps or max(gaps) - min(gaps) <= 2
