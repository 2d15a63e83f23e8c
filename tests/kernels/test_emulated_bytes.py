"""The CUDA kernel over K and V of 8 bits, on emulated SMs: every way that bytes take."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
import torch
from test_emulated_kernel import SHAPES, Shape

from pod_integrate.devices.cuda.variants import Variant
from pod_integrate.devices.emulated import emulator
from pod_integrate.devices.emulated.emulator import Schedule
from pod_integrate.errors import DtypeError, ShapeError
from pod_integrate.measure.accuracy import assert_matches_reference
from pod_integrate.measure.batches import Case, dequantised, make_batch
from pod_integrate.terms.batch import HybridBatch
from pod_integrate.terms.keys import Geometry

E4M3 = torch.float8_e4m3fn
SCALES: dict[str, Any] = {"k_scale": 0.37, "v_scale": 2.5}
# Rows of 4, 6, 8 and 16 chunks; the last five prefill on wgmma, with two and three stages, and in
# CTAs of a pair that run one op at a time.
VARIANTS = (
    "bf16-kve4m3-d64-p64x32s1w4-d16x64s1w4-c2-v1",
    "fp16-kve4m3-d96-p64x32s1w2-d16x32s3w1-c2-v2",
    "fp16-kve4m3-d256-p64x32s1w4-d16x32s1w2-c2-v1",
    "bf16-kve4m3-d128-p128x64s2w4-d16x256s1w4-c2-v1",
    "fp16-kve4m3-d64-p128x64s3w4-d16x64s1w4-c2-v1",
    "bf16-kve4m3-d128-p128x128s2w8-d16x256s1w4-c1-v1",
    # Its decode items reach over the places where bytes land.
    "fp16-kve4m3-d64-p128x64s2w8-d16x128s2w4-c1-v1",
    "bf16-kve4m3-d64-p128x96s2w8-d16x64s1w4-c1-v1",
)
SCHEDULES = (
    Schedule(order="random", num_sms=3, preempt_percent=5, seed=9),
    Schedule(order="random", copies="early", preempt_percent=30, seed=5),
    Schedule(order="descending", num_sms=1),
)


def geometry_of(variant: Variant, heads: tuple[int, int] = (4, 2), page_size: int = 16) -> Geometry:
    geometry = Geometry.uniform((*heads, variant.head_dim), variant.dtype, page_size=page_size)
    return dataclasses.replace(geometry, kv_dtype=variant.kv_dtype)


@pytest.mark.parametrize(
    ("shape", "schedule"),
    [(shape, SCHEDULES[i % len(SCHEDULES)]) for i, shape in enumerate(SHAPES.values())],
    ids=SHAPES,
)
@pytest.mark.parametrize("name", VARIANTS)
def test_matches_reference(name: str, shape: Shape, schedule: Schedule) -> None:
    variant = Variant.parse(name)
    geometry = geometry_of(variant, shape.heads, shape.page_size)
    case = make_batch(shape.q_lens, shape.kv_lens, geometry=geometry, seed=1, **shape.batch)
    config = dataclasses.replace(variant.config(), **shape.config)
    told = SCALES | shape.features
    got = emulator.attend(*case, config=config, schedule=schedule, **told)
    exact = dequantised(case, **SCALES)
    assert_matches_reference(exact, got.attention, rounded_weights=True, **shape.features)
    assert got.stats.ldmatrix_extra_wavefronts == 0, "ldmatrix meets bank conflicts"


@pytest.mark.parametrize("rows", [1, 64], ids=["decode", "prefill"])
@pytest.mark.parametrize("name", [VARIANTS[0], VARIANTS[4], VARIANTS[6]])
def test_every_number_is_widened_exactly(name: str, rows: int) -> None:
    """Four keys of one weight and others of 0: the sum of four numbers in each column.

    NaN stays NaN, in its own column only.
    """
    variant = Variant.parse(name)
    numbers = torch.arange(256, dtype=torch.uint8).view(E4M3).view(4, 64)
    keys = rows + 3
    k, v = torch.zeros(2, keys, 1, 1, 64).to(E4M3)
    v[:4, 0, 0] = numbers
    batch = HybridBatch.build(
        *([rows], [keys]),
        page_indices=torch.arange(keys, dtype=torch.int32),
        page_starts=[0],
        page_size=1,
    )
    q = torch.zeros(rows, 1, 64, dtype=torch.float16 if variant.dtype == "fp16" else torch.bfloat16)
    got = emulator.attend(q, k, v, batch, config=variant.config(), v_scale=4.0).out[0, 0]
    want = numbers.float().sum(0)
    assert int(want.isnan().sum()) == 1
    assert torch.allclose(got.float(), want, rtol=2**-8, atol=0, equal_nan=True)


def rows_of_every_size(variant: Variant) -> Case:
    """Heads of q of which one is beyond the range of fp16 and one far below the others."""
    case = make_batch([70, 1, 1], [200, 130, 90], geometry=geometry_of(variant), seed=5)
    sizes = torch.tensor([1.0, 2.0**18, 2.0**-20, 1.0], dtype=case.q.dtype)
    return case._replace(q=case.q * sizes[:, None])


@pytest.mark.parametrize("cap", [0.0, 8.0])
@pytest.mark.parametrize("name", [VARIANTS[0], VARIANTS[3], VARIANTS[5]])
def test_rows_of_q_of_every_size_match_reference(name: str, cap: float) -> None:
    variant = Variant.parse(name)
    case = rows_of_every_size(variant)
    got = emulator.attend(*case, config=variant.config(), logit_cap=cap, **SCALES).attention
    assert_matches_reference(dequantised(case, **SCALES), got, rounded_weights=True, logit_cap=cap)


@pytest.mark.parametrize("name", [VARIANTS[0], VARIANTS[3], VARIANTS[5]])
def test_a_row_of_q_is_scaled_by_its_own_numbers_only(name: str) -> None:
    variant = Variant.parse(name)
    case = make_batch([70, 1, 1], [200, 130, 90], geometry=geometry_of(variant), seed=5)
    mixed = rows_of_every_size(variant)
    plain, got = (
        emulator.attend(*each, config=variant.config(), **SCALES).attention
        for each in (case, mixed)
    )
    for head in (0, 3):
        assert torch.equal(got.out[:, head], plain.out[:, head])
        assert torch.equal(got.lse[:, head], plain.lse[:, head])


@pytest.mark.parametrize("name", [VARIANTS[0], VARIANTS[3], VARIANTS[5]])
def test_powers_of_two_of_q_and_scale_cancel(name: str) -> None:
    variant = Variant.parse(name)
    case = make_batch([70, 1], [200, 130], geometry=geometry_of(variant), seed=6)
    large = case._replace(q=case.q * 2.0**40)
    want = emulator.attend(*case, config=variant.config(), scale=0.125).attention
    got = emulator.attend(*large, config=variant.config(), scale=0.125 * 2.0**-40).attention
    assert torch.equal(got.out, want.out) and torch.equal(got.lse, want.lse)


def test_broken_bytes_stay_with_those_who_see_them() -> None:
    variant = Variant.parse(VARIANTS[0])
    case = make_batch([40, 1], [90, 70], geometry=geometry_of(variant), seed=2, fill_unused=0.0)
    sound = emulator.attend(*case, config=variant.config()).out
    broken = make_batch([40, 1], [90, 70], geometry=geometry_of(variant), seed=2)
    assert broken.k_cache.float().isnan().any()
    assert torch.equal(emulator.attend(*broken, config=variant.config()).out, sound)


def test_what_bytes_cannot_be_is_refused() -> None:
    variant = Variant.parse(VARIANTS[0])
    case = make_batch([1], [20], geometry=geometry_of(variant), seed=3)
    with pytest.raises(ShapeError, match="k_scale is 0, which must be > 0"):
        emulator.attend(*case, config=variant.config(), k_scale=0.0)
    wide = torch.zeros(*case.k_cache.shape[:3], 72, dtype=torch.uint8).view(E4M3)[..., 8:]
    with pytest.raises(ShapeError, match="slice it at multiples of 16 elements"):
        emulator.attend(case.q, wide, wide, case.batch, config=variant.config())
    with pytest.raises(DtypeError, match="v_cache is bfloat16 but k_cache is float8_e4m3fn"):
        emulator.attend(case.q, case.k_cache, case.v_cache.bfloat16(), case.batch)
    other = case.k_cache.to(torch.float8_e5m2)
    with pytest.raises(DtypeError, match="caches of float8_e4m3fn"):
        emulator.attend(case.q, other, other, case.batch, config=variant.config())
    assert math.isfinite(float(emulator.attend(*case, config=variant.config()).lse[0, 0]))
