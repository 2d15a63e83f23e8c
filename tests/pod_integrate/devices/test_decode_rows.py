"""Decode tiles of 8 query rows: where they are allowed, and what the planner makes of them."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from pod_integrate.devices.cuda import limits
from pod_integrate.devices.cuda.choices import TILES, tiles_of
from pod_integrate.devices.cuda.decode_rows import DECODE_ROWS, FEW_ROWS
from pod_integrate.devices.cuda.planning import plan_batch
from pod_integrate.devices.cuda.variants import with_tiles
from pod_integrate.devices.registry import target_of
from pod_integrate.engines.sglang.decode_room import DecodeRoom, decode_capacity
from pod_integrate.engines.sglang.graphs import _parts
from pod_integrate.errors import ConfigInfeasibleError
from pod_integrate.model.batches import Lengths
from pod_integrate.model.items import DecodedPlan, make_plan
from pod_integrate.terms.batch import HybridBatch
from pod_integrate.terms.config import PodConfig
from pod_integrate.terms.keys import DeviceKey, Geometry

H200, A100 = DeviceKey("nvidia-h200", "sm90", 132), DeviceKey("nvidia-a100", "sm80", 108)
CPU = DeviceKey("some-cpu", "avx512", 4)
LLAMA = Geometry.uniform((32, 8, 128), "bf16", page_size=1)
OF_8 = [name for name in TILES if f"-d{FEW_ROWS}x" in name]
ON_WGMMA = tiles_of("p128x64s2w4-d8x192s1w4-c2-v1")
ON_MMA = tiles_of("p128x64s1w4-d8x128s1w4-c2-v1")


def fits(config: PodConfig, geometry: Geometry, device: DeviceKey = H200) -> bool:
    try:
        target_of(device).require_feasible(config, geometry)
    except ConfigInfeasibleError:
        return False
    return True


@pytest.mark.parametrize("heads", [(8, 8), (32, 8), (40, 8), (64, 8), (14, 2)])
def test_groups_of_up_to_eight_heads_are_offered_tiles_of_8_rows(heads: tuple[int, int]) -> None:
    for head_dim in (64, 128):
        geometry = Geometry.uniform((*heads, head_dim), "bf16")
        assert len([name for name in OF_8 if fits(tiles_of(name), geometry)]) >= 4


@pytest.mark.parametrize("name", OF_8)
def test_a_larger_group_is_not_offered_them(name: str) -> None:
    geometry = Geometry.uniform((72, 8, 64), "bf16")
    assert not fits(tiles_of(name), geometry)
    with pytest.raises(ConfigInfeasibleError, match="9 query heads .* Set decode.q_rows to 16"):
        target_of(H200).require_feasible(ON_WGMMA, geometry)


def test_no_default_has_them() -> None:
    for arch in limits.ARCHITECTURES.values():
        for head_dim in limits.HEAD_DIMS:
            assert limits.default_tiles(arch, head_dim).decode.q_rows == DECODE_ROWS
    assert {limits.pair_tiles(dim).decode.q_rows for dim in (64, 96, 128)} == {DECODE_ROWS}


@pytest.mark.parametrize(
    ("config", "device", "geometry"),
    [
        (ON_WGMMA, A100, LLAMA),
        (ON_MMA, H200, LLAMA),
        (ON_WGMMA, H200, dataclasses.replace(LLAMA, kv_dtype="e4m3")),
        (ON_WGMMA, H200, dataclasses.replace(LLAMA, head_dim=256)),
    ],
    ids=["no wgmma", "one stage of prefill", "bytes", "head dim 256"],
)
def test_decode_on_mma_sync_has_no_tile_of_8_rows(
    config: PodConfig, device: DeviceKey, geometry: Geometry
) -> None:
    words = r"decode.q_rows is 8; .* 16-row .* mma.sync. Set decode.q_rows to 16, or on sm_90a"
    with pytest.raises(ConfigInfeasibleError, match=words):
        target_of(device).require_feasible(config, geometry)


@pytest.mark.parametrize("side", ["prefill", "decode"])
def test_no_other_tile_has_8_rows(side: str) -> None:
    config = target_of(CPU).default_config(LLAMA)
    narrow = dataclasses.replace(getattr(config, side), q_rows=FEW_ROWS)
    with pytest.raises(ConfigInfeasibleError, match=f"{side}.q_rows is 8; .* to 16"):
        target_of(CPU).require_feasible(dataclasses.replace(config, **{side: narrow}), LLAMA)
    # Of a GPU's other config, whose decode runs on mma.sync.
    config = target_of(A100).default_config(LLAMA)
    narrow = dataclasses.replace(getattr(config, side), q_rows=FEW_ROWS)
    with pytest.raises(ConfigInfeasibleError, match=f"{side}.q_rows is 8"):
        target_of(A100).require_feasible(dataclasses.replace(config, **{side: narrow}), LLAMA)


def planned(text: str, config: PodConfig) -> DecodedPlan:
    return make_plan(Lengths.parse(text), LLAMA, config, 132)


def speculative(tokens: int, config: PodConfig, split: int = 0) -> DecodedPlan:
    lengths = Lengths((tokens,) * 2, (500, 300))
    return make_plan(lengths, LLAMA, dataclasses.replace(config, decode_split_tokens=split), 132)


@pytest.mark.parametrize("tokens", [1, 2, 3, 4])
def test_requests_of_up_to_16_rows_are_decodes_whatever_the_tile(tokens: int) -> None:
    rows = tokens * 4
    for rows_of_tile in (8, 16):
        tile = dataclasses.replace(ON_WGMMA.decode, q_rows=rows_of_tile)
        plan = speculative(tokens, dataclasses.replace(ON_WGMMA, decode=tile))
        assert len(plan.prefill) == 0
        assert len(plan.decode) == 2 * 8 * -(-rows // rows_of_tile)
        assert int(plan.decode["rows"].sum()) == 2 * 8 * rows
    assert len(speculative(5, ON_WGMMA).decode) == 0


def test_both_items_of_a_request_have_their_own_rows_keys_and_parts() -> None:
    plan = speculative(4, ON_WGMMA, split=128)
    items = plan.decode
    mine = items[(items["request"] == 0) & (items["kv_head"] == 3)]
    first, second = (mine[mine["row0"] == row0] for row0 in (0, 8))
    # Its first two tokens see all keys but the last two.
    assert (len(first), len(second)) == (4, 4) and first["kv1"].max() == 498
    assert second["kv1"].max() == 500 and set(mine["rows"]) == {8}
    slots = [slot for item in items for slot in range(item["slot"], item["slot"] + item["rows"])]
    assert sorted(slots) == list(range(len(slots))), "no two items share a place"
    assert len(plan.merge) == 2 * 2 * 2 * 8 and set(plan.merge["rows"]) == {4}


def test_plans_of_one_token_per_request_are_those_of_16_rows() -> None:
    wide = dataclasses.replace(ON_WGMMA.decode, q_rows=16)
    for text in ("d64@4k", "p512@4k+d7@3000", "d1@32k"):
        few, many = (
            planned(text, dataclasses.replace(ON_WGMMA, decode=tile))
            for tile in (ON_WGMMA.decode, wide)
        )
        assert (few.prefill == many.prefill).all() and (few.decode == many.decode).all()


class Group:
    """What a captured step asks of a group of layers."""

    geometry = LLAMA
    default = ON_WGMMA


@pytest.mark.parametrize(("tokens", "parts"), [(4, [4]), (6, [4, 2]), (1, [1])])
def test_parts_of_a_verify_step_are_decodes_of_16_rows(tokens: int, parts: list[int]) -> None:
    assert _parts(tokens, [Group()]) == parts  # type: ignore[list-item]


@pytest.mark.parametrize("split", [0, 64, 256, 1024])
@pytest.mark.parametrize("parts", [[4], [4, 2], [3, 3, 1]], ids=str)
@pytest.mark.parametrize("tiles", ["p128x64s2w4-d16x192s1w4-c2-v1", OF_8[0], OF_8[-1]])
def test_a_captured_grid_holds_what_it_says_of_several_items_to_a_request(
    tiles: str, parts: list[int], split: int
) -> None:
    config = dataclasses.replace(with_tiles(ON_WGMMA, tiles_of(tiles)), decode_split_tokens=512)
    size, context = 6, 4096
    capacity = decode_capacity(LLAMA, [config], size, context, 132, parts)
    held = 0
    for keys in (4096, 2000, 300, 60):
        q_lens, kv_lens = parts * size, [keys - i for i in range(len(parts) * size)]
        batch = HybridBatch.build(
            q_lens,
            kv_lens,
            page_indices=torch.zeros((1, context), dtype=torch.int32),
            page_starts=[0] * len(q_lens),
            page_size=1,
        )
        room = DecodeRoom(batch, capacity, config, LLAMA)
        # As when it was captured: unsplit it always fits.
        assert room.holds(0)
        for length in {split, room.longest(512)}:
            if not room.holds(length):
                continue
            held += 1
            cut = dataclasses.replace(config, decode_split_tokens=length)
            found = plan_batch(
                batch.q_indptr, batch.kv_lens, LLAMA, cut, num_sms=132, fill_ctas=0
            ).capacity
            assert all(n <= m for n, m in zip(found, capacity, strict=True))
    assert held >= 4
