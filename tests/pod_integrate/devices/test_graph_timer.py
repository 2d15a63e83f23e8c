"""Stamps inside a graph: launched by the kernel's library, on the emulated SM."""

from __future__ import annotations

import pytest
import torch

from pod_integrate.devices.cuda import kernel_library, launch
from pod_integrate.devices.cuda.device_plan import DevicePlan
from pod_integrate.devices.cuda.graph_timer import SLOTS, GraphTimer
from pod_integrate.devices.cuda.planning import STAMP_WORD
from pod_integrate.devices.cuda.variants import Variant
from pod_integrate.devices.emulated import emulator
from pod_integrate.terms.batch import HybridBatch
from pod_integrate.terms.config import PodConfig
from pod_integrate.terms.keys import Geometry

VARIANT = Variant.parse("bf16-d64-p64x32s1w4-d16x64s1w4-c2-v1")
GEOMETRY = Geometry(
    num_q_heads=4, num_kv_heads=2, head_dim=64, dtype="bf16", kv_dtype="bf16", page_size=1
)
BATCH = HybridBatch.build(
    [1, 1],
    [5, 9],
    page_indices=torch.zeros(14, dtype=torch.int32),
    page_starts=[0, 5],
    page_size=1,
)


@pytest.fixture
def plan(monkeypatch: pytest.MonkeyPatch) -> DevicePlan:
    library = kernel_library.load(emulator.build(VARIANT))

    def choose(config: tuple[int, ...], geometry: Geometry, _: int | None) -> launch.Chosen:
        return launch.Chosen(library, launch.unflatten_config(config), geometry, num_sms=2)

    monkeypatch.setattr(launch, "choose", choose)
    monkeypatch.setattr(launch, "current_stream", lambda _: 0)
    config: PodConfig = VARIANT.config()
    return DevicePlan.reserve([BATCH], torch.device("cpu"), GEOMETRY, config=config, num_sms=2)


def replay(timer: GraphTimer, layers: int) -> int:
    """What a replay launches; returns the timed layers."""
    marks = [timer.start(layer) for layer in range(layers)]
    for mark in marks:
        if mark is not None:
            timer.stop(mark)
    return sum(mark is not None for mark in marks)


@pytest.mark.parametrize(("layers", "timed"), [(1, 1), (7, 7), (8, 4), (32, 4)])
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
