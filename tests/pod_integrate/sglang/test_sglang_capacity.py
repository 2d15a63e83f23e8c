"""A captured grid holds any batch of its size, lets small ones fill the GPU, and is bounded."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace
from typing import Any

import hypothesis
import hypothesis.strategies as st
import pytest
import torch

from pod_integrate.devices.cuda.planning import LEAST_SPLIT, plan_batch
from pod_integrate.devices.cuda.variants import Variant
from pod_integrate.devices.device_plan import DevicePlan
from pod_integrate.engines.sglang.decode_room import SPARE_WAVES, DecodeRoom, decode_capacity
from pod_integrate.terms.batch import HybridBatch
from pod_integrate.terms.config import PodConfig
from pod_integrate.terms.keys import Geometry

LLAMA = Geometry.uniform((32, 8, 128), "bf16", page_size=1)
SHIPPED = dataclasses.replace(
    Variant.parse("bf16-d128-p128x64s2w4-d16x192s1w4-c2-v1").config(), decode_split_tokens=2048
)
H100_SMS = 132


def longest(batch: HybridBatch, plan: Any, geometry: Geometry) -> int:
    """decode_split_tokens of a captured step that runs the config of its capture."""
    room = DecodeRoom(batch, plan.capacity, plan.config, geometry)
    return room.longest(plan.config.decode_split_tokens)


def batch_of(kv_lens: list[int], context: int) -> HybridBatch:
    return HybridBatch.build(
        [1] * len(kv_lens),
        kv_lens,
        page_indices=torch.zeros((1, context), dtype=torch.int32),
        page_starts=[0] * len(kv_lens),
        page_size=1,
    )


@pytest.mark.parametrize("virtual_decode", [1, 4])
@pytest.mark.parametrize("size", [1, 8, 256])
def test_grid_of_a_long_context_is_bounded_and_holds_every_batch(
    size: int, virtual_decode: int
) -> None:
    context, num_sms = 1 << 17, 132
    config = dataclasses.replace(SHIPPED, virtual_decode=virtual_decode)
    capacity = decode_capacity(LLAMA, [config], size, context, num_sms)
    items = -(-size * LLAMA.num_kv_heads // virtual_decode)
    assert items <= capacity.decode_ctas <= items + SPARE_WAVES * num_sms * config.ctas_per_sm
    assert capacity.prefill_ctas == 0
    plan: Any = SimpleNamespace(config=config, capacity=capacity)
    generator = torch.Generator().manual_seed(size)
    one_long = [context] + [1] * (size - 1)
    ragged = torch.randint(1, context, (size,), generator=generator).tolist()
    for kv_lens in (one_long, [context] * size, [1] * size, ragged):
        batch = batch_of(kv_lens, context)
        split = longest(batch, plan, LLAMA)
        planned = plan_batch(
            batch.q_indptr,
            batch.kv_lens,
            LLAMA,
            dataclasses.replace(config, decode_split_tokens=split),
            num_sms=num_sms,
        )
        assert all(n <= m for n, m in zip(planned.capacity, capacity, strict=True)), kv_lens[:3]


def filled_plan(
    geometry: Geometry, kv_lens: list[int], context: int, config: PodConfig = SHIPPED
) -> DevicePlan:
    """What a captured step of an H100 holds after `kv_lens`."""
    size = len(kv_lens)
    plan = DevicePlan(
        torch.device("cpu"),
        geometry,
        config=config,
        max_tokens=size,
        max_requests=size,
        capacity=decode_capacity(geometry, [config], size, context, H100_SMS),
        num_sms=H100_SMS,
    )
    batch = batch_of(kv_lens, context)
    plan.update(batch, decode_split_tokens=longest(batch, plan, geometry))
    return plan


@pytest.mark.parametrize(
    ("kv_lens", "window_left", "items"),
    [
        ([8192], -1, 256),
        ([8192] * 4, -1, 256),
        ([2048] * 8, -1, 256),
        # Shares, fewer than 512 items of the config's length.
        ([8192] * 16, -1, 376),
        ([2048] * 32, -1, 256),
        ([8192] * 4, 1023, 128),
        ([100], -1, 8),
        ([32768] + [1] * 7, -1, 26 * 8 + 56),
    ],
)
def test_captured_steps_of_small_batches_are_split_until_they_fill_the_gpu(
    kv_lens: list[int], window_left: int, items: int
) -> None:
    geometry = dataclasses.replace(LLAMA, window_left=window_left)
    plan = filled_plan(geometry, kv_lens, 1 << 15)
    assert plan.words[1] == items
    assert plan.capacity.decode_ctas >= min(items, 2 * H100_SMS)


@hypothesis.settings(max_examples=200)
@hypothesis.given(
    size=st.integers(1, 64),
    context=st.integers(1, 1 << 15),
    window_left=st.sampled_from([-1, -1, 127, 1000, 4095]),
    group=st.sampled_from([1, 4, 20]),
    virtual_decode=st.sampled_from([1, 4]),
    split=st.sampled_from([64, 512, 2048, 8192]),
    data=st.data(),
)
def test_any_captured_step_fits_and_has_the_plan_of_an_eager_one(
    size: int,
    context: int,
    window_left: int,
    group: int,
    virtual_decode: int,
    split: int,
    data: st.DataObject,
) -> None:
    most = data.draw(st.integers(1, context))
    kv_lens = data.draw(st.lists(st.integers(1, most), min_size=size, max_size=size))
    geometry = dataclasses.replace(LLAMA, num_q_heads=8 * group, window_left=window_left)
    config = dataclasses.replace(SHIPPED, decode_split_tokens=split, virtual_decode=virtual_decode)
    plan = filled_plan(geometry, kv_lens, context, config)
    batch = batch_of(kv_lens, context)
    length = longest(batch, plan, geometry)
    assert length == 0 or length >= split
    eager = plan_batch(
        batch.q_indptr,
        batch.kv_lens,
        geometry,
        dataclasses.replace(config, decode_split_tokens=length),
        num_sms=H100_SMS,
    )
    assert torch.equal(plan.words[: eager.words.numel()], eager.words)


@pytest.mark.parametrize("size", [1, 16, 33, 256])
def test_room_to_fill_a_gpu_is_one_wave_at_most(size: int) -> None:
    context = 2048
    capacity = decode_capacity(LLAMA, [SHIPPED], size, context, H100_SMS)
    whole = size * LLAMA.num_kv_heads
    finest = whole * context // LEAST_SPLIT
    assert capacity.decode_ctas == max(whole, min(2 * H100_SMS, finest))
    # A batch that fills the GPU unsplit has nothing to merge.
    assert capacity.merge_ctas == (whole if whole <= 2 * H100_SMS else 0)
    assert capacity.partial_rows <= 2 * H100_SMS * 4


def test_batch_that_fits_keeps_the_configs_split() -> None:
    capacity = decode_capacity(LLAMA, [SHIPPED], 8, 1 << 17, 132)
    plan: Any = SimpleNamespace(config=SHIPPED, capacity=capacity)
    assert longest(batch_of([8192] * 8, 1 << 17), plan, LLAMA) == 2048
    longer = longest(batch_of([1 << 17] * 8, 1 << 17), plan, LLAMA)
    assert longer > 2048 and longer % 16 == 0


def test_config_that_never_splits_is_left_alone() -> None:
    config = dataclasses.replace(SHIPPED, decode_split_tokens=0)
    capacity = decode_capacity(LLAMA, [config], 8, 1 << 17, 132)
    plan: Any = SimpleNamespace(config=config, capacity=capacity)
    assert (capacity.decode_ctas, capacity.partial_rows) == (64, 0)
    assert longest(batch_of([1 << 17] * 8, 1 << 17), plan, LLAMA) == 0


@hypothesis.settings(max_examples=200)
@hypothesis.given(
    size=st.integers(1, 40),
    context=st.integers(1, 1 << 14),
    window_left=st.sampled_from([-1, 127, 1000]),
    group=st.sampled_from([1, 4, 20]),
    virtual_decode=st.sampled_from([1, 4]),
    own=st.sampled_from([0, 512, 2048]),
    other=st.sampled_from([0, 16, 64, 256, 1024, 8192]),
    data=st.data(),
)
def test_a_batch_that_the_grid_is_said_to_hold_in_other_parts_fits(
    size: int,
    context: int,
    window_left: int,
    group: int,
    virtual_decode: int,
    own: int,
    other: int,
    data: st.DataObject,
) -> None:
    kv_lens = data.draw(st.lists(st.integers(1, context), min_size=size, max_size=size))
    geometry = dataclasses.replace(LLAMA, num_q_heads=8 * group, window_left=window_left)
    config = dataclasses.replace(SHIPPED, decode_split_tokens=own, virtual_decode=virtual_decode)
    capacity = decode_capacity(geometry, [config], size, context, H100_SMS)
    batch = batch_of(kv_lens, context)
    if not DecodeRoom(batch, capacity, config, geometry).holds(other):
        return
    planned = plan_batch(
        batch.q_indptr,
        batch.kv_lens,
        geometry,
        dataclasses.replace(config, decode_split_tokens=other),
        num_sms=H100_SMS,
        fill_ctas=0,
    )
    assert all(n <= m for n, m in zip(planned.capacity, capacity, strict=True))


def test_room_for_a_tables_split_is_part_of_a_capture() -> None:
    batch, finer = (
        batch_of([2048] * 64, 2048),
        dataclasses.replace(SHIPPED, decode_split_tokens=512),
    )
    narrow, wide = (
        decode_capacity(LLAMA, configs, 64, 2048, H100_SMS)
        for configs in ([SHIPPED], [SHIPPED, finer])
    )
    assert not DecodeRoom(batch, narrow, SHIPPED, LLAMA).holds(512)
    assert not DecodeRoom(batch, wide, SHIPPED, LLAMA).holds(512)
    batch = batch_of([1024] * 64, 2048)
    assert not DecodeRoom(batch, narrow, SHIPPED, LLAMA).holds(512)
    assert DecodeRoom(batch, wide, SHIPPED, LLAMA).holds(512)
