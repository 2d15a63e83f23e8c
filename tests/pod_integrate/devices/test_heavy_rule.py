"""Which batches are heavy in prefill, or small: judged by recorded times of an H200."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.gpu.speed import small
from benchmarks.gpu.speed.tiles import CASES_PAGE_1
from pod_integrate.devices.cuda import heavy_prefill
from pod_integrate.devices.cuda.choices import tiles_name
from pod_integrate.devices.cuda.heavy_prefill import is_heavy
from pod_integrate.devices.cuda.limits import pair_tiles
from pod_integrate.model.floors import CASES, CaseSpec
from pod_integrate.terms.keys import Geometry

ROOT = Path(__file__).resolve().parents[3]
RESULTS = ROOT / "benchmarks" / "results"
RECORDED = json.loads((RESULTS / "gpu_tiles_h200.json").read_text())
SMALL = json.loads((RESULTS / "gpu_small_h200.json").read_text())["cases"]


def heavy(q_lens: list[int], kv_lens: list[int], geometry: Geometry) -> bool:
    return is_heavy(np.array(q_lens), np.array(kv_lens), geometry)


def whole(spec: small.Small) -> bool:
    return heavy(list(spec.lengths.q_lens), list(spec.lengths.kv_lens), spec.geometry)


def gain(spec: CaseSpec, part: str, over: str = "1:1") -> float:
    """Time of the default's tiles in one launch over that of the pair's, as recorded."""
    us = RECORDED["cases"][spec.name]["parts"][part]["us"]
    tiles = tiles_name(pair_tiles(spec.head_dim))
    return float(us[over] / next(t for name, t in us.items() if name.startswith(tiles)))


@pytest.mark.parametrize("spec", [*CASES, *CASES_PAGE_1], ids=lambda spec: spec.name)
def test_recorded_batches_are_heavy_where_it_paid(spec: CaseSpec) -> None:
    if whole(spec):
        assert gain(spec, "all") > 1.0
    else:
        # Over what the default does instead, which may be a launch of each op.
        assert gain(spec, "all", "default") < 1.06 or spec.chunk < 256
    if heavy([spec.chunk], [spec.context], spec.geometry):
        assert gain(spec, "prefill") > 1.01


def test_most_recorded_prefills_and_fourteen_hybrid_batches_are_heavy() -> None:
    every = [*CASES, *CASES_PAGE_1]
    hybrid = [spec for spec in every if whole(spec)]
    alone = [spec for spec in every if heavy([spec.chunk], [spec.context], spec.geometry)]
    assert len(hybrid) >= 14 and len(alone) >= 27
    gains = [gain(spec, "all") for spec in hybrid]
    assert np.exp(np.mean(np.log(gains))) > 1.1


def recorded_small() -> list[tuple[small.Small, bool, dict[str, float]]]:
    """The small batches, whether each is heavy, and its times by small.TILES."""
    every: list[small.Small] = [*small.specs(), *small.sample()]
    found = [(spec, SMALL[spec.name]["us"]) for spec in every if spec.name in SMALL]
    return [(spec, whole(spec), us) for spec, us in found]


def test_small_batches_are_heavy_where_it_paid() -> None:
    own, both = small.TILES
    gains = np.array([us[own] / us[both] for _, is_one, us in recorded_small() if is_one])
    assert len(gains) > 600 and np.exp(np.log(gains).mean()) > 1.1
    # Single times of 20 us are of little worth: the mean is what a rule is judged by.
    assert gains.min() > 0.85 and (gains > 1.0).mean() > 0.85


@pytest.mark.parametrize("head_dim", [64, 96, 128])
def test_what_is_chosen_for_small_batches_is_near_the_quicker(head_dim: int) -> None:
    every = [found for found in recorded_small() if found[0].head_dim == head_dim]
    lost = [us[small.TILES[is_one]] / min(us.values()) for _, is_one, us in every]
    assert len(every) > 100 and np.exp(np.log(lost).mean()) < 1.015


def test_short_items_in_two_waves_are_not_heavy_beside_very_few_bytes() -> None:
    geometry = Geometry.uniform((64, 8, 64), "bf16")
    # 128 and 256 items beside 11 MB, then the latter beside 34 MB, and as many of up to 8K keys.
    few, more = [700] * 8, [1024] * 16
    assert heavy([256, *[1] * 8], [256, *few], geometry)
    assert not heavy([512, *[1] * 8], [512, *few], geometry)
    assert heavy([512, *[1] * 16], [512, *more], geometry)
    assert heavy([512, *[1] * 8], [8192, *few], geometry)
    # As short, and more than the default's CTAs run at once.
    assert not heavy([1024, *[1] * 8], [1024, *few], geometry)
    assert heavy([2048], [8192], geometry)
    assert heavy([2048], [2048], Geometry.uniform((16, 1, 64), "bf16"))


def test_a_small_chunk_is_heavy_beside_decodes_that_read_few_bytes() -> None:
    for heads, keys in (((32, 8, 128), 2000), ((64, 8, 64), 8000), ((32, 32, 96), 3000)):
        geometry = Geometry.uniform(heads, "bf16")
        bytes_of_a_key = 4 * heads[1] * heads[2]
        few = int(heavy_prefill.FEW_BYTES[heads[2]] / bytes_of_a_key / keys)
        assert heavy([100, *[1] * few], [100, *[keys] * few], geometry)
        # One more, and there is too little to compute for so many bytes.
        assert not heavy([100, *[1] * (few + 1)], [100, *[keys] * (few + 1)], geometry)
        assert not heavy([1] * few, [keys] * few, geometry)


def test_very_short_prefill_at_head_dim_64_is_heavy_only_beside_decodes_and_if_there_is_some() -> (
    None
):
    geometry, one = Geometry.uniform((64, 8, 64), "bf16"), Geometry.uniform((9, 3, 64), "bf16")
    beside = ([1] * 4, [1024] * 4)
    # 64 items, alone and beside decodes; 9, beside them; 16 of 64 packed rows, but of 4K keys.
    assert not heavy([128], [128], geometry)
    assert heavy([128, *beside[0]], [128, *beside[1]], geometry)
    assert not heavy([128, *beside[0]], [128, *beside[1]], one)
    assert heavy([4] * 16, [4096] * 16, Geometry.uniform((16, 1, 64), "bf16"))
    # Elsewhere it is, alone or not.
    assert heavy([64], [64], Geometry.uniform((32, 8, 128), "bf16"))


def test_many_short_prompts_are_not_heavy() -> None:
    llama = Geometry.uniform((32, 8, 128), "bf16")
    assert not heavy([17] * 200, [17] * 200, llama) and heavy([1024] * 4, [1024] * 4, llama)
    # Beside 50 MB, past two waves: very short ones, longer ones, and so many that they outweigh it.
    beside = ([1] * 12, [1024] * 12)
    for count, tokens, expected in ((200, 17, False), (100, 300, True), (3000, 100, True)):
        q_lens = [tokens] * count
        assert heavy([*q_lens, *beside[0]], [*q_lens, *beside[1]], llama) == expected


def test_a_window_counts_on_both_sides() -> None:
    geometry = Geometry.uniform((32, 8, 128), "bf16")
    wide, narrow = (dataclasses.replace(geometry, window_left=n) for n in (1023, 127))
    q_lens, kv_lens = [2048, *[1] * 16], [16384] * 17
    assert heavy(q_lens, kv_lens, geometry)
    # What either side sees shrinks alike, and so does the whole.
    assert heavy(q_lens, kv_lens, wide)
    assert heavy([512], [16384], geometry) and not heavy([1] * 8, [16384] * 8, geometry)
    small = Geometry.uniform((64, 8, 64), "bf16")
    assert heavy([8], [16384], small)
    assert not heavy([8], [16384], dataclasses.replace(small, window_left=127))


def test_rows_that_the_planner_decodes_are_decodes() -> None:
    geometry = Geometry.uniform((32, 8, 128), "bf16")
    assert not heavy([4] * 32, [8192] * 32, geometry) and not heavy([2] * 64, [4096] * 64, geometry)
    # Five rows of four heads each are more than a tile of decode holds.
    assert heavy([5] * 64, [8192] * 64, geometry)


def test_other_head_dims_and_dtypes_have_no_heavy_batches() -> None:
    bytes_of_64 = dataclasses.replace(Geometry.uniform((32, 8, 64), "bf16"), kv_dtype="e4m3")
    others = [Geometry.uniform((32, 8, 256), "bf16"), Geometry.uniform((32, 8, 32), "fp32")]
    for geometry in (*others, bytes_of_64):
        assert not heavy([2048], [8192], geometry) and not heavy([], [], geometry)


def test_padding_weighs_nothing() -> None:
    geometry = Geometry.uniform((32, 8, 128), "bf16")
    assert heavy([2048, *[0] * 128], [8192] * 129, geometry)
    assert not heavy([2048, *[1] * 128], [8192] * 129, geometry)


def test_lengths_that_contradict_each_other_are_left_to_the_plan() -> None:
    assert not heavy([8192, 1], [8192, 1, 1], Geometry.uniform((32, 8, 128), "bf16"))
