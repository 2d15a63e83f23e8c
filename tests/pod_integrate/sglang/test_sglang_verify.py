"""Verify steps of speculative decoding: rows of a few tokens, eager and captured."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from support import emulated
from support.emulated import CONFIG, SMS, emulated_gpu
from support.graphs import CONTEXT, FILL, SLOTS, Inputs, attend, forward_batch, slots_table
from support.step import MAX_CONTEXT
from support.step import forward_batch as eager_batch

from pod_integrate.devices.base import Device
from pod_integrate.devices.cuda.planning import STAMP_WORD
from pod_integrate.devices.emulated.device import EmulatedDevice
from pod_integrate.devices.emulated.emulator import Schedule
from pod_integrate.devices.registry import standing_in
from pod_integrate.engines.sglang.decode_room import decode_capacity
from pod_integrate.engines.sglang.graphs import DecodeGraphs
from pod_integrate.engines.sglang.speculation import speculation, verify_parts
from pod_integrate.engines.sglang.step import hybrid_batch, replayed_lengths, step_lengths
from pod_integrate.errors import UnsupportedFeatureError
from pod_integrate.live.layer_group import LayerGroup
from pod_integrate.live.recorder import Recorder
from pod_integrate.live.registry import ActiveTable
from pod_integrate.measure.accuracy import BF16_TOLERANCE
from pod_integrate.measure.reference import attention_reference
from pod_integrate.terms.batch import HybridBatch
from pod_integrate.terms.keys import Geometry

# Query heads, KV heads, tokens of a verify step, and tokens of the items that it is cut into.
SHAPES = [(4, 2, 3, [3]), (8, 2, 5, [4, 1]), (8, 1, 4, [2, 2]), (20, 1, 2, [1, 1])]


@pytest.fixture(autouse=True)
def gpu() -> Iterator[Device]:
    """Attends what lies on the CPU."""
    with standing_in(emulated_gpu()) as gpu:
        yield gpu


def make_group(heads: int, kv_heads: int, window_left: int = -1) -> LayerGroup:
    geometry = Geometry.uniform((heads, kv_heads, 64), "bf16", page_size=1)
    geometry = dataclasses.replace(geometry, window_left=window_left)
    gpu = EmulatedDevice(Schedule(num_sms=SMS), default=CONFIG)
    return LayerGroup(geometry, ActiveTable(geometry, gpu.key, "b"), None, gpu)


def inputs(rows: int, heads: int, kv_heads: int) -> Inputs:
    torch.manual_seed(2)
    shapes = ((rows, heads, 64), (SLOTS, 1, kv_heads, 64), (SLOTS, 1, kv_heads, 64))
    q, k_cache, v_cache = (torch.randn(shape, dtype=torch.bfloat16) for shape in shapes)
    return q, k_cache, v_cache


def whole(table: torch.Tensor, kv_lens: list[int], rows: list[int], tokens: int) -> HybridBatch:
    """The step as one row of tokens for each request: what it means."""
    return HybridBatch.build(
        [tokens] * len(kv_lens),
        [n + tokens for n in kv_lens],
        page_indices=table,
        page_starts=[CONTEXT * row for row in rows],
        page_size=1,
    )


@pytest.mark.parametrize("window_left", [-1, 100])
@pytest.mark.parametrize(("heads", "kv_heads", "tokens", "parts"), SHAPES)
def test_replay_attends_the_chain_of_each_request(
    heads: int, kv_heads: int, tokens: int, parts: list[int], window_left: int
) -> None:
    table, group = slots_table(), make_group(heads, kv_heads, window_left)
    graphs = DecodeGraphs(table, 3, tokens=tokens, num_sms=SMS)
    captured = graphs.capture(forward_batch([FILL] * 3, [0] * 3), [group])
    assert captured.batch.lengths[0] == parts * 3
    # Nothing of a verify step may go to the prefill kernel.
    assert captured.layers[group].plan.capacity.prefill_ctas == 0
    tensors = q, k_cache, v_cache = inputs(3 * tokens, heads, kv_heads)
    for kv_lens, rows, padding in (
        ([CONTEXT - tokens, 17, 64], [3, 1, 7], 0),
        ([1, 390 - tokens], [6, 4], 1),
    ):
        graphs.update(forward_batch(kv_lens, rows, padding))
        out = attend(captured, group, tensors)
        real = len(kv_lens) * tokens
        batch = whole(table, kv_lens, rows, tokens)
        want = attention_reference(q[:real], k_cache, v_cache, batch, window_left=window_left).out
        torch.testing.assert_close(
            out[:real].double(), want, atol=BF16_TOLERANCE, rtol=BF16_TOLERANCE
        )


def test_groups_of_layers_share_the_narrowest_items() -> None:
    groups = [make_group(4, 2), make_group(8, 1)]
    graphs = DecodeGraphs(slots_table(), 1, tokens=4, num_sms=SMS)
    step = graphs.capture(forward_batch([FILL], [0]), groups)
    assert step.batch.lengths == ([2, 2], [FILL + 2, FILL + 4])


def test_a_verify_step_is_not_traced() -> None:
    group = make_group(4, 2)
    group.recorder, group.layers = Recorder(group.clock, sample=1.0), [0, 1]
    graphs = DecodeGraphs(slots_table(), 1, tokens=3, num_sms=SMS)
    graphs.capture(forward_batch([FILL], [0]), [group])
    for _ in range(3):
        step = graphs.update(forward_batch([50], [1]))
    twins = step.layers[group].plan
    assert group.open is None
    assert [int(plan.words[STAMP_WORD]) for plan in (twins.first, twins.second)] == [0, 0]


def test_lengths_of_a_verify_replay_leave_the_items_of_padding_out() -> None:
    graphs = DecodeGraphs(slots_table(), 2, tokens=5, num_sms=SMS)
    graphs.capture(forward_batch([FILL] * 2, [0] * 2), [make_group(8, 2)])
    padded = forward_batch([40], [3], padding=1)
    batch = graphs.update(padded).batch
    assert replayed_lengths(batch, padded, parts=2) == ([4, 1], [44, 45])


def test_grid_has_room_for_the_rows_that_items_of_several_tokens_split() -> None:
    geometry = Geometry.uniform((8, 2, 64), "bf16", page_size=1)
    one, four = (
        decode_capacity(geometry, [CONFIG], 2, CONTEXT, SMS, parts=parts) for parts in ([1], [4])
    )
    assert (four.decode_ctas, four.partial_rows) == (one.decode_ctas, 4 * one.partial_rows)


def test_eager_verify_step_counts_its_own_tokens() -> None:
    batch = eager_batch([20, 9], "verify", rows=[3, 1])
    assert step_lengths(batch) == ([3, 3], [23, 12])
    table = torch.zeros((4, MAX_CONTEXT), dtype=torch.int32)
    assert hybrid_batch(batch, table).num_tokens == 6


def test_lengths_on_the_device_only_are_refused() -> None:
    batch = eager_batch([20], "verify")
    batch.seq_lens_cpu = None
    with pytest.raises(UnsupportedFeatureError, match="lengths on the host"):
        step_lengths(batch)


@pytest.mark.parametrize("tokens", range(1, 9))
@pytest.mark.parametrize("group", [1, 3, 4, 8, 16, 20])
def test_items_cover_a_request_and_fit_a_tile(tokens: int, group: int) -> None:
    parts = verify_parts(tokens, group, 16)
    assert sum(parts) == tokens
    assert all(part == 1 or part * group <= 16 for part in parts)
    assert len(parts) == -(-tokens // max(1, 16 // group))


def runner_of(*, draft: bool = False, speculates: bool = True) -> Any:
    algorithm = SimpleNamespace(is_speculative=lambda: speculates)
    return SimpleNamespace(spec_algorithm=algorithm, is_draft_worker=draft)


@pytest.mark.parametrize(
    ("flags", "verifies"),
    [
        ({"attention_backend": "pod"}, True),
        ({"prefill_attention_backend": "pod", "decode_attention_backend": "fa3"}, True),
        (
            {
                "prefill_attention_backend": "pod",
                "decode_attention_backend": "fa3",
                "speculative_attention_mode": "decode",
            },
            False,
        ),
        ({"attention_backend": "pod", "prefill_attention_backend": "fa3"}, False),
    ],
)
def test_who_verifies_is_the_side_that_the_mode_names(
    flags: dict[str, str], verifies: bool
) -> None:
    arguments = SimpleNamespace(
        speculative_algorithm="eagle3", speculative_num_draft_tokens=4, **flags
    )
    found = speculation(runner_of(), arguments)
    assert found is not None
    assert (found.algorithm, found.draft_tokens) == ("EAGLE3", 4)
    assert (found.verifies, found.drafts) == (verifies, False)


def test_a_draft_model_is_not_verified_with() -> None:
    arguments = SimpleNamespace(attention_backend="pod", speculative_algorithm="EAGLE")
    found = speculation(runner_of(draft=True), arguments)
    assert found is not None and found.drafts and not found.verifies
    assert speculation(runner_of(speculates=False), arguments) is None


@pytest.mark.parametrize(("value", "on"), [("1", True), ("yes", True), ("y", True), ("no", False)])
def test_plan_stream_is_read_as_sglang_reads_it(
    value: str, on: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SGLANG_ENABLE_OVERLAP_PLAN_STREAM", value)
    arguments = SimpleNamespace(attention_backend="pod", speculative_algorithm="EAGLE")
    found = speculation(runner_of(), arguments)
    assert found is not None and found.plan_stream is on


def test_emulated_default_is_what_the_shapes_above_count_on() -> None:
    assert emulated.CONFIG.decode.q_rows == 16
