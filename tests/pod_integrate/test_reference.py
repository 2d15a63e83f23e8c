"""The reference agrees with torch's own attention, and what it must not read is never read."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from pod_integrate.measure.batches import make_batch
from pod_integrate.measure.reference import attention_reference, gather
from pod_integrate.terms.keys import Geometry

GEOMETRY = Geometry.uniform((6, 2, 32), "fp32", page_size=4)


def test_reference_agrees_with_torch_sdpa() -> None:
    case = make_batch([7, 1], [19, 10], geometry=GEOMETRY, seed=0)
    got = attention_reference(*case, scale=0.25)
    for b, (rows, kv_len) in enumerate(((slice(0, 7), 19), (slice(7, 8), 10))):
        q = case.q[rows].double().transpose(0, 1)
        keys, values = (
            gather(cache, case.batch, b).double().transpose(0, 1).repeat_interleave(3, 0)
            for cache in (case.k_cache, case.v_cache)
        )
        n = q.shape[1]
        mask = torch.ones(n, kv_len, dtype=torch.bool).tril(kv_len - n)
        want = F.scaled_dot_product_attention(q, keys, values, attn_mask=mask, scale=0.25)
        assert torch.allclose(got.out[rows], want.transpose(0, 1), rtol=0, atol=1e-12)


def test_window_of_zero_leaves_each_row_its_own_value() -> None:
    case = make_batch([5], [12], geometry=GEOMETRY, seed=1)
    got = attention_reference(*case, window_left=0)
    values = gather(case.v_cache, case.batch, 0)[-5:].double()
    assert torch.allclose(got.out, values.repeat_interleave(3, 1), rtol=0, atol=1e-12)


def test_sink_equal_to_the_lse_halves_the_answer() -> None:
    case = make_batch([1], [6], geometry=GEOMETRY, seed=2)
    plain = attention_reference(*case)
    sunk = attention_reference(*case, sinks=plain.lse[0])
    assert torch.allclose(sunk.out, plain.out / 2, rtol=0, atol=1e-12)


def test_unused_slots_of_a_made_batch_hold_the_filler() -> None:
    case = make_batch([3, 0], [5, 9], geometry=GEOMETRY, seed=3, strided=True, row_starts=True)
    assert int(case.k_cache.isnan().all((-1, -2)).sum()) == 4 * (2 + 3 + 3) - 14
    assert attention_reference(*case).out.isfinite().all()
