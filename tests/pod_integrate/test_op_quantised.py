"""hybrid_attention over float8_e4m3fn caches on the CPU: attention over what they stand for."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch

from pod_integrate.devices.cpu.processor import ISAS, isa
from pod_integrate.devices.registry import device_of
from pod_integrate.errors import DtypeError, PodAttentionError, ShapeError
from pod_integrate.live.verify import fresh_case, verify
from pod_integrate.measure.accuracy import attend_and_check
from pod_integrate.measure.batches import Case, make_batch
from pod_integrate.op import hybrid_attention
from pod_integrate.terms.geometry import geometry_of
from pod_integrate.terms.keys import Dtype, Geometry

LEVELS = [level for level in ISAS if ISAS.index(level) >= ISAS.index(isa())]
E4M3 = torch.float8_e4m3fn
SCALES = {"k_scale": 0.37, "v_scale": 2.5}


def geometry(heads: tuple[int, int, int] = (8, 2, 64), dtype: Dtype = "fp32") -> Geometry:
    return dataclasses.replace(Geometry.uniform(heads, dtype), kv_dtype="e4m3")


@pytest.fixture(params=LEVELS)
def level(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("POD_ATTN_ISA", request.param)
    return str(request.param)


@pytest.mark.parametrize("dtype", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("dim", [32, 48, 128])
def test_answer_is_attention_over_scaled_values(dtype: Dtype, dim: int, level: str) -> None:
    case = make_batch(
        [40, 1, 1], [90, 130, 7], geometry=geometry((8, 2, dim), dtype), seed=3, strided=True
    )
    assert attend_and_check(case, **SCALES).out.dtype == case.q.dtype
    sinks = torch.linspace(-4, 3, 8)
    attend_and_check(case, **SCALES, logit_cap=3.0, window_left=50, sinks=sinks)


def test_split_keys_are_scaled_once() -> None:
    case = make_batch([1, 30], [900, 700], geometry=geometry(), seed=4)
    default = device_of(case.q).default_config(geometry())
    config = dataclasses.replace(default, decode_split_tokens=64, max_prefill_waves=8)
    attend_and_check(case, **SCALES, config=config)


def test_every_number_of_the_cache_is_what_torch_makes_of_it(level: str) -> None:
    # One visible key per request: the answer is its value.
    numbers = torch.arange(256, dtype=torch.uint8).view(E4M3)
    case = make_batch([1] * 8, [1] * 8, geometry=geometry((1, 1, 32)), seed=5)
    pages = case.batch.page_indices.long()
    case.k_cache[pages, 0, 0] = torch.zeros(8, 32).to(E4M3)
    case.v_cache[pages, 0, 0] = numbers.view(8, 32)
    got = hybrid_attention(*case, v_scale=2.0).out.flatten()
    want = 2 * numbers.float()
    assert torch.equal(got.nan_to_num(7), want.nan_to_num(7))
    assert got.isnan().sum() == 2


def test_a_broken_key_breaks_the_rows_that_see_it() -> None:
    case = make_batch([4], [20], geometry=geometry(), seed=6)
    last = int(case.batch.page_indices[1])
    case.k_cache[last, 3] = torch.full((2, 64), math.nan).to(E4M3)
    out = hybrid_attention(*case).out
    assert out[:3].isfinite().all() and out[3].isnan().all()


def halved(case: Case) -> Case:
    return case._replace(v_cache=case.v_cache.to(torch.float16))


@pytest.mark.parametrize(
    ("change", "numbers", "error", "words"),
    [
        (halved, {}, DtypeError, "v_cache is float16 but q is float32"),
        (
            lambda c: c._replace(v_cache=c.v_cache.float()),
            {},
            DtypeError,
            "v_cache is float32 but k_cache is float8_e4m3fn",
        ),
        (
            lambda c: c._replace(
                k_cache=c.k_cache.to(torch.float8_e5m2), v_cache=c.v_cache.to(torch.float8_e5m2)
            ),
            {},
            DtypeError,
            "k_cache torch.float8_e5m2; .* caches of float8_e4m3fn",
        ),
        (lambda c: c, {"k_scale": 0.0}, ShapeError, "k_scale is 0, which must be > 0"),
        (lambda c: c, {"v_scale": -1.0}, ShapeError, "v_scale is -1, which must be > 0"),
        (lambda c: c, {"v_scale": math.nan}, ShapeError, "v_scale is nan, which must be > 0"),
        (lambda c: c, {"k_scale": 2.0**90, "scale": 2.0**20}, ShapeError, "^scale x k_scale is"),
    ],
)
def test_what_cannot_be_attended_is_refused(
    change: Callable[[Case], Case],
    numbers: dict[str, Any],
    error: type[PodAttentionError],
    words: str,
) -> None:
    case = change(make_batch([5, 1], [20, 9], geometry=geometry(), seed=7))
    out = torch.full_like(case.q, 7)
    with pytest.raises(error, match=words):
        hybrid_attention(*case, out=out, **numbers)
    assert (out == 7).all()


def test_configs_for_such_a_cache_are_verified() -> None:
    device, lengths = device_of(torch.device("cpu")), ([9, 1], [40, 60])
    case = fresh_case(geometry(), lengths, device=device, seed=8)
    assert geometry_of(case.q, case.k_cache) == geometry()
    verify(device, geometry(), device.default_config(geometry()), lengths, seed=8)
