"""The CUDA kernel's own source on emulated SMs: shapes x variants x schedules, against float64.

Every case runs under schedules that hide nothing: threads in either order or at random with
preemption, copies that land as late or as early as they may, one to three SMs.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import pytest
import torch

from pod_integrate.devices.cuda.variants import Variant
from pod_integrate.devices.emulated import emulator
from pod_integrate.devices.emulated.emulator import Schedule
from pod_integrate.measure.accuracy import assert_matches_reference
from pod_integrate.measure.batches import make_batch
from pod_integrate.terms.keys import Geometry

# Head dims, dtypes, one and two row tiles per warp, one to three stages, decode items on one, two
# and four warps, alone or several in a CTA. The last seven prefill and decode on wgmma, two of
# these with decode tiles of 8 query rows, one in panels of 32 columns; the last two in a CTA that
# stays and runs both ops, at once or one at a time.
VARIANTS = (
    "bf16-d64-p64x32s1w4-d16x64s1w4-c2-v1",
    "fp16-d64-p64x32s2w2-d16x32s2w2-c3-v2",
    "bf16-d96-p64x32s1w2-d16x32s3w1-c2-v2",
    "bf16-d128-p128x64s1w4-d16x64s2w4-c2-v1",
    "fp16-d128-p32x32s3w2-d16x32s1w1-c4-v2",
    "bf16-d256-p64x32s1w4-d16x32s1w2-c2-v1",
    "bf16-d128-p128x64s2w4-d16x64s2w4-c2-v1",
    "fp16-d64-p128x64s3w4-d16x64s1w4-c2-v1",
    "fp16-d64-p128x64s2w4-d8x192s1w4-c2-v1",
    "bf16-d128-p128x64s2w4-d8x64s2w4-c2-v1",
    "fp16-d96-p128x64s2w4-d16x256s1w4-c2-v1",
    "bf16-d64-p128x128s2w8-d16x64s1w4-c1-v1",
    "bf16-d256-p128x64s2w8-d16x64s1w4-c1-v1",
)
SCHEDULES = {
    "ascending": Schedule(order="ascending"),
    "descending": Schedule(order="descending", num_sms=1),
    "random early": Schedule(order="random", copies="early", preempt_percent=30, seed=5),
    "random late": Schedule(order="random", num_sms=3, preempt_percent=5, seed=9),
}


class Shape(NamedTuple):
    """Lengths, (Hq, Hkv), page size, run-time part of the config, features."""

    q_lens: list[int]
    kv_lens: list[int]
    heads: tuple[int, int] = (4, 2)
    page_size: int = 16
    config: dict[str, Any] = {}
    batch: dict[str, Any] = {}
    features: dict[str, Any] = {}


SPLIT = {"decode_split_tokens": 48, "max_prefill_waves": 4}
SHAPES = {
    "hybrid": Shape([70, 1, 1, 33], [200, 300, 65, 40]),
    "hybrid, split, 1:3": Shape(
        [50, 1, 1], [180, 130, 47], config=SPLIT | {"prefill_ctas": 1, "decode_ctas": 3}
    ),
    "page size 1 in server rows": Shape(
        [40, 1], [150, 129], page_size=1, batch={"row_starts": True}, config=SPLIT
    ),
    "page size 7, heads strided": Shape([30, 1], [64, 90], page_size=7, batch={"strided": True}),
    "prefill only": Shape([64, 65], [64, 130]),
    "decode only": Shape([1, 1, 1, 1], [1, 63, 64, 65], config=SPLIT),
    "more splits than lanes": Shape([1, 3], [600, 530], config={"decode_split_tokens": 16}),
    "group 1": Shape([17, 1], [80, 81], heads=(2, 2), config=SPLIT),
    "group 16": Shape([5, 1, 1], [100, 70, 16], heads=(16, 1), config=SPLIT),
    "group 24 in several decode tiles": Shape([1, 3], [60, 50], heads=(24, 1)),
    "group 5": Shape([20, 1, 3], [60, 200, 90], heads=(5, 1), config=SPLIT),
    "group 8, page size 1": Shape([2, 1, 20], [150, 97, 40], (8, 1), page_size=1, config=SPLIT),
    "speculative rows": Shape([2, 4, 8, 1], [90, 64, 70, 33], config=SPLIT),
    "window": Shape([40, 1, 1], [200, 150, 20], features={"window_left": 37}, config=SPLIT),
    "window that ends before a part": Shape(
        [130, 1],
        [260, 90],
        heads=(1, 1),
        features={"window_left": 4},
        config=SPLIT | {"max_prefill_waves": 8},
    ),
    "window 0": Shape([20, 1], [50, 33], features={"window_left": 0}),
    "cap": Shape([40, 1], [100, 90], features={"logit_cap": 5.0}, config=SPLIT),
    "sinks": Shape([40, 1], [100, 90], features={"sinks": torch.linspace(-2, 4, 4)}, config=SPLIT),
    "padding requests": Shape([0, 20, 0, 1, 0], [0, 60, 5, 70, 0]),
    "serial": Shape([70, 1], [100, 90], config=SPLIT | {"strategy": "serial"}),
    "streams": Shape([70, 1], [100, 90], config=SPLIT | {"strategy": "streams"}),
}


@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("name", VARIANTS)
def test_matches_reference(name: str, shape: Shape, schedule: Schedule) -> None:
    variant = Variant.parse(name)
    geometry = Geometry.uniform(
        (shape.heads[0], shape.heads[1], variant.head_dim), variant.dtype, page_size=shape.page_size
    )
    case = make_batch(shape.q_lens, shape.kv_lens, geometry=geometry, seed=1, **shape.batch)
    config = dataclasses.replace(variant.config(), **shape.config)
    got = emulator.attend(*case, config=config, schedule=schedule, **shape.features)
    assert_matches_reference(case, got.attention, rounded_weights=True, **shape.features)
    assert got.stats.ldmatrix_extra_wavefronts == 0, "ldmatrix meets bank conflicts"
