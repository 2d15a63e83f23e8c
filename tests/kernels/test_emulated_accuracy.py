"""The CUDA kernel's source, emulated, within the law of accuracy, and what it makes of extremes.

Long cases are a device's: `pod-attn bench gpu -- checks` runs all of them.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
import torch

from benchmarks.accuracy.accuracy_cases import AccuracyCase, extreme_cases, feature_cases
from benchmarks.accuracy.accuracy_law import judge
from pod_integrate.devices.cuda.variants import Variant
from pod_integrate.devices.emulated import emulator
from pod_integrate.devices.emulated.emulator import Emulated
from pod_integrate.terms.batch import HybridBatch
from pod_integrate.terms.config import PodConfig
from pod_integrate.terms.geometry import DTYPES, TORCH_DTYPES
from pod_integrate.terms.keys import Dtype

# Prefill on mma.sync and on wgmma; decode items on four warps and on one.
TILES = {"mma": "p64x32s1w4-d16x64s1w4-c2-v1", "wgmma": "p128x64s2w4-d16x32s1w1-c2-v1"}
SPLIT: dict[str, Any] = {"decode_split_tokens": 256, "max_prefill_waves": 4}
WHOLE: dict[str, Any] = {"decode_split_tokens": 0, "max_prefill_waves": 0}
SMALLEST = "p16x16s1w1-d16x16s1w1-c2-v1"


def config_of(tiles: str, dtype: str, *, head_dim: int = 64, split: bool = False) -> PodConfig:
    config = Variant.parse(f"{dtype}-d{head_dim}-{tiles}").config()
    return dataclasses.replace(config, **(SPLIT if split else WHOLE))


def assert_within_the_law(case: AccuracyCase, config: PodConfig) -> None:
    found = judge(
        case,
        lambda _, inputs: (
            emulator.attend(*inputs, config=config, **case.features(inputs.q.device)).attention
        ),
        rounded_weights=True,
    )
    assert found.holds, found


def some_cases() -> list[AccuracyCase]:
    """A seventh of those with extreme logits or features, in every dtype and pattern."""
    found = [*extreme_cases(), *feature_cases((64,))]
    return [case for case in found if case.dtype != "fp32"][::7]


@pytest.mark.parametrize("path", TILES)
@pytest.mark.parametrize("case", some_cases(), ids=lambda case: case.name)
def test_error_is_within_the_law(case: AccuracyCase, path: str) -> None:
    assert_within_the_law(case, config_of(TILES[path], case.dtype, split=case.split))


def attend(
    tiles: str,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    *,
    split: bool = False,
    **told: Any,
) -> Emulated:
    """One head over one request: q [T, 64], k and v [keys, 64]."""
    dtype = DTYPES[q.dtype]
    keys = len(k)
    batch = HybridBatch.build(
        [len(q)],
        [keys],
        page_indices=torch.arange(keys, dtype=torch.int32),
        page_starts=[0],
        page_size=1,
    )
    config = config_of(tiles, dtype, split=split)
    return emulator.attend(
        q[:, None], k[:, None, None], v[:, None, None], batch, config=config, **told
    )


@pytest.mark.parametrize("path", TILES)
@pytest.mark.parametrize("rows", [1, 40], ids=["decode", "prefill"])
@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize(("dtype", "size"), [("bf16", 133120.0), ("fp16", 20000.0)])
def test_keys_of_one_huge_score_weigh_the_same(
    path: str, rows: int, sign: int, dtype: Dtype, size: float
) -> None:
    q = torch.full((rows, 64), sign * size, dtype=TORCH_DTYPES[dtype])
    k = torch.full((rows, 64), size, dtype=TORCH_DTYPES[dtype])
    got = attend(TILES[path], q, k, torch.ones_like(k))
    assert bool((got.out == 1).all())
    logit = sign * size * size * 64 / 8
    assert torch.allclose(got.lse.double(), torch.full((1,), logit).double(), rtol=1e-6, atol=0)


@pytest.mark.parametrize("path", TILES)
@pytest.mark.parametrize("rows", [1, 40], ids=["decode", "prefill"])
@pytest.mark.parametrize("split", [False, True], ids=["whole", "split"])
def test_tiles_of_one_score_do_not_fade(path: str, rows: int, split: bool) -> None:
    """Values cancel: one tile that weighs less than another shows at once."""
    keys = 4096
    q, k = torch.zeros(rows, 64), torch.zeros(keys, 64)
    q[:, 0], k[:, 0] = 872.0, 446.0  # times the scale, far from what float32 holds
    v = torch.ones(keys, 64)
    v[keys // 2 :] = -1
    got = attend(TILES[path], *(t.bfloat16() for t in (q, k, v)), split=split)
    seen = torch.arange(keys - rows + 1, keys + 1)
    assert torch.allclose(
        got.out[:, 0, 0].double(), keys / seen.double() - 1, rtol=2**-8, atol=2e-5
    )
    lse = 872 * 446 / 8 + seen.double().log()
    assert torch.allclose(got.lse[:, 0].double(), lse, rtol=0, atol=4e-3)


@pytest.mark.parametrize("rows", [1, 17], ids=["decode", "prefill"])
def test_sum_of_weights_does_not_drift_over_a_thousand_tiles(rows: int) -> None:
    """Roundings of a plain sum all go one way here: 1.5e-5 of it."""
    keys, below = 16384, 0.75
    q, k = torch.zeros(rows, 64), torch.zeros(keys, 64)
    q[:, 0], k[1:, 0] = 8.0, -below
    got = attend(SMALLEST, q.bfloat16(), k.bfloat16(), torch.zeros(keys, 64).bfloat16())
    exact = math.log(1 + (keys - 1) * math.exp(-below))
    assert abs(float(got.lse[-1]) - exact) < 4e-6


@pytest.mark.parametrize("path", TILES)
@pytest.mark.parametrize("rows", [1, 40], ids=["decode", "prefill"])
@pytest.mark.parametrize("cap", [0.0, 30.0])
@pytest.mark.parametrize("split", [False, True], ids=["whole", "split"])
def test_nan_reaches_the_rows_that_see_it_and_no_other(
    path: str, rows: int, cap: float, split: bool
) -> None:
    keys, bad = 600, 580
    q = torch.zeros(rows, 64, dtype=torch.bfloat16)
    k, v = torch.zeros(2, keys, 64, dtype=torch.bfloat16)
    k[bad] = math.nan
    got = attend(TILES[path], q, k, v + 1, split=split, logit_cap=cap)
    seeing = torch.arange(keys - rows, keys) >= bad
    assert torch.equal(got.lse[:, 0].isnan(), seeing)
    assert torch.equal(got.out[:, 0].isnan().any(1), seeing)
    assert bool((got.out[~seeing] == 1).all())
    q[0] = math.nan
    got = attend(TILES[path], q, k[:bad], v[:bad] + 1, split=split, logit_cap=cap)
    assert bool(got.out[0].isnan().all()) and bool(got.lse[0].isnan().all())
    assert bool((got.out[1:] == 1).all())


@pytest.mark.parametrize("path", TILES)
@pytest.mark.parametrize("rows", [1, 40], ids=["decode", "prefill"])
@pytest.mark.parametrize("sink", [None, -math.inf, 2.0])
def test_scores_of_minus_infinity_weigh_nothing(path: str, rows: int, sink: float | None) -> None:
    q, k = torch.ones(2, rows, 64, dtype=torch.bfloat16)
    k[:] = -math.inf
    sinks = None if sink is None else torch.tensor([sink])
    got = attend(TILES[path], q, k, torch.ones_like(k), sinks=sinks)
    assert bool((got.out == 0).all())
    assert bool((got.lse == (-math.inf if sink is None else sink)).all())
    if rows > 1:
        k[0] = 0
        got = attend(TILES[path], q, k, torch.ones_like(k))
        assert bool((got.out == 1).all()) and bool((got.lse == 0).all())


@pytest.mark.parametrize("path", TILES)
@pytest.mark.parametrize("rows", [1, 40], ids=["decode", "prefill"])
@pytest.mark.parametrize("split", [False, True], ids=["whole", "split"])
def test_infinite_sink_leaves_nan_and_no_zero(path: str, rows: int, split: bool) -> None:
    q, k = torch.ones(rows, 64), torch.ones(600, 64)
    sinks = torch.tensor([math.inf])
    got = attend(TILES[path], q.bfloat16(), k.bfloat16(), k.bfloat16(), split=split, sinks=sinks)
    assert bool(got.out.isnan().all()) and bool(got.lse.isnan().all())


@pytest.mark.parametrize("path", TILES)
@pytest.mark.parametrize("rows", [1, 40], ids=["decode", "prefill"])
@pytest.mark.parametrize("cap", [1e6, 1e30])
def test_cap_above_all_logits_is_as_good_as_none(path: str, rows: int, cap: float) -> None:
    values = torch.Generator().manual_seed(1)
    q = torch.randn(rows, 64, generator=values).bfloat16()
    k, v = torch.randn(2, 300, 64, generator=values).bfloat16()
    capped, plain = (attend(TILES[path], q, k, v, logit_cap=c) for c in (cap, 0.0))
    assert torch.allclose(capped.lse, plain.lse, rtol=0, atol=2e-6)
    assert torch.allclose(capped.out, plain.out, rtol=0, atol=2e-3)


@pytest.mark.parametrize("scale", [0.0, 2.0**-100])
def test_scale_of_nothing_gives_means(scale: float) -> None:
    q, k = torch.full((40, 64), 1000.0).bfloat16(), torch.full((40, 64), -1000.0).bfloat16()
    v = torch.arange(40.0)[:, None].expand(40, 64).bfloat16().contiguous()
    got = attend(TILES["mma"], q, k, v, scale=scale, sinks=torch.tensor([-math.inf]))
    assert torch.allclose(got.out[:, 0, 0].float(), torch.arange(40) / 2, rtol=2**-8, atol=0)
    assert torch.allclose(got.lse[:, 0], torch.arange(1, 41).log(), rtol=0, atol=1e-6)
