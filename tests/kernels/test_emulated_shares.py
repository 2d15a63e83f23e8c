"""Decodes with shares of the GPU answer as float64 does, whatever order CTAs run in."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from pod_integrate.devices.call import Call
from pod_integrate.devices.cuda.planning import plan_batch
from pod_integrate.devices.cuda.variants import Variant
from pod_integrate.devices.emulated.device import EmulatedDevice
from pod_integrate.devices.emulated.emulator import Schedule
from pod_integrate.measure.batches import make_batch
from pod_integrate.measure.reference import attention_reference
from pod_integrate.terms.keys import Geometry
from pod_integrate.terms.scalars import Scalars

SMS = 3
GEOMETRY = Geometry.uniform((4, 2, 128), "bf16")
VARIANT = Variant.parse("bf16-d128-p128x64s1w4-d16x64s2w4-c2-v1")
CONFIG = dataclasses.replace(VARIANT.config(), decode_split_tokens=512)


BATCHES = (
    ([1] * 7, [1500] * 7),
    ([1] * 6, [1800, 90, 1100, 1, 2100, 700]),
    # Beside a prefill of 18 packed rows.
    ([9, *[1] * 7], [9, *[1500] * 7]),
)


@pytest.mark.parametrize("order", ["random", "descending"])
@pytest.mark.parametrize(("q_lens", "kv_lens"), BATCHES)
def test_shares_are_the_same_attention(q_lens: list[int], kv_lens: list[int], order: str) -> None:
    case = make_batch(q_lens, kv_lens, geometry=GEOMETRY, seed=3)
    indptr, lengths = case.batch.q_indptr, case.batch.kv_lens
    shares, equal = (
        plan_batch(indptr, lengths, GEOMETRY, CONFIG, num_sms=SMS, fill_ctas=fill).words
        for fill in (None, 0)
    )
    assert not torch.equal(shares, equal)
    device = EmulatedDevice(Schedule(num_sms=SMS, order=order, seed=4), default=CONFIG)  # type: ignore[arg-type]
    out, lse = torch.empty_like(case.q), torch.empty(case.q.shape[:2])
    device.attention(GEOMETRY, CONFIG)(
        Call(*case, Scalars(case.q.shape[2] ** -0.5, -1), None, out, lse)
    )
    want = attention_reference(*case)
    assert torch.allclose(out.double(), want.out, rtol=0.01, atol=0.01)
    assert torch.allclose(lse.double(), want.lse, atol=1e-3)
