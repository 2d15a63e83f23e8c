"""Decodes that fill the GPU: shares of it, where items of one length end in waves."""

from __future__ import annotations

import dataclasses
import heapq
import random

import numpy as np
import pytest

from pod_integrate.devices.cuda import limits
from pod_integrate.devices.cuda.choices import PAIRS, tiles_of
from pod_integrate.devices.cuda.planning import LEAST_SPLIT
from pod_integrate.devices.cuda.variants import with_tiles
from pod_integrate.model.batches import Lengths
from pod_integrate.model.items import Array, make_plan
from pod_integrate.terms.config import PodConfig
from pod_integrate.terms.keys import Geometry

SMS, SLOTS = 132, 264
# What an item costs beside its keys, in keys of one byte at head dim 128: as ranges.cpp has it.
START = 59000 / 256
BYTES = dataclasses.replace(Geometry.uniform((32, 8, 128), "bf16", page_size=1), kv_dtype="e4m3")
SHIPPED = limits.default_tiles(limits.ARCHITECTURES["sm_90a"], 128, 1)


def keys_of(items: Array) -> Array:
    keys: Array = items["kv1"] - items["kv0"]
    return keys


def planned(text: str, config: PodConfig = SHIPPED, geometry: Geometry = BYTES) -> Array:
    return keys_of(make_plan(Lengths.parse(text), geometry, config, SMS).decode)


def equal(lengths: Lengths, heads: int, most: int = 4096) -> list[float]:
    """Keys of items of one length, longest first."""
    parts = [(kv, -(-kv // most)) for kv in lengths.kv_lens]
    return sorted((kv / n for kv, n in parts for _ in range(n * heads)), reverse=True)


def ends_after(items: Array | list[float]) -> float:
    """Keys that pass until the last item is done, each begun by the first slot that is free."""
    slots = [0.0] * SLOTS
    for keys in items:
        heapq.heappush(slots, heapq.heappop(slots) + float(keys) + START)
    return max(slots)


@pytest.mark.parametrize(
    ("batch", "gain"),
    # Items of 4096 keys run in 7.8, 2.4, 1.5 and 2.1 waves.
    [("d32@32k", 1.05), ("d20@16384", 1.24), ("d12@16384", 1.34), ("d17@16384", 1.45)],
)
def test_slots_end_together_where_equal_items_leave_a_wave_empty(batch: str, gain: float) -> None:
    keys = planned(batch)
    assert list(keys) == sorted(keys, reverse=True)
    assert ends_after(equal(Lengths.parse(batch), 8)) > gain * ends_after(keys)
    # One start and one least range from what is ideal, in each turn of a slot.
    turns = keys.sum() / SLOTS // 16384 + 1
    assert ends_after(keys) < keys.sum() / SLOTS + (START + turns * (START + LEAST_SPLIT))


def test_no_range_is_short_or_longer_than_another_slot_could_take_over() -> None:
    for batch in ("d32@32k", "d20@16384", "d200@32k", "d3@1000+d30@5000+d10@20000"):
        keys = planned(batch)
        assert keys.min() >= LEAST_SPLIT - 15 and keys.max() <= 16384 + LEAST_SPLIT, batch


@pytest.mark.parametrize("batch", ["d64@2048", "d64@4096", "d16@8192", "d4@32k"])
def test_items_of_one_length_stay_where_they_end_together_anyway(batch: str) -> None:
    assert len(set(planned(batch))) == 1


def test_beside_much_prefill_items_keep_the_length_of_the_config() -> None:
    assert set(planned("p512@16k+d20@16384")) == {4096}
    # Its items are soon done, but there are many.
    assert set(planned("p16k@16k+d20@20480")) == {4096}
    # One after the other, prefill is nothing beside them.
    serial = dataclasses.replace(SHIPPED, strategy="serial")
    assert planned("p512@16k+d20@16384", serial).max() > 4096


def test_beside_a_little_prefill_slots_end_together() -> None:
    plan = make_plan(Lengths.parse("p512@512+d20@20480"), BYTES, SHIPPED, SMS)
    # A key of prefill takes as long as two of one byte.
    prefill = [2.0 * keys - START for keys in keys_of(plan.prefill)]
    decode = Lengths.parse("p512@512+d20@20480").decode
    now, then = ([*prefill, *keys] for keys in (keys_of(plan.decode), equal(decode, 8)))
    assert ends_after(then) > 1.2 * ends_after(now)


@pytest.mark.parametrize("tiles", PAIRS)
def test_ctas_that_run_both_ops_keep_the_length_of_the_config(tiles: str) -> None:
    assert planned("d20@16384", with_tiles(SHIPPED, tiles_of(tiles))).max() == 4096


@pytest.mark.parametrize("split", [0, LEAST_SPLIT])
def test_length_that_is_none_or_the_least_is_not_the_planners_to_change(split: int) -> None:
    config = dataclasses.replace(SHIPPED, decode_split_tokens=split)
    assert set(planned("d20@16384", config)) == {split or 16384}


def test_caller_without_slots_to_fill_gets_items_of_one_length() -> None:
    plan = make_plan(Lengths.parse("d20@16384"), BYTES, SHIPPED, SMS, fill_ctas=0)
    assert set(keys_of(plan.decode)) == {4096}


def test_rows_that_the_config_leaves_whole_are_not_cut() -> None:
    config = dataclasses.replace(SHIPPED, decode_split_tokens=16384)
    assert set(planned("d70@16384", config)) == {16384}
    assert planned("d70@16384").min() < 4096 < planned("d70@16384").max()


def test_ragged_batches_end_sooner_in_the_mean_and_never_much_later() -> None:
    chance, ratios = random.Random(7), []
    for _ in range(120):
        count, heads = chance.choice([16, 40, 64, 128]), chance.choice([1, 4, 8])
        geometry = dataclasses.replace(BYTES, num_q_heads=4 * heads, num_kv_heads=heads)
        lengths = Lengths.of([1] * count, [chance.randint(100, 32768) for _ in range(count)])
        keys = keys_of(make_plan(lengths, geometry, SHIPPED, SMS).decode)
        assert keys.sum() == heads * sum(lengths.kv_lens)
        if keys.max() > 4096:
            ratios.append(ends_after(equal(lengths, heads)) / ends_after(keys))
    assert len(ratios) > 30
    assert min(ratios) > 0.95 and np.exp(np.mean(np.log(ratios))) > 1.03


@pytest.mark.parametrize("kv_dtype", ["bf16", "e4m3"])
def test_smaller_head_dims_keep_the_length_of_the_config(kv_dtype: str) -> None:
    narrow = dataclasses.replace(BYTES, head_dim=64, kv_dtype=kv_dtype)  # type: ignore[arg-type]
    assert set(planned("d20@16384", geometry=narrow)) == {4096}


def test_rows_of_unlike_blocks_meet_what_they_are_short_of() -> None:
    # 24 heads per KV head are a block of 16 rows and one of 8, which take as long.
    geometry = dataclasses.replace(BYTES, num_q_heads=192)
    keys = planned("d14@16384", geometry=geometry)
    assert list(keys) == sorted(keys, reverse=True)
    assert ends_after(keys) < keys.sum() / SLOTS + 2 * START + LEAST_SPLIT


def test_a_prefill_item_takes_the_places_of_all_decodes_of_its_cta() -> None:
    for text in ("p1024@2048+d40@16384", "p2048@2048+d40@16384"):
        for virtual in (1, 4):
            config = dataclasses.replace(SHIPPED, virtual_decode=virtual)
            assert planned(text, config).max() == 4096, (text, virtual)


def test_items_that_a_grid_made_long_are_shares_as_far_as_it_has_room() -> None:
    config = dataclasses.replace(SHIPPED, decode_split_tokens=32768)
    keys = planned("d17@64k", config)
    assert keys.max() > 16384 and len(keys) <= 17 * 8 + SLOTS
    assert ends_after(equal(Lengths.parse("d17@64k"), 8, 32768)) > 1.3 * ends_after(keys)
