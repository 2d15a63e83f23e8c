"""Batches whose prefill outweighs their decodes: which are, judged by recorded times of an H200."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.emulated import CONFIG, GEOMETRY, SMS, emulated_gpu

from benchmarks.gpu.speed import small
from benchmarks.gpu.speed.tiles import CASES_PAGE_1
from pod_integrate.builds import nvcc
from pod_integrate.devices.call import Attention, Call
from pod_integrate.devices.cuda import heavy_prefill
from pod_integrate.devices.cuda.attention import Chosen, CudaAttention
from pod_integrate.devices.cuda.choices import tiles_name
from pod_integrate.devices.cuda.device import CudaDevice
from pod_integrate.devices.cuda.heavy_prefill import heavy_config, is_heavy
from pod_integrate.devices.cuda.limits import (
    ARCHITECTURES,
    Architecture,
    default_tiles,
    pair_tiles,
    require_fits,
)
from pod_integrate.devices.cuda.target import CudaTarget
from pod_integrate.devices.cuda.variants import Variant
from pod_integrate.errors import BuildError
from pod_integrate.measure.batches import make_batch
from pod_integrate.measure.reference import attention_reference
from pod_integrate.model.floors import CASES, CaseSpec
from pod_integrate.terms.config import PodConfig
from pod_integrate.terms.keys import DeviceKey, Geometry
from pod_integrate.terms.scalars import Scalars

H200, H100 = (DeviceKey(name, "sm90", 132) for name in ("nvidia-h200", "nvidia-h100-80gb-hbm3"))
ROOT = Path(__file__).resolve().parents[3]
RESULTS = ROOT / "benchmarks" / "results"
RECORDED = json.loads((RESULTS / "gpu_tiles_h200.json").read_text())
SMALL = json.loads((RESULTS / "gpu_small_h200.json").read_text())["cases"]


def heavy(q_lens: list[int], kv_lens: list[int], geometry: Geometry) -> bool:
    return is_heavy(np.array(q_lens), np.array(kv_lens), geometry)


def whole(spec: CaseSpec) -> bool:
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


def test_small_batches_are_heavy_where_it_paid() -> None:
    every = [spec for spec in small.specs() if whole(spec)]
    assert len(every) > 150
    times = [SMALL[spec.name]["us"] for spec in every]
    gains = np.array([us[small.TILES[0]] / us[small.TILES[1]] for us in times])
    assert np.exp(np.log(gains).mean()) > 1.15
    # 1:1 is no more than a stand-in for what the default would do otherwise.
    assert gains.min() > 0.92 and (gains > 1.0).mean() > 0.95


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


def test_a_device_builds_what_it_can_and_fails_only_without_the_config_itself(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    geometry, missing = Geometry.uniform((32, 8, 128), "bf16"), [""]

    def build(variant: Variant, arch: Architecture) -> Path:
        if missing[0] in variant.name:
            raise BuildError(f"{variant.name} is not built for {arch.name}")
        return Path(variant.name)

    monkeypatch.setattr(nvcc, "build", build)
    device = object.__new__(CudaDevice)
    device.__dict__["target"] = CudaTarget(H200)
    default = default_tiles(ARCHITECTURES["sm_90a"], 128)
    with pytest.raises(BuildError, match="d16x192.* is not built"):
        device.build(geometry, default)
    assert not caplog.messages
    for missing[0], what in (("s2w8", "heavy in prefill"), ("d8x192", "whose decodes have few")):
        caplog.clear()
        device.build(geometry, default)
        assert len(caplog.messages) == 1 and f"batches {what}" in caplog.text
    missing[0] = "nothing"
    caplog.clear()
    device.build(geometry, default)
    assert not caplog.messages


def test_only_open_configs_of_the_defaults_tiles_have_one() -> None:
    geometry = Geometry.uniform((32, 8, 128), "bf16")
    default = default_tiles(ARCHITECTURES["sm_90a"], 128)
    found = heavy_config(default, geometry, H200)
    assert found is not None and found.ctas_per_sm == 1
    assert found.decode_split_tokens == default.decode_split_tokens
    assert heavy_config(default, geometry, H100) is None
    for changes in (
        {"strategy": "serial"}, {"prefill_ctas": 1, "decode_ctas": 1}, {"ctas_per_sm": 1},
    ):  # fmt: skip
        assert heavy_config(dataclasses.replace(default, **changes), geometry, H200) is None
    # The same bits in any batch, so the same kernel.
    assert heavy_config(default.batch_invariant(), geometry, H200) is None
    unsplit = dataclasses.replace(default, decode_split_tokens=0)
    assert heavy_config(unsplit.batch_invariant(), geometry, H200) is None
    wide = dataclasses.replace(geometry, head_dim=256)
    assert heavy_config(default_tiles(ARCHITECTURES["sm_90a"], 256), wide, H200) is None
    for head_dim in (64, 128):
        require_fits(pair_tiles(head_dim), ARCHITECTURES["sm_90a"], head_dim)


def test_a_pair_answers_for_the_default_on_the_emulated_gpu(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    count_small_ones(monkeypatch)
    device = emulated_gpu()
    pair = device.attention(GEOMETRY, pair_tiles(GEOMETRY.head_dim))
    known = device.attention(GEOMETRY, CONFIG)
    assert isinstance(known, CudaAttention) and isinstance(pair, CudaAttention)
    chosen = Chosen(known.library, CONFIG, GEOMETRY, SMS, others={"heavy": pair})
    attention = type(known)(chosen, device.runtime, device.schedule)  # type: ignore[call-arg]
    case = make_batch([90, 1, 70], [200, 30, 180], geometry=GEOMETRY, seed=0)
    outs = []
    for each in (attention, pair, known):
        out, lse = torch.empty_like(case.q), torch.empty(case.q.shape[:2])
        each(Call(*case, Scalars(case.q.shape[2] ** -0.5, -1), None, out, lse))
        assert torch.allclose(out.double(), attention_reference(*case).out, rtol=0.01, atol=0.01)
        outs.append(out)
    assert torch.equal(outs[0], outs[1])


def count_small_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if batches that the emulated SM attends were not small."""
    monkeypatch.setattr(heavy_prefill, "LEAST_FLOP", 1e6)
    monkeypatch.setattr(
        heavy_prefill, "FEW_BYTES", dict.fromkeys(heavy_prefill.FLOP_PER_BYTE, -1.0)
    )


class Other(Attention):
    """Answers by the reference and counts the requests of each call."""

    def __init__(self, geometry: Geometry, config: PodConfig) -> None:
        super().__init__(geometry, config)
        self.ran: list[int] = []

    def __call__(self, call: Call) -> None:
        self.ran.append(len(call.batch.kv_lens))
        answer = attention_reference(call.q, call.k_cache, call.v_cache, call.batch)
        call.out.copy_(answer.out)


def test_a_heavy_batch_runs_with_the_other_config_and_no_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    count_small_ones(monkeypatch)
    device = emulated_gpu()
    known = device.attention(GEOMETRY, CONFIG)
    assert isinstance(known, CudaAttention)
    other = Other(GEOMETRY, CONFIG)
    chosen = Chosen(known.library, CONFIG, GEOMETRY, SMS, others={"heavy": other})
    attention = type(known)(chosen, device.runtime, device.schedule)  # type: ignore[call-arg]

    def ran(q_lens: list[int], kv_lens: list[int], **more: Any) -> list[int]:
        """Requests of the batches that the other config ran; what was attended is right."""
        case = make_batch(q_lens, kv_lens, geometry=GEOMETRY, seed=0)
        other.ran.clear()
        out, lse = torch.empty_like(case.q), torch.empty(case.q.shape[:2])
        for _ in range(2):
            attention(Call(*case, Scalars(case.q.shape[2] ** -0.5, -1), None, out, lse, **more))
        assert torch.allclose(out.double(), attention_reference(*case).out, rtol=0.01, atol=0.01)
        return list(other.ran)

    assert ran([90, 1], [200, 30]) == [2, 2]
    assert ran([90, 1, 1], [200, 900, 900]) == [] and ran([1, 1], [30, 40]) == []
    records = torch.zeros(40, 5, dtype=torch.int64)
    assert ran([90, 1], [200, 30], records=records) == []
