"""The SM-aware CTA scheduler: every item once, and both ops on every SM while both remain."""

from __future__ import annotations

import dataclasses
import functools

import hypothesis
from hypothesis import given
from hypothesis import strategies as st

from pod_integrate.config import PodConfig
from pod_integrate.keys import Geometry
from pod_integrate.planning import plan_batch
from pod_integrate.testing import emulator
from pod_integrate.testing.batches import Case, make_batch
from pod_integrate.testing.emulator import CtaRecord, Emulated, Schedule
from pod_integrate.testing.reference import Attended, attention_reference
from pod_integrate.variants import Variant

# The smallest tiles: what is tested is who runs them.
VARIANT = Variant.parse("bf16-d64-p16x16s1w1-d16x16s1w1-c2-v1")
VIRTUAL = Variant.parse("bf16-d64-p32x16s1w2-d16x16s1w1-c2-v2")
GEOMETRY = Geometry(
    num_q_heads=2, num_kv_heads=2, head_dim=64, dtype="bf16", kv_dtype="bf16", page_size=16
)
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


def assert_ratio_holds(got: Emulated, case: Case, config: PodConfig, num_sms: int) -> None:
    """Of the CTAs that an SM began before an op ran out, the ratio's share is prefill."""
    plan = plan_batch(
        case.batch.q_indptr, case.batch.kv_lens, GEOMETRY, config, num_sms=num_sms
    ).capacity
    ratio = (config.prefill_ctas, config.decode_ctas)
    prefill, decode = ratio if ratio != (0, 0) else (plan.prefill_ctas, plan.decode_ctas)
    begun = sorted(got.records, key=lambda record: record.begin_ns)
    left = [plan.prefill_ctas, plan.decode_ctas]
    mixed: list[CtaRecord] = []
    for record in begun:
        if min(left) == 0:
            break
        left[record.op] -= 1
        mixed.append(record)
    for smid in range(num_sms):
        ops = [record.op for record in mixed if record.smid == smid]
        wanted = [op_of_ticket(number, prefill, decode) for number in range(len(ops))]
        # CTAs that are resident together may have drawn in another order than they began.
        assert abs(sum(ops) - sum(wanted)) <= config.ctas_per_sm, (smid, ops, wanted)


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
    assert (got.out.double() - answer.out).abs().max() < 0.02
    if sm_slots >= num_sms and prefill_tokens and decodes:
        assert_ratio_holds(got, case, dataclasses.replace(config, ctas_per_sm=residency), num_sms)


def test_both_ops_are_on_every_sm_while_both_remain() -> None:
    case, _ = make_case(90, 12)
    config = dataclasses.replace(
        VARIANT.config(), prefill_ctas=1, decode_ctas=1, decode_split_tokens=16
    )
    got = emulator.attend(*case, config=config, schedule=Schedule(num_sms=2))
    for smid in range(2):
        first = sorted((r for r in got.records if r.smid == smid), key=lambda r: r.begin_ns)[:2]
        assert {r.op for r in first} == {0, 1}
