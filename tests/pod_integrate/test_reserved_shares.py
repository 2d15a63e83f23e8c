"""Room for shares of the GPU, and for what a smaller batch has instead."""

from __future__ import annotations

import hypothesis
import hypothesis.strategies as st
import pytest
import torch

from pod_integrate.devices.cuda import limits
from pod_integrate.devices.device_plan import DevicePlan
from pod_integrate.terms.batch import HybridBatch
from pod_integrate.terms.keys import Geometry

LLAMA = Geometry.uniform((32, 8, 128), "bf16", page_size=1)
SHIPPED = limits.default_tiles(limits.ARCHITECTURES["sm_90a"], 128)


def batch(q_lens: list[int], kv_lens: list[int]) -> HybridBatch:
    return HybridBatch.build(
        q_lens,
        kv_lens,
        page_indices=torch.zeros((1, max(kv_lens)), dtype=torch.int32),
        page_starts=[0] * len(kv_lens),
        page_size=1,
    )


def reserve(*batches: HybridBatch) -> DevicePlan:
    return DevicePlan.reserve(
        batches, torch.device("cpu"), LLAMA, config=SHIPPED, num_sms=132
    )  # fmt: skip


@pytest.mark.parametrize("count", [34, 33, 20, 17])
def test_fewer_requests_than_were_reserved_fit(count: int) -> None:
    plan = reserve(batch([1] * 34, [16384] * 34))
    plan.update(batch([1] * count, [16384] * count))


def test_prefill_of_one_fits_beside_the_decodes_of_another() -> None:
    plan = reserve(batch([1] * 20, [20480] * 20), batch([512, *[1] * 20], [16384, *[1] * 20]))
    plan.update(batch([512, *[1] * 20], [16384, *[20480] * 20]))


@hypothesis.settings(max_examples=60)
@hypothesis.given(lens=st.lists(st.integers(1, 30000), min_size=1, max_size=60), data=st.data())
def test_whatever_is_smaller_fits(lens: list[int], data: st.DataObject) -> None:
    plan = reserve(batch([1] * len(lens), lens))
    share = data.draw(st.floats(0.01, 1.0))
    kept = data.draw(st.integers(1, len(lens)))
    plan.update(batch([1] * kept, [max(1, int(share * n)) for n in lens[:kept]]))


@pytest.mark.parametrize(
    ("prompt", "context", "count", "keys"),
    [(512, 16384, 0, 1), (512, 16384, 64, 64), (256, 8192, 64, 1), (100, 3000, 10, 16384)],
)
def test_a_prefill_that_fewer_decodes_hide_fits_where_it_is_whole(
    prompt: int, context: int, count: int, keys: int
) -> None:
    plan = reserve(batch([512, *[1] * 64], [16384] * 65))
    plan.update(batch([prompt, *[1] * count], [context, *[keys] * count]))
