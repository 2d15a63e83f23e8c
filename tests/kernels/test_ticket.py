"""The SM-aware CTA scheduler: every item once, and both ops on every SM while both remain."""

from __future__ import annotations

import dataclasses
import functools
from collections import Counter

import hypothesis
from hypothesis import given
from hypothesis import strategies as st

from pod_integrate.devices.cuda.variants import Variant
from pod_integrate.devices.emulated import emulator
from pod_integrate.devices.emulated.cta_records import CtaRecord
from pod_integrate.devices.emulated.emulator import Schedule
from pod_integrate.measure.accuracy import BF16_TOLERANCE
from pod_integrate.measure.batches import Case, make_batch
from pod_integrate.measure.reference import Attended, attention_reference
from pod_integrate.terms.keys import Geometry

# The smallest tiles: what is tested is who runs them.
VARIANT = Variant.parse("bf16-d64-p16x16s1w1-d16x16s1w1-c2-v1")
VIRTUAL = Variant.parse("bf16-d64-p32x16s1w2-d16x16s1w1-c2-v2")
GEOMETRY = Geometry.uniform((2, 2, 64), "bf16")
RATIOS = st.one_of(st.just((0, 0)), st.tuples(st.integers(1, 8), st.integers(1, 8)))


@functools.lru_cache(maxsize=64)
def make_case(prefill_tokens: int, decodes: int) -> tuple[Case, Attended]:
    q_lens = [prefill_tokens] * (prefill_tokens > 0) + [1] * decodes
    kv_lens = [prefill_tokens + 5] * (prefill_tokens > 0) + [9 + 7 * i for i in range(decodes)]
    case = make_batch(q_lens, kv_lens, geometry=GEOMETRY, seed=0)
    return case, attention_reference(*case)


def op_of_ticket(number: int, prefill: int, decode: int) -> int:
    """Independent statement of the rule: prefills stand at ceil(i * round / prefill)."""
    total = prefill + decode
    places = {-(-i * total // prefill) for i in range(prefill)} if prefill else set()
    return 0 if number % total in places else 1


def assert_tickets_decide(records: list[CtaRecord], ratio: tuple[int, int], sm_slots: int) -> None:
    """Every counter's tickets once, and each CTA the op of its ticket while that lasts.

    When a CTA began says nothing of which ticket it drew, so this is about tickets alone. Both ops
    have as many CTAs as items, so of the tickets of one op exactly those that exceed its items find
    none, whatever the order of draws, and run the other.
    """
    for slot in range(sm_slots):
        drawn = sorted(record.ticket for record in records if record.smid % sm_slots == slot)
        assert drawn == list(range(len(drawn)))
    ctas = Counter(record.op for record in records)
    if ratio == (0, 0):
        ratio = (ctas[0], ctas[1])
    wanted = Counter(op_of_ticket(record.ticket, *ratio) for record in records)
    turned = Counter(
        record.op for record in records if record.op != op_of_ticket(record.ticket, *ratio)
    )
    assert [turned[op] for op in (0, 1)] == [max(0, ctas[op] - wanted[op]) for op in (0, 1)]


@hypothesis.settings(max_examples=60)
@given(
    prefill_tokens=st.sampled_from([0, 2, 40, 90]),
    decodes=st.integers(0, 12),
    ratio=RATIOS,
    num_sms=st.integers(1, 5),
    residency=st.integers(1, 4),
    virtual=st.booleans(),
    order=st.sampled_from(["ascending", "descending", "random"]),
    sm_slots=st.integers(1, 6),
    seed=st.integers(0, 1000),
)
@hypothesis.example(40, 4, (3, 1), 2, 3, False, "ascending", 2, 0)
def test_every_item_runs_once_in_the_ratio(
    prefill_tokens: int,
    decodes: int,
    ratio: tuple[int, int],
    num_sms: int,
    residency: int,
    virtual: bool,
    order: emulator.Order,
    sm_slots: int,
    seed: int,
) -> None:
    hypothesis.assume(prefill_tokens or decodes)
    case, answer = make_case(prefill_tokens, decodes)
    config = dataclasses.replace(
        (VIRTUAL if virtual else VARIANT).config(),
        prefill_ctas=ratio[0],
        decode_ctas=ratio[1],
        decode_split_tokens=16,
    )
    schedule = Schedule(num_sms=num_sms, order=order, sm_slots=sm_slots, seed=seed)
    got = emulator.attend(*case, config=config, schedule=schedule, residency=residency)
    for op in (0, 1):
        items = sorted(r.first_item + i for r in got.records if r.op == op for i in range(r.items))
        assert items == list(range(len(items)))
    assert (got.out.double() - answer.out).abs().max() < BF16_TOLERANCE
    if {record.op for record in got.records} == {0, 1}:
        assert_tickets_decide(got.records, ratio, sm_slots)
    else:
        assert {record.ticket for record in got.records} == {-1}


def test_both_ops_are_on_every_sm_while_both_remain() -> None:
    case, _ = make_case(90, 12)
    config = dataclasses.replace(
        VARIANT.config(), prefill_ctas=1, decode_ctas=1, decode_split_tokens=16
    )
    got = emulator.attend(*case, config=config, schedule=Schedule(num_sms=2))
    for smid in range(2):
        assert {r.op for r in got.records if r.smid == smid and r.ticket < 2} == {0, 1}
