"""How far answers may be off: the pass rule of the op, and bounds where nobody asks for it.

The rule: at most twice the error that torch itself makes, plus rounding.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

from pod_integrate.errors import MismatchError
from pod_integrate.measure.batches import Case, dequantised
from pod_integrate.measure.reference import Attended, attention_reference
from pod_integrate.op import Result, hybrid_attention
from pod_integrate.terms.keys import Dtype
from pod_integrate.terms.scalars import Scalars

# |out - reference| and |lse - reference| allowed, relative to 1 + |reference|. Unit-normal
# inputs; half types round probabilities and the result, fp32 only differs in summation order.
TOLERANCE: dict[Dtype, float] = {"fp32": 1e-4, "fp16": 5e-3, "bf16": 4e-2}
# Of bf16 outputs of two right kernels, and of one from float64; values are of order 1 / sqrt(keys).
BF16_TOLERANCE = 2e-2
# Differences of summation order alone, relative to values of order 1.
_ROUNDING = 2e-6
# Tensor cores align products to the largest and truncate.
_TENSOR_ROUNDING = 1e-5
# Of float32's own formula with unit-normal inputs; 1.2e-6 was the largest seen.
_SINGLE = 2e-6
_ROWS_AT_ONCE = 1024
# Of the root of summed squares of independent roundings: covers any sum of up to 16 of them, and
# seven standard deviations of a long one.
_SPREAD = 4.0


def assert_matches_reference(
    case: Case,
    got: Result,
    *,
    scale: float | None = None,
    window_left: int = -1,
    logit_cap: float = 0.0,
    sinks: torch.Tensor | None = None,
    rounded_weights: bool = False,
) -> None:
    """Fail with the worst element unless `got` is as close to float64 as torch would be.

    fp32: twice the largest error of the same formula in float32. bf16, fp16: twice the rounding
    of the exact answer to that dtype, since the kernel computes in fp32 throughout.
    rounded_weights  softmax weights are rounded to the dtype before they meet V, as tensor cores
                     need them: their roundings are allowed, too, four root-mean-squares of them
    """
    features = {"window_left": window_left, "logit_cap": logit_cap, "sinks": sinks}
    scale = case.q.shape[-1] ** -0.5 if scale is None else scale
    exact, single = (
        attention_reference(*case, scale=scale, dtype=dtype, **features)  # type: ignore[arg-type]
        for dtype in (torch.float64, torch.float32)
    )
    half_ulp = torch.finfo(case.q.dtype).eps / 2 if case.q.dtype != torch.float32 else 0.0
    rounding = _TENSOR_ROUNDING if rounded_weights else _ROUNDING
    allowed = 2 * (_worst(single.out, exact.out) + half_ulp * exact.out.abs()) + rounding
    if rounded_weights:
        allowed += _SPREAD * half_ulp * _spread(case, exact, scale, window_left, logit_cap)
    _assert_within(got.out, exact.out, allowed, "out")
    allowed_lse = 2 * _worst(single.lse, exact.lse) + rounding * (1 + exact.lse.abs())
    _assert_within(got.lse, exact.lse, allowed_lse, "lse")


def attend_and_check(case: Case, **arguments: object) -> Result:
    """hybrid_attention on `case`, checked against the reference; `arguments` go to both."""
    got = hybrid_attention(*case, **arguments)  # type: ignore[arg-type]
    told = {name: value for name, value in arguments.items() if name not in ("config", "out")}
    scales = {name: told.pop(name) for name in ("k_scale", "v_scale") if name in told}
    exact = dequantised(case, **scales)  # type: ignore[arg-type]
    assert_matches_reference(exact, got, **told)  # type: ignore[arg-type]
    return got


def require_alike(
    case: Case,
    got: Result,
    other: Result,
    attend: Callable[[torch.Tensor, Scalars], Result],
    scalars: Scalars,
) -> None:
    """Raise MismatchError unless `got` and `other` could both keep the pass rule.

    Each may be off by what assert_matches_reference allows, so the two differ by twice that at
    most. No exact answer is needed: inputs are unit-normal, of which float32's own error is known,
    and the roundings of weights come from the kernel behind `other`, asked once more.
    attend  out and lse of the case's q and keys with other values [P, S, Hkv, D] and scalars
    """
    dtype = case.q.dtype
    halves = dtype != torch.float32
    half_ulp = torch.finfo(dtype).eps / 2 if halves else 0.0
    rounding = _TENSOR_ROUNDING if halves else _ROUNDING
    weights = None
    if halves:
        double = scalars._replace(scale=2 * scalars.scale, logit_cap=2 * scalars.logit_cap)
        squares = case.v_cache.to(dtype).square().to(case.v_cache.dtype)
        weights = attend(squares, double)
    for begin in range(0, got.out.shape[0], _ROWS_AT_ONCE):
        rows = slice(begin, begin + _ROWS_AT_ONCE)
        out, lse = other.out[rows].float(), other.lse[rows]
        allowed = 2 * (2 * (_SINGLE + half_ulp * out.abs()) + rounding)
        if weights is not None:
            factor = torch.exp(weights.lse[rows] - 2 * lse).where(lse > -math.inf, 0.0)
            spread = (factor[..., None] * weights.out[rows].float()).clamp(min=0.0).sqrt()
            allowed = allowed + 2 * _SPREAD * half_ulp * spread
        _require_within(got.out[rows].float(), out, allowed, "out", begin)
        allowed_lse = 2 * (2 * _SINGLE + rounding * (1 + lse.abs()))
        _require_within(got.lse[rows], lse, allowed_lse, "lse", begin)


def _require_within(
    got: torch.Tensor, other: torch.Tensor, allowed: torch.Tensor, name: str, begin: int
) -> None:
    # Rows without a key have lse -inf in both.
    excess = (got - other).abs().where(got != other, 0.0) - allowed
    bad = ~(excess <= 0)
    if bool(bad.any()):
        place = tuple(int(i) for i in bad.nonzero()[0])
        where = [begin + place[0], *place[1:]]
        raise MismatchError(
            f"{name}{where} is {float(got[place])}, the default config's {float(other[place])}, "
            f"allowed difference {float(allowed[place])}; {int(bad.sum())} of {bad.numel()} there "
            "are outside"
        )


def _spread(
    case: Case, exact: Attended, scale: float, window_left: int, logit_cap: float
) -> torch.Tensor:
    """sqrt(sum_k (p_k v_k)^2) of each output: p^2 is, but for a factor, softmax of 2 x score."""
    squares = attention_reference(
        *(case.q, case.k_cache, case.v_cache.double() ** 2, case.batch),
        scale=2 * scale,
        window_left=window_left,
        logit_cap=2 * logit_cap,
    )
    factor = torch.exp(squares.lse - 2 * exact.lse).where(exact.lse > -math.inf, 0.0)
    return (squares.out * factor[..., None]).sqrt()


def _worst(values: torch.Tensor, exact: torch.Tensor) -> float:
    return float((values.double() - exact).abs().max()) if exact.numel() else 0.0


def _assert_within(
    got: torch.Tensor, exact: torch.Tensor, allowed: torch.Tensor, name: str
) -> None:
    excess = (got.double() - exact).abs() - allowed
    # A NaN is no smaller than anything: it must fail as well.
    bad = ~(excess <= 0)
    if bool(bad.any()):
        place = tuple(int(i) for i in bad.nonzero()[0])
        raise AssertionError(
            f"{name}{list(place)} is {float(got[place])}, exact {float(exact[place])}, allowed "
            f"difference {float(allowed[place])}; {int(bad.sum())} of {bad.numel()} are outside"
        )
