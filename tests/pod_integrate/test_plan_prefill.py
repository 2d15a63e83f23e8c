"""Prefill items of the CUDA plan: cut where the longest would outlast the rest, nowhere else."""

from __future__ import annotations

import dataclasses
import itertools

import hypothesis
import hypothesis.strategies as st
import pytest

from pod_integrate.devices.cuda import limits
from pod_integrate.devices.cuda.variants import with_tiles
from pod_integrate.model.batches import Lengths
from pod_integrate.model.items import DecodedPlan, make_plan
from pod_integrate.terms.config import PodConfig
from pod_integrate.terms.keys import Geometry

LLAMA, ONE_HEAD = (Geometry.uniform((4 * n, n, 128), "bf16", page_size=1) for n in (8, 1))
SHIPPED = limits.default_tiles(limits.ARCHITECTURES["sm_90a"], 128)
SMS = 132


def planned(batch: Lengths, geometry: Geometry, waves: int, sms: int = SMS) -> DecodedPlan:
    return make_plan(batch, geometry, dataclasses.replace(SHIPPED, max_prefill_waves=waves), sms)


@pytest.mark.parametrize(
    "batch", ["p128@128", "p512@512", "p256@2k", "p512@4k+d32@4k", "p512@16k+d64@16k"]
)
def test_prefill_stays_whole_where_a_merge_costs_more(batch: str) -> None:
    lengths = Lengths.parse(batch)
    assert planned(lengths, LLAMA, 1).prefill_ctas == planned(lengths, LLAMA, 0).prefill_ctas


@pytest.mark.parametrize("batch", ["p512@16k", "p256@32k+d4@4k", "p64@64k+d16@2k"])
def test_few_long_items_are_cut(batch: str) -> None:
    lengths = Lengths.parse(batch)
    whole, cut = (planned(lengths, ONE_HEAD, waves).prefill_ctas for waves in (0, 1))
    assert 2 * whole <= cut <= SMS * SHIPPED.ctas_per_sm


@pytest.mark.parametrize(
    ("batch", "geometry", "staying", "items"),
    [
        # An item per SM, which two CTAs of each would run faster.
        ("p512@16k", LLAMA, False, 256),
        ("p512@64k", LLAMA, False, 256),
        # One item, of which there are as many parts as SMs.
        ("p16@128k", ONE_HEAD, False, 129),
        ("p16@128k", ONE_HEAD, True, 128),
    ],
)
def test_cuts_fill_the_gpu(batch: str, geometry: Geometry, staying: bool, items: int) -> None:
    config = dataclasses.replace(SHIPPED, max_prefill_waves=1)
    if staying:
        config = with_tiles(config, limits.pair_tiles(128))
    assert make_plan(Lengths.parse(batch), geometry, config, SMS).prefill_ctas >= items


def test_a_long_context_is_cut_beside_short_prompts_that_are_not() -> None:
    staying = with_tiles(SHIPPED, limits.pair_tiles(128))
    lengths = Lengths.of([800, 256], [800, 8192])
    whole, cut = (
        make_plan(lengths, LLAMA, dataclasses.replace(staying, max_prefill_waves=waves), SMS)
        for waves in (0, 1)
    )
    tiles, longest = staying.prefill.kv_rows, {0: 0, 1: 0}
    for item in cut.prefill:
        request = int(item["request"])
        longest[request] = max(longest[request], int(item["kv1"] - item["kv0"]))
    assert (whole.prefill["request"] == 0).sum() == (cut.prefill["request"] == 0).sum()
    assert longest[0] > 800 - tiles
    assert longest[1] <= 8192 / 2 + tiles
    assert cut.prefill_ctas <= whole.prefill_ctas + 2 * SMS


def test_prefill_of_one_length_is_cut_as_often_everywhere() -> None:
    cut = planned(Lengths.parse("p512@16k"), ONE_HEAD, 1)
    lengths = cut.prefill["kv1"] - cut.prefill["kv0"]
    assert lengths.max() - lengths.min() <= 2 * SHIPPED.prefill.kv_rows


def test_the_same_prefill_beside_more_decodes_is_cut_less() -> None:
    cuts = [
        planned(Lengths.parse(f"p256@32k+d{count}@16k"), ONE_HEAD, 1).prefill_ctas
        for count in (1, 64, 256, 2048)
    ]
    assert cuts == sorted(cuts, reverse=True) and cuts[0] > cuts[-1] == 8


def test_more_waves_are_filled_whatever_that_costs() -> None:
    lengths = Lengths.parse("p512@4k")
    assert planned(lengths, LLAMA, 2).prefill_ctas == 4 * planned(lengths, LLAMA, 0).prefill_ctas


@hypothesis.given(
    chunks=st.lists(st.tuples(st.integers(20, 800), st.integers(0, 20000)), min_size=1, max_size=3),
    decodes=st.lists(st.integers(1, 20000), max_size=8),
    heads=st.sampled_from([1, 2, 8]),
    sms=st.integers(1, 140),
)
@hypothesis.settings(max_examples=60, deadline=None)
def test_the_rule_keeps_to_one_wave(
    chunks: list[tuple[int, int]], decodes: list[int], heads: int, sms: int
) -> None:
    q_lens = [q for q, _ in chunks] + [1] * len(decodes)
    kv_lens = [q + before for q, before in chunks] + decodes
    geometry = Geometry.uniform((4 * heads, heads, 128), "bf16", page_size=1)
    lengths = Lengths.of(q_lens, kv_lens)
    whole, cut = (planned(lengths, geometry, waves, sms).prefill_ctas for waves in (0, 1))
    assert whole <= cut <= max(whole, sms * SHIPPED.ctas_per_sm)


@pytest.mark.parametrize(
    ("batch", "ratio"),
    [
        ("p512@8k+d64@4k", (1, 1)),  # 128 prefill CTAs, one per SM
        ("p1k@8k+d64@8k", (1, 2)),  # 256
        ("p2k@8k+d64@8k", (512, 1024)),
        ("p1k@8k+d8@2k", (256, 64)),  # fewer decode CTAs than prefill CTAs
    ],
)
def test_few_prefill_ctas_come_early_and_many_in_proportion(
    batch: str, ratio: tuple[int, int]
) -> None:
    assert planned(Lengths.parse(batch), LLAMA, 1).ratio == ratio


def test_a_ratio_that_was_asked_for_stays() -> None:
    config = dataclasses.replace(SHIPPED, prefill_ctas=1, decode_ctas=7)
    assert make_plan(Lengths.parse("p512@8k+d64@4k"), LLAMA, config, SMS).ratio == (1, 7)


def test_prefill_that_runs_before_decodes_is_cut_as_if_it_were_alone() -> None:
    both, alone = Lengths.parse("p256@32k+d2k@16k"), Lengths.parse("p256@32k")
    serial = dataclasses.replace(SHIPPED, strategy="serial")
    cut, lone = (make_plan(b, ONE_HEAD, serial, SMS).prefill_ctas for b in (both, alone))
    assert cut == lone > planned(both, ONE_HEAD, 1).prefill_ctas


@pytest.mark.parametrize("config", [SHIPPED, with_tiles(SHIPPED, limits.pair_tiles(128))])
def test_an_item_of_few_rows_begins_with_those_that_read_as_much(config: PodConfig) -> None:
    # The last 4 of 1,028 packed rows read what 128 do, for as long.
    lengths = Lengths.of([800, 257], [800, 8192])
    plan = make_plan(lengths, LLAMA, dataclasses.replace(config, max_prefill_waves=0), SMS)
    keys = plan.prefill["kv1"] - plan.prefill["kv0"]
    few = plan.prefill["rows"] < 16
    assert few.sum() == 8
    assert keys[few].min() > 8000 and few[: 9 * 8].sum() == 8


@pytest.mark.parametrize(
    ("lengths", "ratio"),
    [
        # 96 long items of 136, which no decode should keep waiting.
        ([(257, 257)] + [(129, 4093)] * 2 + [(4, 2051)] * 3 + [(1, 1057)] * 7, (96, 36)),
        # As many as CTAs, or in no hurry.
        ([(1024, 1024)] * 2 + [(1, 2048)] * 16, (1, 1)),
        ([(256, 4096)] + [(1, 4096)] * 16, (1, 1)),
        ([(1, 4096)] * 16, (0, 1)),
    ],
)
def test_where_ops_take_turns_long_items_of_prefill_all_begin_at_once(
    lengths: list[tuple[int, int]], ratio: tuple[int, int]
) -> None:
    geometry = Geometry.uniform((16, 8, 256), "bf16", page_size=1)
    config = limits.default_tiles(limits.ARCHITECTURES["sm_90a"], 256)
    assert make_plan(Lengths.of(*zip(*lengths, strict=True)), geometry, config, SMS).ratio == ratio


@pytest.mark.parametrize("order", [1, -1])
def test_long_items_are_as_many_in_any_order_of_requests(order: int) -> None:
    # Of 8 heads 4 blocks at 8K and 4 at 7.2K, and 8 of less than half of the longest, but more than
    # half of what items of about its length may have.
    lengths = [(256, 8192), (256, 7300), (512, 4090), (1, 100)][::order]
    geometry = Geometry.uniform((16, 8, 256), "bf16", page_size=1)
    config = limits.default_tiles(limits.ARCHITECTURES["sm_90a"], 256)
    whole = dataclasses.replace(config, max_prefill_waves=0)
    plan = make_plan(Lengths.of(*zip(*lengths, strict=True)), geometry, whole, 100)
    assert plan.ratio == (64, 36)


@pytest.mark.parametrize(
    ("batch", "heads", "parts"),
    [("p128@16k+d16@8k", (16, 8, 256), 2), ("p128@8k+d8@4k", (32, 32, 96), 2)],
)
def test_decodes_hide_no_prefill_for_longer_than_they_are_read(
    batch: str, heads: tuple[int, int, int], parts: int
) -> None:
    geometry = Geometry.uniform(heads, "bf16", page_size=1)
    config = limits.default_tiles(limits.ARCHITECTURES["sm_90a"], heads[2])
    lengths = Lengths.parse(batch)
    whole, cut = (
        make_plan(lengths, geometry, dataclasses.replace(config, max_prefill_waves=waves), SMS)
        for waves in (0, 1)
    )
    assert cut.prefill_ctas == parts * whole.prefill_ctas


@pytest.mark.parametrize("lengths", [[(512, 8192)] * 4, [(4096, 4096)], [(512, 8192), (300, 900)]])
def test_items_of_about_one_length_that_read_the_same_keys_follow_each_other(
    lengths: list[tuple[int, int]],
) -> None:
    heads = Geometry.uniform((32, 32, 128), "bf16", page_size=1)
    plan = planned(Lengths.of(*zip(*lengths, strict=True)), heads, 0)
    sizes = plan.prefill["kv1"] - plan.prefill["kv0"]
    keys = list(zip(plan.prefill["request"], plan.prefill["kv_head"], strict=True))
    first = 0
    while first < len(sizes):
        # What is not of about one length comes longest first.
        run = [i for i in range(first, len(sizes)) if sizes[i] >= sizes[first:].max() * 7 // 8]
        assert run == list(range(first, first + len(run)))
        of_run = [keys[i] for i in run]
        together = [key for key, _ in itertools.groupby(of_run)]
        assert len(together) == len(set(together))
        first += len(run)
    assert max(len(list(same)) for _, same in itertools.groupby(keys)) >= 3
