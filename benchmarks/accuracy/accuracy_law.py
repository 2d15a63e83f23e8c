"""How wrong an answer may be, whatever the length: the law that both kernels are held to.

With u = 2^-23 (one ulp of float32 at 1), h half an ulp of the output's dtype at 1, D the head dim,
p the exact softmax weights of a row, B the largest sum of |scale q_d k_d| over a visible key, and
sd(v) the standard deviation of a column of V under p:

    |lse - exact|  <=  L u max(1, |exact|, B)                      with L = 4 + D / 32
    |out - exact|  <=  2 h |exact| + L u max(1, B) sd(v) + 4 u sum(p |v|)
                       + h sum(p |v|) where weights are rounded to the dtype before they meet V

Why: a logit is a sum of D products in float32. Its error is at most D / 2 ulp of B and, because
roundings differ in sign, some D / 32 in practice; the scale, log2(e), the maximum, the logarithm
and the result add one rounding each. An error d of all logits moves out by d sd(v) at most. What
remains is the sum over keys. No length occurs: sums over keys must not lose more at 128K keys than
at 1K, so a kernel has to add them up in parts, or with compensation. That is stricter than twice
the error of torch in float32, which does grow.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch

from benchmarks.accuracy.accuracy_cases import AccuracyCase
from pod_integrate.measure.batches import Case
from pod_integrate.measure.reference import gather, visible_keys
from pod_integrate.op import Result
from pod_integrate.terms.batch import HybridBatch

ULP = 2.0**-23
# Below it is nothing: fp32 weights end at 2^-126.
_NOTHING = 1e-30
# Makes the call of a case: the config is the caller's, by case.split and case.keys.
Attend = Callable[[AccuracyCase, Case], Result]


class Exact(NamedTuple):
    """In float64: the answer of each row, and what its error is measured in.

    out, lse   [T, Hq, D] and [T, Hq]
    products   [T, Hq] B, the largest sum |scale q_d k_d| of a visible key
    deviation  [T, Hq, D] of V under the weights, a sink a key of value 0
    mass       [T, Hq, D] sum of p |v|
    """

    out: torch.Tensor
    lse: torch.Tensor
    products: torch.Tensor
    deviation: torch.Tensor
    mass: torch.Tensor


class Judgement(NamedTuple):
    """The largest errors of a case, over what the law allows: both may be 1 at most.

    lse_ulp  the largest error of the lse in ulp of max(1, |lse|, B)
    """

    case: str
    out: float
    lse: float
    lse_ulp: float

    @property
    def holds(self) -> bool:
        """Whether the answer is within the law; one NaN is not."""
        return self.out <= 1 and self.lse <= 1


def judge(
    case: AccuracyCase,
    attend: Attend,
    *,
    device: torch.device | None = None,
    rounded_weights: bool = False,
) -> Judgement:
    """Make the case, attend it and compare.

    rounded_weights  the kernel rounds weights to the dtype before they meet V
    """
    device = device or torch.device("cpu")
    inputs = case.make(device)
    got = attend(case, inputs)
    exact = exact_answer(inputs, **case.features(device))
    return verdict(case, got, exact, rounded_weights=rounded_weights)


def verdict(
    case: AccuracyCase, got: Result, exact: Exact, *, rounded_weights: bool = False
) -> Judgement:
    """The law applied to an answer."""
    limit = 4 + case.head_dim / 32
    half_ulp = torch.finfo(got.out.dtype).eps / 2 if got.out.dtype != torch.float32 else 0.0
    step = torch.finfo(got.out.dtype).smallest_normal * half_ulp + _NOTHING
    products = exact.products.clamp(min=1)
    allowed = 2 * half_ulp * exact.out.abs() + 4 * ULP * exact.mass + step
    allowed += limit * ULP * products[..., None] * exact.deviation
    if rounded_weights:
        allowed += half_ulp * exact.mass
    ulps = (got.lse.double() - exact.lse).abs() / (ULP * torch.maximum(products, exact.lse.abs()))
    worst = _largest((got.out.double() - exact.out).abs() / allowed)
    return Judgement(case.name, worst, _largest(ulps) / limit, _largest(ulps))


def exact_answer(
    case: Case,
    *,
    scale: float | None = None,
    window_left: int = -1,
    logit_cap: float = 0.0,
    sinks: torch.Tensor | None = None,
) -> Exact:
    """Float64 attention of any batch, one request and head at a time; arguments as of the op.

    Every slot of a request is read, those behind a window too, and must be finite.
    """
    q, k_cache, v_cache, batch = case
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    wide = torch.zeros(q.shape, dtype=torch.float64, device=q.device)
    narrow = torch.zeros(q.shape[:2], dtype=torch.float64, device=q.device)
    exact = Exact(*(t.clone() for t in (wide, narrow, narrow, wide, wide)))
    indptr, group = batch.q_indptr.tolist(), q.shape[1] // k_cache.shape[2]
    for b in range(batch.num_requests):
        rows = slice(indptr[b], indptr[b + 1])
        kv_len = int(batch.kv_lens[b])
        visible = visible_keys(rows.stop - rows.start, kv_len, window_left).to(q.device)
        keys, values = (_wide(cache, batch, b) for cache in (k_cache, v_cache))
        for head in range(q.shape[1]):
            k, v = keys[:, head // group], values[:, head // group]
            queries = q[rows, head].double() * scale
            scores = queries @ k.T
            if logit_cap:
                scores = logit_cap * torch.tanh(scores / logit_cap)
            scores.masked_fill_(~visible, -torch.inf)
            lse = torch.logsumexp(scores, dim=1)
            if sinks is not None:
                lse = torch.logaddexp(lse, sinks[head].double())
            weights = scores.sub_(lse[:, None]).exp_()
            products = (queries.abs() @ k.abs().T).masked_fill_(~visible, 0).amax(dim=1)
            out = weights @ v
            # A sink counts as a key of value 0, as it does in the sum that is divided by.
            variance = (weights @ v**2 - out**2).clamp(min=0)
            answer = (out, lse, products, variance.sqrt(), weights @ v.abs())
            for whole, part in zip(exact, answer, strict=True):
                whole[rows, head] = part
    return exact


def _wide(cache: torch.Tensor, batch: HybridBatch, request: int) -> torch.Tensor:
    return gather(cache, batch, request).double()


def _largest(values: torch.Tensor) -> float:
    # A NaN is no smaller than anything.
    return float(values.nan_to_num(nan=torch.inf).max()) if values.numel() else 0.0
