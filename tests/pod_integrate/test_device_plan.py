"""A DevicePlan holds any batch up to what was reserved, in place, and refuses a larger one."""

from __future__ import annotations

import dataclasses
from typing import Any

import hypothesis
import hypothesis.strategies as st
import pytest
import torch

from pod_integrate.devices.cuda.planning import Capacity, max_words, plan_batch
from pod_integrate.devices.device_plan import DevicePlan
from pod_integrate.errors import ShapeError
from pod_integrate.measure.batches import make_batch
from pod_integrate.terms.batch import HybridBatch
from pod_integrate.terms.config import PodConfig, TileConfig
from pod_integrate.terms.keys import Geometry

GEOMETRY = Geometry.uniform((4, 2, 64), "bf16")
CONFIG = PodConfig(
    prefill=TileConfig(q_rows=64, kv_rows=32, warps=4),
    decode=TileConfig(q_rows=16, kv_rows=64, warps=4),
    decode_split_tokens=64,
)
# Long enough for items to get shorter where they leave some of the 8 CTA slots idle.
LONG = dataclasses.replace(CONFIG, decode_split_tokens=2048)
CPU = torch.device("cpu")


def batch(q_lens: list[int], kv_lens: list[int]) -> HybridBatch:
    return make_batch(q_lens, kv_lens, geometry=GEOMETRY, seed=0).batch


def reserve(*batches: HybridBatch, config: PodConfig = CONFIG) -> DevicePlan:
    return DevicePlan.reserve(batches, CPU, GEOMETRY, config=config, num_sms=4)


LARGE = batch([100, 1, 1], [200, 300, 90])
SMALL = batch([1, 20, 0], [64, 30, 5])


def test_plan_counts_items_and_splits() -> None:
    planned = plan_batch(LARGE.q_indptr, LARGE.kv_lens, GEOMETRY, CONFIG, num_sms=4)
    # Decode: 300 keys are five parts and 90 two, for each of two KV heads.
    assert planned.capacity.decode_ctas == 2 * (5 + 2)
    # 100 tokens of two heads each are four blocks of 64 rows for each of two KV heads; two waves of
    # 4 SMs x 2 CTAs have room for twice as many, so each block is split in two.
    assert planned.capacity.prefill_ctas == 16
    assert (planned.tokens, planned.requests) == (102, 3)
    assert planned.words[:2].tolist() == [16, 14]


def test_plan_larger_than_the_scratch_is_planned_whole() -> None:
    many = batch([1] * 900, [1] * 900)
    planned = plan_batch(many.q_indptr, many.kv_lens, GEOMETRY, CONFIG, num_sms=4)
    assert planned.capacity == Capacity(0, 1800, 0, 0)
    assert planned.words.numel() >= 12 * 1800


def test_update_writes_the_batchs_plan_in_place() -> None:
    plan = reserve(LARGE, SMALL)
    place = plan.words.data_ptr()
    for chosen in (LARGE, SMALL, LARGE):
        plan.update(chosen)
        want = plan_batch(chosen.q_indptr, chosen.kv_lens, GEOMETRY, CONFIG, num_sms=4).words
        assert torch.equal(plan.words[: want.numel()], want)
    assert plan.words.data_ptr() == place


def test_reserved_capacity_is_the_largest_of_each_op_and_room_for_both_ops_splits() -> None:
    decodes = batch([1] * 9, [640] * 9)
    plan = reserve(LARGE, decodes)
    of = [plan_batch(b.q_indptr, b.kv_lens, GEOMETRY, CONFIG, num_sms=4) for b in (LARGE, decodes)]
    assert plan.capacity.prefill_ctas == of[0].capacity.prefill_ctas
    assert plan.capacity.decode_ctas == of[1].capacity.decode_ctas
    assert plan.capacity.merge_ctas == sum(planned.capacity.merge_ctas for planned in of)
    assert plan.capacity.partial_rows == sum(planned.capacity.partial_rows for planned in of)
    assert (plan.max_tokens, plan.max_requests) == (102, 9)


@pytest.mark.parametrize("virtual_decode", [1, 3])
def test_words_suffice_for_whatever_the_capacity_admits(virtual_decode: int) -> None:
    config = dataclasses.replace(CONFIG, virtual_decode=virtual_decode)
    for chosen in (LARGE, SMALL, batch([], []), batch([1] * 7, [200] * 7)):
        planned = plan_batch(chosen.q_indptr, chosen.kv_lens, GEOMETRY, config, num_sms=4)
        spare = max_words(planned.capacity, config) - planned.words.numel()
        # A last CTA that is not full leaves the words of the items that it lacks.
        assert 0 <= spare <= 12 * (virtual_decode - 1)


def test_mixture_of_reserved_batches_fits() -> None:
    plan = reserve(batch([100, 1], [200, 8]), batch([1] * 9, [640] * 9))
    plan.update(batch([90, *[1] * 8], [190, *[600] * 8]))


def words_of(chosen: HybridBatch, **more: Any) -> torch.Tensor:
    return plan_batch(chosen.q_indptr, chosen.kv_lens, GEOMETRY, LONG, num_sms=4, **more).words


def test_small_batch_has_short_items_where_their_merge_has_room() -> None:
    few, many = batch([1], [2000]), batch([1] * 4, [2000] * 4)
    filled, whole = words_of(few), words_of(few, fill_ctas=0)
    assert filled[1] == 8 and whole[1] == 2
    for reserved, want in (((many, few), filled), ((many,), whole)):
        plan = reserve(*reserved, config=LONG)
        plan.update(few)
        assert torch.equal(plan.words[: want.numel()], want)


def test_items_get_no_shorter_than_a_small_grid_holds() -> None:
    # 600 keys are three parts of 256 at most: six CTAs, where eight could be filled.
    plan = reserve(batch([1], [600]), config=LONG)
    longer = batch([1], [1024])
    plan.update(longer)
    assert plan.capacity.decode_ctas == plan.words[1] == 6 < words_of(longer)[1]


@hypothesis.settings(max_examples=60)
@hypothesis.given(lens=st.lists(st.integers(1, 6000), min_size=1, max_size=6), data=st.data())
def test_whatever_is_smaller_than_what_was_reserved_fits(
    lens: list[int], data: st.DataObject
) -> None:
    plan = reserve(batch([1] * len(lens), lens), config=LONG)
    shorter = [data.draw(st.integers(1, n)) for n in lens]
    kept = data.draw(st.integers(1, len(lens)))
    smaller = batch([1] * kept, shorter[:kept])
    plan.update(smaller)
    assert plan.words[1] >= words_of(smaller, fill_ctas=0)[1]


def test_unused_plan_is_an_empty_batch() -> None:
    assert not reserve(LARGE).words.any()


def test_batch_larger_than_reserved_raises_with_the_numbers_and_changes_nothing() -> None:
    plan = reserve(SMALL)
    plan.update(SMALL)
    before = plan.words.clone()
    with pytest.raises(ShapeError, match=r"tokens 102 of 21.*decode_ctas 14 of 2"):
        plan.update(LARGE)
    assert torch.equal(plan.words, before)


def test_nothing_to_reserve_is_refused() -> None:
    with pytest.raises(ShapeError, match="got no batch"):
        reserve()


def test_call_must_match_the_plan() -> None:
    plan = reserve(LARGE)
    q, k_cache, _, _ = make_batch([100, 1, 1], [200, 300, 90], geometry=GEOMETRY, seed=0)
    with pytest.raises(ShapeError, match=r"plan.update\(batch\) first"):
        plan.require_fits(q, k_cache, LARGE, -1)
    plan.update(LARGE)
    plan.require_fits(q, k_cache, LARGE, -1)
    with pytest.raises(ShapeError, match=r"\(4, 2, -1\), the call has \(4, 2, 7\)"):
        plan.require_fits(q, k_cache, LARGE, 7)
    with pytest.raises(ShapeError, match="q has 50 rows.*may hold 102 tokens"):
        plan.require_fits(q[:50], k_cache, LARGE, -1)
    short = dataclasses.replace(LARGE, page_starts=LARGE.page_starts[:2])
    with pytest.raises(ShapeError, match="page_starts 2 entries.*3 requests"):
        plan.require_fits(q, k_cache, short, -1)
