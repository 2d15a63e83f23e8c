"""Two plans behind one upload: each reads as its own, wherever its items lie."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from support import emulated
from support.emulated import CONFIG, SMS, emulated_gpu

from pod_integrate.devices.call import Call, PlanWords
from pod_integrate.devices.cuda.planning import (
    HEADER_WORDS,
    OFFSET_WORDS,
    STAMP_WORD,
    plan_batch,
)
from pod_integrate.devices.device_plan import DevicePlan
from pod_integrate.devices.registry import device_of, standing_in
from pod_integrate.devices.twin_plan import TwinPlan
from pod_integrate.errors import ShapeError
from pod_integrate.measure.batches import make_batch
from pod_integrate.terms.batch import HybridBatch
from pod_integrate.terms.scalars import Scalars

GEOMETRY = emulated.GEOMETRY
CASES = [
    make_batch([1] * 3, keys, geometry=GEOMETRY, seed=0) for keys in ([300, 90, 210], [5, 1, 70])
]
BATCHES = [case.batch for case in CASES]


def twins() -> TwinPlan:
    finest = dataclasses.replace(CONFIG, decode_split_tokens=32)
    batch = BATCHES[0]
    capacity = plan_batch(batch.q_indptr, batch.kv_lens, GEOMETRY, finest, num_sms=SMS).capacity
    return TwinPlan(
        torch.device("cpu"),
        GEOMETRY,
        config=CONFIG,
        max_tokens=3,
        max_requests=3,
        capacity=capacity,
        num_sms=SMS,
    )


def sections(plan: DevicePlan) -> list[list[int]]:
    """Counts of a header, and the items and merge blocks that it points to."""
    words = plan.words
    counts = words[:5].tolist(), words[8:11].tolist()
    lengths = (0, 12 * int(words[1]), 8 * int(words[2]))
    offsets = words[OFFSET_WORDS].tolist()
    parts = [words[o : o + n].tolist() for o, n in zip(offsets, lengths, strict=True)]
    return [*counts, *parts]


def alone(number: int, split: int) -> DevicePlan:
    twin = twins()
    plan = DevicePlan(
        torch.device("cpu"),
        GEOMETRY,
        config=CONFIG,
        max_tokens=3,
        max_requests=3,
        capacity=twin.capacity,
        num_sms=SMS,
    )
    plan.update(BATCHES[number], decode_split_tokens=split)
    return plan


@pytest.mark.parametrize("number", [0, 1])
@pytest.mark.parametrize(("first", "second"), [(64, None), (64, 64), (64, 32), (32, 128), (0, 48)])
def test_both_hold_what_each_would_alone(number: int, first: int, second: int | None) -> None:
    twin = twins()
    # Whatever was there before must not be read.
    twin.update(BATCHES[0], 32, 48)
    twin.update(BATCHES[number], first, second)
    assert sections(twin.first) == sections(alone(number, first))
    assert sections(twin.second) == sections(alone(number, first if second is None else second))


def test_a_stamp_is_in_both_headers_until_the_next_update() -> None:
    twin = twins()
    for splits in ((64, None), (64, 32)):
        twin.update(BATCHES[0], *splits, stamp=5)
        assert [int(p.words[STAMP_WORD]) for p in (twin.first, twin.second)] == [5, 5]
        twin.update(BATCHES[0], *splits)
        assert [int(p.words[STAMP_WORD]) for p in (twin.first, twin.second)] == [0, 0]


def test_while_both_are_alike_the_second_costs_a_header(monkeypatch: pytest.MonkeyPatch) -> None:
    twin, copied = twins(), list[int]()
    length = int(alone(0, 64).words[9])
    copy = torch.Tensor.copy_

    def spy(to: torch.Tensor, words: torch.Tensor, **more: bool) -> torch.Tensor:
        copied.append(words.numel())
        return copy(to, words, **more)

    monkeypatch.setattr(torch.Tensor, "copy_", spy)
    twin.update(BATCHES[0], 64)
    assert copied == [length + HEADER_WORDS]


def attend(number: int, held: PlanWords) -> torch.Tensor:
    case = CASES[number]
    out, lse = torch.full_like(case.q, torch.nan), torch.empty(case.q.shape[:2])
    call = Call(
        case.q,
        case.k_cache,
        case.v_cache,
        case.batch,
        Scalars(GEOMETRY.head_dim**-0.5, -1),
        None,
        out,
        lse,
        held,
    )
    device_of(out).attend(call, CONFIG)
    return out


@pytest.mark.parametrize("number", [0, 1])
def test_a_layer_gets_the_bits_of_its_own_plan(number: int) -> None:
    with standing_in(emulated_gpu()):
        twin = twins()
        want = {split: attend(number, alone(number, split).held) for split in (64, 32)}
        for first, second in ((64, None), (64, 32), (32, 64)):
            twin.update(BATCHES[number], first, second)
            for position in range(4):
                split = first if position % 2 == 0 or second is None else second
                assert torch.equal(attend(number, twin.of(position).held), want[split])


def test_a_batch_without_room_leaves_both_as_they_were() -> None:
    twin = twins()
    twin.update(BATCHES[0], 64)
    before = sections(twin.first), sections(twin.second)
    for splits in ((16, None), (64, 16)):
        with pytest.raises(ShapeError, match="needs more than the plan has reserved"):
            twin.update(BATCHES[0], *splits)
    assert (sections(twin.first), sections(twin.second)) == before


@pytest.mark.parametrize("second", [None, 64])
def test_a_promise_is_asked_for_once_and_holds_for_both(
    monkeypatch: pytest.MonkeyPatch, second: int | None
) -> None:
    asked, ask = [], DevicePlan.require_promised

    def count(plan: DevicePlan, batch: HybridBatch) -> None:
        asked.append(batch)
        ask(plan, batch)

    monkeypatch.setattr(DevicePlan, "require_promised", count)
    twin = twins()
    twin.promise(1)
    twin.update(BATCHES[0], 32, second)
    assert asked == [BATCHES[0]]
    words = twin.first.words.clone(), twin.second.words.clone()
    with pytest.raises(ShapeError, match="has 3 tokens, and the plan was promised at most 1"):
        twin.update(make_batch([3], [300], geometry=GEOMETRY, seed=0).batch, 32, second)
    assert torch.equal(twin.first.words, words[0]) and torch.equal(twin.second.words, words[1])
