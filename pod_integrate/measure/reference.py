"""Float64 attention in plain torch, one request and one head group at a time: easy to believe."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch

from pod_integrate.terms.batch import HybridBatch


class Attended(NamedTuple):
    """out [T, Hq, D] and lse [T, Hq] (natural log, sinks included)."""

    out: torch.Tensor
    lse: torch.Tensor


def attention_reference(
    q: torch.Tensor,
    k_cache: torch.Tensor,
    v_cache: torch.Tensor,
    batch: HybridBatch,
    *,
    scale: float | None = None,
    window_left: int = -1,
    logit_cap: float = 0.0,
    sinks: torch.Tensor | None = None,
    dtype: torch.dtype = torch.float64,
) -> Attended:
    """Same arguments as hybrid_attention; computes and answers in `dtype` (float64).

    Loops over requests and gathers their keys, so it costs memory and time: for tests.
    """
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    group = q.shape[1] // k_cache.shape[2]
    out = torch.zeros(q.shape, dtype=dtype, device=q.device)
    lse = torch.full(q.shape[:2], -math.inf, dtype=dtype, device=q.device)
    indptr = batch.q_indptr.tolist()
    for b, kv_len in enumerate(batch.kv_lens.tolist()):
        rows = slice(indptr[b], indptr[b + 1])
        n = indptr[b + 1] - indptr[b]
        if n == 0:
            continue
        # Only slots that some row sees are read: a windowed cache may have freed the others.
        first = max(0, kv_len - n - window_left) if window_left >= 0 else 0
        visible = visible_keys(n, kv_len, window_left)[:, first:].to(q.device)
        keys = gather(k_cache, batch, b, first).to(dtype)
        values = gather(v_cache, batch, b, first).to(dtype)
        for head in range(q.shape[1]):
            scores = scale * (q[rows, head].to(dtype) @ keys[:, head // group].T)
            if logit_cap:
                scores = logit_cap * torch.tanh(scores / logit_cap)
            scores = scores.masked_fill(~visible, -math.inf)
            sink = None if sinks is None else sinks[head].to(dtype)
            out[rows, head], lse[rows, head] = _softmax(
                scores, values[:, head // group], visible, sink
            )
    return Attended(out, lse)


def gather(cache: torch.Tensor, batch: HybridBatch, request: int, first: int = 0) -> torch.Tensor:
    """Keys or values `first`.. of one request, [kv_len - first, Hkv, D], copied from the pages."""
    size, start = batch.page_size, int(batch.page_starts[request])
    token = torch.arange(first, int(batch.kv_lens[request]), device=cache.device)
    pages = batch.page_indices[start + token // size].long()
    return cache[pages, token % size]


def visible_keys(n: int, kv_len: int, window_left: int) -> torch.Tensor:
    """Bool [n, kv_len]: the last row stands at position kv_len - 1."""
    position = torch.arange(kv_len - n, kv_len)[:, None]
    key = torch.arange(kv_len)[None, :]
    visible = key <= position
    return visible & (key >= position - window_left) if window_left >= 0 else visible


def _softmax(
    scores: torch.Tensor, values: torch.Tensor, visible: torch.Tensor, sink: torch.Tensor | None
) -> Attended:
    lse = torch.logsumexp(scores, dim=1)
    if sink is not None:
        lse = torch.logaddexp(lse, sink)
    # Of inf - inf torch's softmax makes NaN for the whole row.
    lse = lse.masked_fill(lse == math.inf, math.nan)
    # A row whose logits are all -inf has no weights: out 0, lse -inf.
    weights = torch.exp(scores - lse[:, None].masked_fill(lse[:, None] == -math.inf, 0))
    if values.isfinite().all():
        return Attended(weights @ values, lse)
    # A weight of 0 times NaN is NaN, also for a key that the row does not see.
    products = weights[..., None] * values
    return Attended(products.masked_fill(~visible[..., None], 0).sum(dim=1), lse)
