"""Decode items of the CUDA plan: short enough to fill the GPU, never shorter than that takes."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from typing import Any

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
import torch

from pod_integrate.devices.cuda import limits
from pod_integrate.devices.cuda.choices import PAIRS, tiles_of
from pod_integrate.devices.cuda.planning import LEAST_SPLIT, plan_batch
from pod_integrate.devices.cuda.variants import with_tiles
from pod_integrate.model.batches import Lengths
from pod_integrate.model.items import Array, DecodedPlan, make_plan
from pod_integrate.terms.config import PodConfig
from pod_integrate.terms.keys import Geometry

LLAMA = Geometry.uniform((32, 8, 128), "bf16", page_size=1)
SHIPPED = limits.default_tiles(limits.ARCHITECTURES["sm_90a"], 128)
SMS = 132


def keys_of(items: Array) -> Array:
    keys: Array = items["kv1"] - items["kv0"]
    return keys


@pytest.mark.parametrize(
    ("batch", "items", "longest"),
    [
        ("d1@8192", 256, 256),
        ("d4@8192", 256, 1024),
        ("d8@2048", 256, 512),
        ("d16@8192", 256, 4096),
        ("d32@2048", 256, 2048),
        ("d1@32k", 264, 1008),
        ("d1@300", 16, 156),
    ],
)
def test_small_batches_fill_the_gpu_and_large_ones_keep_their_items(
    batch: str, items: int, longest: int
) -> None:
    plan = make_plan(Lengths.parse(batch), LLAMA, SHIPPED, SMS)
    assert len(plan.decode) == plan.decode_ctas == items
    assert keys_of(plan.decode).max() == longest


def words(lengths: Lengths, config: PodConfig, **more: Any) -> torch.Tensor:
    indptr = torch.tensor([0, *lengths.q_lens]).cumsum(0).to(torch.int32)
    kv_lens = torch.tensor(lengths.kv_lens, dtype=torch.int32)
    return plan_batch(indptr, kv_lens, LLAMA, config, num_sms=SMS, **more).words


@pytest.mark.parametrize("split", [0, 16, LEAST_SPLIT])
def test_length_that_is_none_or_short_already_stays(split: int) -> None:
    config = dataclasses.replace(SHIPPED, decode_split_tokens=split)
    lengths = Lengths.parse("d2@1000")
    assert torch.equal(words(lengths, config), words(lengths, config, fill_ctas=0))


def test_decodes_beside_a_prefill_that_fills_the_gpu_stay_as_they_were() -> None:
    lengths = Lengths.parse("p2k@4k+d1@8192")
    plan = make_plan(lengths, LLAMA, SHIPPED, SMS)
    # 2048 tokens of 4 heads each are 64 blocks of 128 rows for each of 8 KV heads.
    assert plan.prefill_ctas == 512 and len(plan.decode) == 2 * 8
    assert torch.equal(words(lengths, SHIPPED), words(lengths, SHIPPED, fill_ctas=0))


def test_decodes_beside_a_small_prefill_take_the_slots_that_it_leaves() -> None:
    config = dataclasses.replace(SHIPPED, max_prefill_waves=0)
    plan = make_plan(Lengths.parse("p512@4k+d1@8192"), LLAMA, config, SMS)
    # 264 - 128 slots hold 17 parts for each of 8 KV heads: 496 keys are the least that makes 17.
    assert plan.prefill_ctas == 128 and plan.decode_ctas == 17 * 8
    assert keys_of(plan.decode).max() == 496


@pytest.mark.parametrize("tiles", PAIRS)
@pytest.mark.parametrize("prefill", ["", "p512@4k+", "p2k@4k+"])
def test_where_ctas_run_both_ops_prefill_takes_no_slot_of_decodes(tiles: str, prefill: str) -> None:
    config = dataclasses.replace(with_tiles(SHIPPED, tiles_of(tiles)), max_prefill_waves=0)
    plan = make_plan(Lengths.parse(f"{prefill}d1@8192"), LLAMA, config, SMS)
    # 132 decoders take 16 parts of each of 8 KV heads.
    assert len(plan.decode) == 16 * 8 and keys_of(plan.decode).max() == 512


@pytest.mark.parametrize(("fill", "items"), [(0, 16), (40, 40), (100, 96), (1 << 20, 256)])
def test_caller_bounds_the_ctas_that_are_filled(fill: int, items: int) -> None:
    plan = make_plan(Lengths.parse("d1@8192"), LLAMA, SHIPPED, SMS, fill_ctas=fill)
    assert len(plan.decode) == items


@st.composite
def cases(draw: st.DrawFn) -> tuple[Lengths, Geometry, PodConfig, int]:
    """Decodes, some with two tokens, and at times a prefill chunk, on any number of SMs."""
    kv_lens = draw(st.lists(st.integers(2, 20000), min_size=1, max_size=12))
    q_lens = [draw(st.sampled_from([0, 1, 1, 1, 2])) for _ in kv_lens]
    if draw(st.booleans()):
        q_lens.append(draw(st.integers(20, 400)))
        kv_lens.append(draw(st.integers(400, 3000)))
    geometry = dataclasses.replace(
        LLAMA,
        num_q_heads=draw(st.sampled_from([8, 16, 64, 160])),
        window_left=draw(st.sampled_from([-1, -1, 100, 1000])),
    )
    config = dataclasses.replace(
        SHIPPED,
        decode_split_tokens=16 * draw(st.integers(1, 256)),
        virtual_decode=draw(st.sampled_from([1, 1, 3])),
        max_prefill_waves=draw(st.sampled_from([0, 1])),
    )
    return Lengths.of(q_lens, kv_lens), geometry, config, draw(st.integers(1, 140))


def ranges(items: Array) -> dict[tuple[int, int, int], list[tuple[int, int]]]:
    """KV ranges in order, by (request, KV head, first row)."""
    found = defaultdict(list)
    for item in items:
        place = (int(item["request"]), int(item["kv_head"]), int(item["row0"]))
        found[place].append((int(item["kv0"]), int(item["kv1"])))
    return {place: sorted(parts) for place, parts in found.items()}


def count(whole: DecodedPlan, length: int) -> int:
    """Items when none may have more than `length` keys."""
    return sum(max(1, -(-int(n) // length)) for n in keys_of(whole.decode))


@hypothesis.settings(max_examples=150)
@hypothesis.given(case=cases())
def test_any_plan_has_the_least_length_that_fits_the_free_slots(
    case: tuple[Lengths, Geometry, PodConfig, int],
) -> None:
    lengths, geometry, config, sms = case
    plan = make_plan(lengths, geometry, config, sms)
    whole = make_plan(lengths, geometry, dataclasses.replace(config, decode_split_tokens=0), sms)
    most = config.decode_split_tokens
    free = max(0, sms * config.ctas_per_sm - plan.prefill_ctas) * config.virtual_decode
    fitting = [n for n in range(LEAST_SPLIT, most + 1, 16) if count(whole, n) <= free]
    length = min(fitting, default=most)
    slots = sms * config.ctas_per_sm * config.virtual_decode
    split, unsplit = ranges(plan.decode), ranges(whole.decode)
    longest = [[b - a for a, b in parts] for parts in split.values()]
    if all(len(parts) == max(1, -(-sum(parts) // length)) for parts in longest):
        assert len(plan.decode) <= max(free, count(whole, most))
        # A unit, and a tail that is less.
        assert all(max(parts) - min(parts) < 32 for parts in longest)
    else:
        # Shares of a GPU that decodes fill.
        assert count(whole, most) > free and most > LEAST_SPLIT
        assert len(plan.decode) <= max(len(whole.decode) + slots, count(whole, most))
    # Every range is covered once, in parts that begin at units of 16 keys.
    assert split.keys() == unsplit.keys()
    for place, parts in split.items():
        ((begin, end),) = unsplit[place]
        assert [a for a, _ in parts] == [begin, *(b for _, b in parts[:-1])]
        assert parts[-1][1] == end and all(a < b for a, b in parts)
        assert all((a - begin) % 16 == 0 for a, _ in parts)
    assert np.array_equal(plan.prefill, whole.prefill)


@hypothesis.settings(max_examples=60)
@hypothesis.given(case=cases())
def test_a_larger_gpu_never_gets_fewer_decode_items(
    case: tuple[Lengths, Geometry, PodConfig, int],
) -> None:
    lengths, geometry, config, sms = case
    # Beside a prefill that takes no places of theirs, decodes have items of one length.
    config = dataclasses.replace(with_tiles(config, tiles_of(PAIRS[0])), virtual_decode=1)
    lengths = lengths.decode
    counts = [len(make_plan(lengths, geometry, config, n).decode) for n in (sms, sms + 1, 2 * sms)]
    assert counts == sorted(counts)
