"""A CTA that stays and runs both ops, where items follow each other: against float64.

The shapes of test_emulated_kernel run on it too. Here are many items to a CTA, fewer than CTAs,
items of one tile, items of one op only, and what its records say.
"""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any, NamedTuple

import pytest

from pod_integrate.devices.cuda.variants import Variant
from pod_integrate.devices.emulated import emulator
from pod_integrate.devices.emulated.cta_records import CtaRecord
from pod_integrate.devices.emulated.emulator import Emulated, Schedule
from pod_integrate.measure.accuracy import assert_matches_reference
from pod_integrate.measure.batches import dequantised, make_batch
from pod_integrate.terms.keys import Geometry

VARIANTS = (
    "bf16-d64-p128x128s2w8-d16x64s1w4-c1-v1",
    "fp16-d128-p128x96s2w8-d16x64s2w4-c1-v1",
    "fp16-d64-p128x128s2w8-d8x64s1w4-c1-v1",
    "bf16-d128-p128x96s2w8-d8x64s2w4-c1-v1",
    # Panels of 32 columns; the blocks of a head overlap.
    "bf16-d96-p128x128s2w8-d8x128s1w4-c1-v1",
    # None of its warpgroups only decodes.
    "fp16-d256-p128x64s2w8-d8x64s1w4-c1-v1",
    # Nor here: K and V of 8 bits, which the copying one widens.
    "bf16-kve4m3-d64-p128x128s2w8-d16x128s2w4-c1-v1",
)
SCHEDULES = {
    "ascending": Schedule(order="ascending"),
    "one SM, descending": Schedule(order="descending", num_sms=1),
    "random late": Schedule(order="random", num_sms=3, preempt_percent=5, seed=9),
    "more SMs than items": Schedule(num_sms=24, preempt_percent=10, order="random", seed=3),
}


class Shape(NamedTuple):
    """Lengths and the run-time part of the config; 2 query heads, 1 KV head."""

    q_lens: list[int]
    kv_lens: list[int]
    config: dict[str, Any] = {}
    features: dict[str, Any] = {}


SHAPES = {
    # Blocks of 64 tokens: one, two, three and four tiles of 128 keys.
    "items of all lengths": Shape(
        [400, 1, 70, 5, 1, 1], [500, 300, 90, 20, 700, 33], {"decode_split_tokens": 256}
    ),
    "items of one tile": Shape([30, 20, 64, 64, 40, 9, 50], [30, 20, 64, 64, 40, 96, 128]),
    "one tile, then two, then one": Shape([64, 64, 64, 64], [128, 200, 96, 250]),
    "split prefill": Shape([70, 1], [600, 40], {"max_prefill_waves": 16}),
    "prefill alone": Shape([150, 33, 64], [300, 33, 400]),
    "decode alone": Shape([1] * 7, [1, 63, 64, 65, 300, 129, 500], {"decode_split_tokens": 256}),
    "serial": Shape([150, 1, 1], [300, 90, 400], {"strategy": "serial"}),
    "streams": Shape([150, 1, 1], [300, 90, 400], {"strategy": "streams"}),
    # Multipliers turn to decode: after an item of few keys, and beside one of many.
    "decodes that outlast prefill": Shape(
        [20] + [1] * 9, [30, *range(250, 700, 50)], {"decode_split_tokens": 128}
    ),
    "one prefill item and many decodes": Shape(
        [40] + [1] * 6, [700, 300, 400, 500, 64, 65, 1], {"decode_split_tokens": 64}
    ),
    "window": Shape([200, 1], [400, 300], features={"window_left": 50}),
    # 16 rows of a decode, which two items share where a tile has 8.
    "speculative rows": Shape([70, 8, 5], [90, 300, 200], {"decode_split_tokens": 128}),
}


def attended(name: str, shape: Shape, schedule: Schedule) -> Emulated:
    variant = Variant.parse(name)
    geometry = Geometry.uniform((2, 1, variant.head_dim), variant.dtype)
    geometry = dataclasses.replace(geometry, kv_dtype=variant.kv_dtype)
    case = make_batch(shape.q_lens, shape.kv_lens, geometry=geometry, seed=2)
    config = dataclasses.replace(variant.config(), **shape.config)
    got = emulator.attend(*case, config=config, schedule=schedule, **shape.features)
    exact = dequantised(case) if variant.kv_bytes == 1 else case
    assert_matches_reference(exact, got.attention, rounded_weights=True, **shape.features)
    return got


@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("name", VARIANTS)
def test_matches_reference(name: str, shape: Shape, schedule: Schedule) -> None:
    got = attended(name, shape, schedule)
    assert got.stats.stmatrix_extra_wavefronts == 0


@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
def test_every_item_has_a_record_of_its_own(schedule: Schedule) -> None:
    records = attended(VARIANTS[0], SHAPES["items of all lengths"], schedule).records
    prefill = [record for record in records if record.op == 0]
    decode = [record for record in records if record.op == 1]
    assert [record.first_item for record in prefill] == list(range(len(prefill)))
    assert [record.first_item for record in decode] == list(range(len(decode)))
    assert len(prefill) > 8 and len(decode) > 5
    assert {(record.items, record.ticket) for record in records} == {(1, -1)}
    assert all(0 <= record.smid < schedule.num_sms for record in records)
    assert all(0 < record.begin_ns < record.end_ns for record in records)


def test_the_longest_decode_begins_beside_the_shortest_of_the_first_prefill_items() -> None:
    shape = Shape([400, 1, 1, 1, 1], [400, 500, 400, 300, 200], {"decode_split_tokens": 0})
    records = attended(VARIANTS[0], shape, Schedule(num_sms=4)).records
    ordered = sorted(records, key=lambda record: record.begin_ns)
    firsts = {(record.smid, record.op): record.first_item for record in reversed(ordered)}
    assert [firsts[sm, 1] for sm in range(4)] == [3 - firsts[sm, 0] for sm in range(4)]
    assert {firsts[sm, 0] for sm in range(4)} == set(range(4))


def most_at_once(records: list[CtaRecord]) -> int:
    """Items of these that run at one time."""
    starts = sorted((r.begin_ns, 1) for r in records)
    ends = sorted((r.end_ns, -1) for r in records)
    now = itertools.accumulate(step for _, step in sorted(starts + ends))
    return max(now, default=0)


@pytest.mark.parametrize(
    ("name", "decoders"), list(zip(VARIANTS, (3, 2, 3, 2, 2, 2, 2), strict=True))
)
def test_multipliers_turn_to_decode_where_there_is_room(name: str, decoders: int) -> None:
    # Beside the decoder as many as a prefill item has room for: 2 of 29 KiB in 80, 1 of 87 in 128,
    # and of 27 and 85 with 8 query rows. Without a decoder both, whatever room they take.
    shape = SHAPES["decodes that outlast prefill"]
    records = attended(name, shape, Schedule(num_sms=1, order="random", seed=5)).records
    assert most_at_once([record for record in records if record.op == 1]) == decoders


@pytest.mark.parametrize("name", VARIANTS[-2:])
@pytest.mark.parametrize(("ratio", "first"), [((0, 0), 2), ((1, 3), 1), ((64, 1), 4)])
def test_sms_that_run_one_op_at_a_time_begin_with_what_the_ratio_says(
    ratio: tuple[int, int], first: int, name: str
) -> None:
    config = {"prefill_ctas": ratio[0], "decode_ctas": ratio[1], "decode_split_tokens": 64}
    shape = Shape([400] + [1] * 6, [400, 300, 400, 500, 64, 65, 1], config)
    records = attended(name, shape, Schedule(num_sms=4)).records
    ordered = sorted(records, key=lambda record: record.begin_ns)
    by_sm = [[record for record in ordered if record.smid == sm] for sm in range(4)]
    assert sum(mine[0].op == 0 for mine in by_sm) == first
    for mine in by_sm:
        # It changes the op once at most, when all items of the one before have ended.
        ops = [op for op, _ in itertools.groupby(mine, key=lambda record: record.op)]
        assert len(ops) <= 2
        turned = [record for record in mine if record.op != mine[0].op]
        ended = max(record.end_ns for record in mine if record.op == mine[0].op)
        assert all(record.begin_ns >= ended for record in turned)
