"""Approximate functions, maxima and rounding of the conformance kernel on the emulated SM."""

from __future__ import annotations

import math

import pytest
import torch
from support.conformance import Sections

from benchmarks.gpu.correctness.conformance_run import Inputs, floats
from benchmarks.gpu.correctness.conformance_tiles import DTYPES


def test_approximate_functions_are_what_they_are_called(inputs: Inputs, dumped: Sections) -> None:
    x = floats(inputs.values)
    # The unit flushes subnormal operands and results to zero of the same sign.
    tiny = 2.0**-126
    x = torch.where(x.abs() < tiny, torch.copysign(torch.zeros(()), x), x).double()
    for name, exact in {"ex2": x.exp2(), "lg2": x.log2(), "rcp": 1 / x}.items():
        got = floats(dumped[name]).double()
        want = torch.where(exact.abs() < tiny, torch.copysign(torch.zeros(()), exact), exact)
        want = want.float().double()
        same = (got == want) | (got.isnan() & want.isnan())
        assert bool((same | ((got - want).abs() <= 2.0**-23 * want.abs())).all()), name


def test_max_prefers_numbers_to_nan(inputs: Inputs, dumped: Sections) -> None:
    x = floats(inputs.values)
    y = x.flip(0)
    got = floats(dumped["max"])
    want = torch.where(x.isnan(), y, torch.where(y.isnan(), x, torch.maximum(x, y)))
    assert bool(((got == want) | (got.isnan() & want.isnan())).all())


@pytest.mark.parametrize("dtype", DTYPES)
def test_pack2_rounds_to_nearest_even(dtype: str, inputs: Inputs, dumped: Sections) -> None:
    x = floats(inputs.values)
    rounded = x.to(DTYPES[dtype]).view(torch.int16).int() & 0xFFFF
    rounded = torch.where(x.isnan(), 0x7FFF, rounded)
    want = rounded | (rounded.flip(0) << 16)
    assert torch.equal(dumped[f"pack2:{dtype}"], want)


def test_mul2_multiplies_halves(inputs: Inputs, dumped: Sections) -> None:
    x = floats(inputs.values)
    pair = torch.stack([x, x.flip(0)], dim=1).half()
    factor = torch.tensor([2.0**8, 3.0]).repeat(len(x) // 2)
    want = (pair.double() * factor.double()[:, None]).float().half()
    got = dumped["mul2:products"].view(torch.float16).view(-1, 2)
    assert torch.equal(got.isnan(), want.isnan())
    assert torch.equal(got.nan_to_num(), want.nan_to_num())


def test_float_of_keeps_the_bits(inputs: Inputs, dumped: Sections) -> None:
    assert torch.equal(dumped["float_of"], inputs.values)


def test_max_if_positive_is_the_maximum_where_that_is_positive(
    inputs: Inputs, dumped: Sections
) -> None:
    x = floats(inputs.values)
    three = torch.stack([x, x.flip(0), x[torch.arange(len(x)) // 2]])
    got, most = floats(dumped["max_if_positive"]), three.nan_to_num(-math.inf, math.inf).amax(0)
    positive = (most > 0) & ~three.isnan().any(0)
    assert 0 < positive.sum() < len(x)
    assert torch.equal(got[positive], most[positive])
    assert bool((got == three)[:, ~three.isnan().any(0)].any(0).all())
