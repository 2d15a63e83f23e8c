"""Config tables on captured decode steps: splits at once, tiles at the next capture."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import pytest
import torch
from support import emulated
from support.clock import HandClock
from support.emulated import CONFIG, emulated_gpu
from support.graphs import FILL, attend, forward_batch, slots_table, tensors
from support.tables import make_evidence

from pod_integrate.devices.cuda.planning import plan_batch
from pod_integrate.devices.cuda.variants import Variant, with_tiles
from pod_integrate.devices.emulated.device import EmulatedDevice
from pod_integrate.devices.registry import standing_in
from pod_integrate.engines.sglang.graphs import DecodeGraphs, GraphStep
from pod_integrate.live.layer_group import LayerGroup
from pod_integrate.live.open_step import OpenStep
from pod_integrate.live.recorder import Recorder
from pod_integrate.live.registry import ActiveTable
from pod_integrate.measure.accuracy import BF16_TOLERANCE
from pod_integrate.measure.reference import attention_reference
from pod_integrate.terms.config import PodConfig
from pod_integrate.terms.keys import Bucket
from pod_integrate.terms.table import ConfigTable, TableEntry

GEOMETRY = dataclasses.replace(emulated.GEOMETRY, page_size=1)
SPLIT = dataclasses.replace(CONFIG, decode_split_tokens=128)
OTHER_TILES = with_tiles(CONFIG, Variant.parse("bf16-d64-p64x32s1w4-d16x32s1w1-c2-v2"))
# More than run it: the grid has room for several splits.
PLANNED_SMS = 16
KEYS = [350, 330, 390, 340]
HERE = Bucket.of([1] * 4, KEYS)


@pytest.fixture(autouse=True)
def gpu() -> Iterator[EmulatedDevice]:
    device = emulated_gpu()
    with standing_in(device):
        yield device


@pytest.fixture
def group(gpu: EmulatedDevice) -> LayerGroup:
    recorder = Recorder(HandClock(), sample=1.0)
    group = LayerGroup(GEOMETRY, ActiveTable(GEOMETRY, gpu.key, "b"), recorder, gpu)
    group.layers = [0, 1]
    return group


def offer(group: LayerGroup, configs: dict[Bucket, PodConfig], *, prepare: bool = True) -> None:
    active = group.active
    entries = {b: TableEntry(config, make_evidence("b")) for b, config in configs.items()}
    table = ConfigTable(3, active.geometry, active.device, active.build, "now", entries)
    active.offer(table.to_json())
    for config in configs.values() if prepare else ():
        group.readiness.prepare(config, ([1] * 4, KEYS))


def captured(group: LayerGroup, size: int = 4) -> DecodeGraphs:
    graphs = DecodeGraphs(slots_table(), 4, num_sms=PLANNED_SMS)
    capture(graphs, group, size)
    graphs.update(forward_batch(KEYS[:size], [3, 1, 7, 2][:size]))
    return graphs


def capture(graphs: DecodeGraphs, group: LayerGroup, size: int = 4) -> GraphStep:
    return graphs.capture(forward_batch([FILL] * size, [0] * size), [group])


def traced(group: LayerGroup) -> OpenStep:
    step = group.close_step()
    assert step is not None
    return step


def assert_planned(step: GraphStep, group: LayerGroup, config: PodConfig) -> None:
    batch = step.batch
    want = plan_batch(
        batch.q_indptr, batch.kv_lens, GEOMETRY, config, num_sms=PLANNED_SMS, fill_ctas=0
    )
    for plan in (step.layers[group].plan.first, step.layers[group].plan.second):
        assert plan.words[1:3].tolist() == want.words[1:3].tolist()
        assert plan.words[8] == want.words[8]


def test_a_tables_split_acts_on_the_next_replay_of_its_bucket(group: LayerGroup) -> None:
    graphs = captured(group)
    offer(group, {HERE: SPLIT})
    step = graphs.update(forward_batch(KEYS, [3, 1, 7, 2]))
    assert_planned(step, group, SPLIT)
    found = traced(group)
    assert (found.config, found.source, found.kv_lens) == (SPLIT, "exact", KEYS)
    inputs = tensors(4)
    want = attention_reference(*inputs, step.batch).out
    out = attend(step, group, inputs)
    torch.testing.assert_close(out.double(), want, atol=BF16_TOLERANCE, rtol=BF16_TOLERANCE)


def test_a_split_that_was_not_verified_here_is_asked_for_and_waits(group: LayerGroup) -> None:
    graphs = captured(group)
    offer(group, {HERE: SPLIT}, prepare=False)
    assert_planned(graphs.update(forward_batch(KEYS, [3, 1, 7, 2])), group, CONFIG)
    assert group.readiness.wanted() == [(SPLIT, ([1] * 4, KEYS))]
    group.readiness.prepare(SPLIT, ([1] * 4, KEYS))
    assert_planned(graphs.update(forward_batch(KEYS, [3, 1, 7, 2])), group, SPLIT)


def test_a_bucket_that_the_table_has_not_runs_what_was_captured(group: LayerGroup) -> None:
    graphs = captured(group)
    offer(group, {HERE: SPLIT})
    step = graphs.update(forward_batch([40, 30, 50, 45], [3, 1, 7, 2]))
    assert_planned(step, group, CONFIG)
    found = traced(group)
    assert (found.config, found.source) == (CONFIG, "default")


def test_rows_of_padding_do_not_choose_the_bucket(group: LayerGroup) -> None:
    graphs = captured(group)
    offer(group, {Bucket.of([1] * 3, KEYS[:3]): SPLIT})
    graphs.update(forward_batch(KEYS[:3], [3, 1, 7], padding=1))
    assert traced(group).source == "exact"


def test_a_split_without_room_in_the_captured_grid_waits(group: LayerGroup) -> None:
    graphs = captured(group)
    fine = dataclasses.replace(CONFIG, decode_split_tokens=32)
    offer(group, {HERE: fine})
    assert_planned(graphs.update(forward_batch(KEYS, [3, 1, 7, 2])), group, CONFIG)
    assert traced(group).source == "default"


def test_other_tiles_wait_for_the_next_capture(group: LayerGroup) -> None:
    graphs = captured(group)
    offer(group, {HERE: OTHER_TILES})
    before = graphs.update(forward_batch(KEYS, [3, 1, 7, 2]))
    assert traced(group).config == CONFIG
    assert before.layers[group].plan.config == CONFIG
    graphs.renew(4)
    again = capture(graphs, group)
    assert again.layers[group].plan.config == OTHER_TILES
    # The graph of before may not have been dropped yet.
    assert again.layers[group].plan.first.words.data_ptr() not in (
        before.layers[group].plan.first.words.data_ptr(),
        before.layers[group].plan.second.words.data_ptr(),
    )
    for _ in range(2):
        step = graphs.update(forward_batch(KEYS, [3, 1, 7, 2]))
    found = traced(group)
    assert (found.config, found.source) == (OTHER_TILES, "exact")
    inputs = tensors(4)
    want = attention_reference(*inputs, step.batch).out
    out = attend(again, group, inputs)
    torch.testing.assert_close(out.double(), want, atol=BF16_TOLERANCE, rtol=BF16_TOLERANCE)


def test_variants_of_one_capture_share_their_plans(group: LayerGroup) -> None:
    graphs = DecodeGraphs(slots_table(), 4, num_sms=PLANNED_SMS)
    assert capture(graphs, group).layers is capture(graphs, group).layers


def test_a_size_keeps_its_plans_until_it_is_captured_again(group: LayerGroup) -> None:
    graphs = captured(group)
    before = graphs.update(forward_batch(KEYS, [3, 1, 7, 2])).layers
    graphs.renew(8)
    assert graphs.update(forward_batch(KEYS, [3, 1, 7, 2])).layers is before
    assert capture(graphs, group, 8).batch.page_starts.numel() == 8


def test_a_table_that_disagrees_on_tiles_leaves_a_size_with_the_defaults(
    group: LayerGroup,
) -> None:
    longer = dataclasses.replace(HERE, decode_context=2 * HERE.decode_context)
    offer(group, {HERE: OTHER_TILES, longer: SPLIT})
    assert (
        capture(DecodeGraphs(slots_table(), 4, num_sms=PLANNED_SMS), group)
        .layers[group]
        .plan.config
        == CONFIG
    )


def test_a_table_of_other_sizes_does_not_choose_tiles(group: LayerGroup) -> None:
    offer(group, {HERE: OTHER_TILES})
    graphs = DecodeGraphs(slots_table(), 4, num_sms=PLANNED_SMS)
    assert capture(graphs, group, 1).layers[group].plan.config == CONFIG
    assert capture(graphs, group, 4).layers[group].plan.config == OTHER_TILES


def test_a_replay_of_the_default_has_the_bits_of_before_and_after_a_tables_reign(
    group: LayerGroup,
) -> None:
    graphs, inputs = captured(group), tensors(4)
    view = forward_batch(KEYS, [3, 1, 7, 2])
    before = attend(graphs.update(view), group, inputs)
    offer(group, {HERE: SPLIT})
    graphs.update(view)
    offer(group, {})
    step = graphs.update(view)
    assert all(torch.equal(attend(step, group, inputs, place), before) for place in range(2))


def test_deterministic_inference_knows_no_table(gpu: EmulatedDevice) -> None:
    active = ActiveTable(GEOMETRY, gpu.key, "b")
    group = LayerGroup(GEOMETRY, active, None, gpu, batch_invariant=True)
    offer(group, {HERE: OTHER_TILES})
    graphs = captured(group)
    step = graphs.update(forward_batch(KEYS, [3, 1, 7, 2]))
    assert step.layers[group].plan.config == group.default
    assert_planned(step, group, group.default)
