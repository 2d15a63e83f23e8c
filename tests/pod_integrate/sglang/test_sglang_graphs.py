"""What captured decode steps read: rewritten in place, within a grid fixed at capture."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import pytest
import torch
from support import emulated
from support.clock import HandClock
from support.emulated import CONFIG, SMS, emulated_gpu
from support.graphs import CONTEXT, FILL, attend, forward_batch, slots_table, tensors

from pod_integrate.devices.base import Device
from pod_integrate.devices.cuda.planning import STAMP_WORD, plan_batch
from pod_integrate.devices.emulated.device import EmulatedDevice
from pod_integrate.devices.emulated.emulator import Schedule
from pod_integrate.devices.registry import standing_in
from pod_integrate.engines.sglang.graphs import (
    DecodeGraphs,
    GraphStep,
)
from pod_integrate.engines.sglang.step import replayed_lengths
from pod_integrate.errors import ShapeError, UnsupportedFeatureError
from pod_integrate.live.layer_group import LayerGroup
from pod_integrate.live.recorder import Recorder
from pod_integrate.live.registry import ActiveTable
from pod_integrate.measure.accuracy import BF16_TOLERANCE
from pod_integrate.measure.reference import attention_reference
from pod_integrate.terms.config import PodConfig
from pod_integrate.terms.keys import Geometry

GEOMETRY = dataclasses.replace(emulated.GEOMETRY, page_size=1)


@pytest.fixture
def group() -> LayerGroup:
    return make_group(GEOMETRY)


def make_group(geometry: Geometry, config: PodConfig = CONFIG) -> LayerGroup:
    gpu = EmulatedDevice(Schedule(num_sms=SMS), default=config)
    return LayerGroup(geometry, ActiveTable(geometry, gpu.key, "b"), None, gpu)


@pytest.fixture
def table() -> torch.Tensor:
    return slots_table()


@pytest.fixture(autouse=True)
def gpu() -> Iterator[Device]:
    """Attends what lies on the CPU."""
    with standing_in(emulated_gpu()) as gpu:
        yield gpu


STEPS: tuple[tuple[list[int], list[int], int], ...] = (
    ([350, 17, 64, 1], [3, 1, 7, 2], 0),
    ([5, 400], [6, 4], 2),
    ([65, 33, 128], [2, 5, 1], 1),
    ([], [], 4),
)


@pytest.mark.parametrize("window_left", [-1, 100])
def test_replay_attends_the_batch_it_was_updated_with(
    table: torch.Tensor, window_left: int
) -> None:
    group = make_group(dataclasses.replace(GEOMETRY, window_left=window_left))
    graphs = DecodeGraphs(table, 4, num_sms=SMS)
    captured = graphs.capture(forward_batch([FILL] * 4, [0] * 4), [group])
    q, k_cache, v_cache = inputs = tensors(4)
    for kv_lens, rows, padding in STEPS:
        step = graphs.update(forward_batch(kv_lens, rows, padding))
        out = attend(captured, group, inputs)
        want = attention_reference(q, k_cache, v_cache, step.batch, window_left=window_left).out
        torch.testing.assert_close(out.double(), want, atol=BF16_TOLERANCE, rtol=BF16_TOLERANCE)


def test_deterministic_replay_is_the_same_bits_at_any_captured_size(table: torch.Tensor) -> None:
    config = dataclasses.replace(CONFIG, decode_split_tokens=0).batch_invariant()
    group = make_group(GEOMETRY, config)
    graphs, inputs = DecodeGraphs(table, 4, num_sms=SMS), tensors(4)
    found: dict[int, list[torch.Tensor]] = {}
    for size, rows in ((1, [3]), (2, [3, 1]), (4, [3, 7, 1])):
        graphs.capture(forward_batch([FILL] * size, [0] * size), [group])
        keys = [{3: 350, 1: 170, 7: 64}[row] for row in rows]
        step = graphs.update(forward_batch(keys, rows, size - len(rows)))
        q = torch.stack([inputs[0][row % 4] for row in rows] + [inputs[0][0]] * (size - len(rows)))
        for row, out in zip(rows, attend(step, group, (q, *inputs[1:])), strict=False):
            found.setdefault(row, []).append(out)
    assert [len(outs) for outs in found.values()] == [3, 2, 1]
    assert all(torch.equal(out, outs[0]) for outs in found.values() for out in outs)


def test_what_a_graph_reads_never_moves(table: torch.Tensor, group: LayerGroup) -> None:
    graphs = DecodeGraphs(table, 4, num_sms=SMS)
    sizes = {n: graphs.capture(forward_batch([FILL] * n, [0] * n), [group]) for n in (4, 2, 1)}
    for size, captured in sizes.items():
        step = graphs.update(forward_batch([40] * size, list(range(1, size + 1))))
        assert step.layers[group].plan is captured.layers[group].plan
        assert step.batch.page_starts.data_ptr() == captured.batch.page_starts.data_ptr()
        assert step.batch.page_indices.data_ptr() == table.data_ptr()
        assert step.batch.page_starts.tolist() == [CONTEXT * (b + 1) for b in range(size)]
    plans = [captured.layers[group].plan for captured in sizes.values()]
    assert len({p.words.data_ptr() for twins in plans for p in (twins.first, twins.second)}) == 6


def test_words_are_those_of_the_new_lengths(table: torch.Tensor, group: LayerGroup) -> None:
    graphs = DecodeGraphs(table, 2, num_sms=SMS)
    graphs.capture(forward_batch([FILL] * 2, [0] * 2), [group])
    for kv_lens in ([200, 30], [3, 5]):
        step = graphs.update(forward_batch(kv_lens, [1, 2]))
        want = plan_batch(
            step.batch.q_indptr,
            torch.tensor(kv_lens, dtype=torch.int32),
            GEOMETRY,
            CONFIG,
            num_sms=SMS,
        ).words
        assert torch.equal(step.layers[group].plan.first.words[: want.numel()], want)


@pytest.mark.parametrize(("tokens", "few"), [(1, True), (4, True), (5, False)])
def test_a_captured_plan_promises_the_rows_of_its_decodes(
    table: torch.Tensor, group: LayerGroup, tokens: int, few: bool
) -> None:
    graphs = DecodeGraphs(table, 2, num_sms=SMS, tokens=tokens)
    twins = graphs.capture(forward_batch([FILL] * 2, [0] * 2), [group]).layers[group].plan
    assert [plan.held.few_rows for plan in (twins.first, twins.second)] == [few, few]


def test_groups_of_layers_have_plans_of_their_own(table: torch.Tensor, group: LayerGroup) -> None:
    window = make_group(dataclasses.replace(GEOMETRY, window_left=63))
    graphs = DecodeGraphs(table, 2, num_sms=SMS)
    graphs.capture(forward_batch([FILL] * 2, [0] * 2), [group, window])
    layers = graphs.update(forward_batch([120, 120], [1, 2])).layers
    # The header's count of decode items: 120 keys are two parts, a window of 64 is one.
    assert layers[group].plan.first.words[1] == 2 * 2 * 2
    assert layers[window].plan.first.words[1] == 2 * 2


def test_size_that_was_not_captured_is_refused(table: torch.Tensor, group: LayerGroup) -> None:
    graphs = DecodeGraphs(table, 4, num_sms=SMS)
    graphs.capture(forward_batch([FILL] * 4, [0] * 4), [group])
    with pytest.raises(UnsupportedFeatureError, match=r"no decode graph of 3 .*captured are \[4\]"):
        graphs.update(forward_batch([9, 9, 9], [1, 2, 3]))


def test_lengths_on_the_device_only_are_refused(table: torch.Tensor, group: LayerGroup) -> None:
    batch = forward_batch([FILL], [0])
    batch.seq_lens_cpu = None
    with pytest.raises(UnsupportedFeatureError, match="lengths on the host"):
        DecodeGraphs(table, 1, num_sms=SMS).capture(batch, [group])


def test_lengths_of_a_replay_leave_padding_out(table: torch.Tensor, group: LayerGroup) -> None:
    graphs = DecodeGraphs(table, 4, num_sms=SMS)
    graphs.capture(forward_batch([FILL] * 4, [0] * 4), [group])
    padded = forward_batch([100, 100], [1, 2], padding=2)
    assert replayed_lengths(graphs.update(padded).batch, padded) == ([1, 1], [100, 100])


def stamp_of(step: GraphStep, group: LayerGroup) -> int:
    twins = step.layers[group].plan
    (stamp,) = {int(plan.words[STAMP_WORD]) for plan in (twins.first, twins.second)}
    return stamp


def test_a_replay_is_traced_by_a_stamp_in_its_plan_where_steps_are_recorded(
    table: torch.Tensor, group: LayerGroup
) -> None:
    recorded = make_group(dataclasses.replace(GEOMETRY, window_left=7))
    recorded.recorder, recorded.layers = Recorder(HandClock(), sample=1.0), [0, 1]
    graphs = DecodeGraphs(table, 4, num_sms=SMS)
    captures = [
        graphs.capture(forward_batch([FILL] * n, [0] * n), [group, recorded]) for n in (4, 2)
    ]
    first, second = (step.layers[recorded].captured.timer for step in captures)
    assert (
        captures[0].layers[group].captured.timer is None
        and first is not None
        and first is not second
    )
    stamps = []
    # The first replay warms up.
    for _ in range(3):
        step = graphs.update(forward_batch([50] * 3, [1, 2, 3], padding=1))
        stamps.append([stamp_of(step, g) for g in (group, recorded)])
    assert stamps == [[0, 0], [0, 1], [0, 2]]
    assert recorded.open is not None and recorded.open.kv_lens == [50] * 3


def test_without_the_longer_split_a_long_batch_would_not_fit(table: torch.Tensor) -> None:
    config = dataclasses.replace(CONFIG, decode_split_tokens=16)
    group, graphs = make_group(GEOMETRY, config), DecodeGraphs(table, 4, num_sms=SMS)
    graphs.capture(forward_batch([FILL] * 4, [0] * 4), [group])
    step = graphs.update(forward_batch([CONTEXT] * 4, [1, 2, 3, 4]))
    with pytest.raises(ShapeError, match="decode_ctas"):
        step.layers[group].plan.update(step.batch, config.decode_split_tokens)


def test_a_replay_that_is_not_drawn_leaves_the_timer_alone(
    table: torch.Tensor, group: LayerGroup
) -> None:
    group.recorder, group.layers = Recorder(HandClock(), sample=0.0), [0, 1]
    graphs = DecodeGraphs(table, 4, num_sms=SMS)
    graphs.capture(forward_batch([FILL] * 4, [0] * 4), [group])
    steps = [graphs.update(forward_batch([50] * 4, [1, 2, 3, 4])) for _ in range(3)]
    assert [stamp_of(step, group) for step in steps] == [0, 0, 0] and group.open is None
    timer = steps[-1].layers[group].captured.timer
    assert timer is not None and timer.arm() == 1
