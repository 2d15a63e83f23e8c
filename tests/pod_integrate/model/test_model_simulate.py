"""A simulated launch: every CTA once, tickets by the kernel's rule, never below what bounds it."""

from __future__ import annotations

import collections
import dataclasses
import itertools

import pytest

from pod_integrate.devices.cuda.choices import PAIRS, tiles_of
from pod_integrate.devices.cuda.variants import with_tiles
from pod_integrate.devices.registry import target_of
from pod_integrate.model.batches import Lengths, paper_geometry
from pod_integrate.model.demand import decode_demand
from pod_integrate.model.devices import DEVICES, Device
from pod_integrate.model.engine import SimulatedCta
from pod_integrate.model.floors import CASES, CaseSpec, cost_of
from pod_integrate.model.items import make_plan
from pod_integrate.model.published import POD_2, POD_4, fa_config, time_us
from pod_integrate.model.simulate import Simulation, simulate
from pod_integrate.terms.config import STRATEGIES, PodConfig, TileConfig
from pod_integrate.terms.keys import KvDtype

A100, H100, H200 = (DEVICES[name] for name in ("a100", "h100", "h200"))
HYBRID = Lengths.parse("p2k@8k+d40@8k")
GEOMETRY = paper_geometry(32, 8)


def with_strategy(config: PodConfig, strategy: str) -> PodConfig:
    return PodConfig.from_dict(config.to_dict() | {"strategy": strategy})


def run(config: PodConfig, lengths: Lengths = HYBRID) -> Simulation:
    return simulate(lengths, GEOMETRY, config, A100)


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("config", [POD_2, POD_4], ids=PodConfig.short)
def test_every_cta_runs_once_within_its_slots(config: PodConfig, strategy: str) -> None:
    result = run(with_strategy(config, strategy))
    ops = collections.Counter(record.op for record in result.records)
    assert ops == {"prefill": result.plan.prefill_ctas, "decode": result.plan.decode_ctas}
    by_slot = collections.defaultdict(list)
    for record in result.records:
        assert 0 <= record.sm < A100.sms and 0 <= record.slot < config.ctas_per_sm
        by_slot[record.sm, record.slot].append((record.begin, record.end))
    for spans in by_slot.values():
        spans.sort()
        assert all(end <= begin for (_, end), (begin, _) in zip(spans, spans[1:], strict=False))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_no_launch_beats_tensor_pipes_or_memory(case: CaseSpec) -> None:
    cost = cost_of(case.lengths, case.geometry)
    bound = max(
        (cost.prefill_flops + cost.decode_flops) / A100.kernel_flops,
        cost.decode_bytes / (A100.dram_bytes * A100.dram_share),
    )
    for strategy in STRATEGIES:
        result = simulate(case.lengths, case.geometry, with_strategy(POD_2, strategy), A100)
        assert result.us * 1e-6 >= bound
        assert 0 < result.tensor_share <= 1 and 0 < result.dram_share <= A100.dram_share


def test_serial_is_its_two_halves() -> None:
    whole = run(with_strategy(POD_2, "serial"))
    halves = [run(with_strategy(POD_2, "serial"), part) for part in (HYBRID.prefill, HYBRID.decode)]
    # Splits of the prefill, and so its merge, do not depend on the decodes.
    assert whole.attention_us == pytest.approx(sum(half.attention_us for half in halves), rel=0.01)
    first_decode = min(r.begin for r in whole.records if r.op == "decode")
    assert first_decode >= max(r.end for r in whole.records if r.op == "prefill")


@pytest.mark.parametrize(
    ("ratio", "expected"), [((1, 1), "pdpd"), ((1, 3), "pddd"), ((3, 1), "pppd")], ids=str
)
def test_tickets_of_an_sm_follow_the_ratio(ratio: tuple[int, int], expected: str) -> None:
    config = dataclasses.replace(
        POD_2, prefill_ctas=ratio[0], decode_ctas=ratio[1], ctas_per_sm=4, virtual_decode=1
    )
    result = run(config, Lengths.parse("p16k@16k+d128@8k"))
    first = sorted(r for r in result.records if r.sm == 0 and r.begin == 0)
    drawn = [record.op[0] for record in sorted(first, key=lambda r: r.slot)]
    total = sum(ratio)
    rule = ["pd"[(t % total) * ratio[0] % total >= ratio[0]] for t in range(4)]
    assert drawn == rule and sorted(drawn) == sorted(expected)


def test_both_ops_share_sms_when_fused_and_never_when_serial() -> None:
    def shared(strategy: str) -> int:
        ops = collections.defaultdict(set)
        for record in run(with_strategy(POD_2, strategy)).records:
            if record.begin == 0:
                ops[record.sm].add(record.op)
        return sum(len(kinds) == 2 for kinds in ops.values())

    assert shared("fused") > A100.sms // 2 and shared("serial") == 0


def test_overlap_shortens_a_balanced_batch() -> None:
    assert run(POD_2).us < 0.9 * run(with_strategy(POD_2, "serial")).us


@pytest.mark.parametrize("batch", ["p512@4k", "d16@4k"])
def test_a_batch_of_one_op_costs_the_same_fused_or_serial(batch: str) -> None:
    lengths = Lengths.parse(batch)
    fused, serial = (run(with_strategy(POD_2, s), lengths).us for s in ("fused", "serial"))
    assert fused == pytest.approx(serial)


def test_ops_run_side_by_side_where_a_call_launches_them_so() -> None:
    def records(device: Device, batch: str, **fields: object) -> list[SimulatedCta]:
        config = target_of(device.key).default_config(GEOMETRY)
        changed = PodConfig.from_dict(config.to_dict() | fields)
        return simulate(Lengths.parse(batch), GEOMETRY, changed, device).records

    # Three quarters of a wave of prefill CTAs, and a whole one, beside which decode has no place.
    small, large = "p768@8k+d64@4k", "p1k@8k+d64@4k"
    beside = records(H200, small, strategy="streams")
    assert records(H200, small) == beside != records(H200, small, prefill_ctas=1, decode_ctas=1)
    assert records(H200, large) != records(H200, large, strategy="streams")
    assert records(H100, small) != records(H100, small, strategy="streams")


@pytest.mark.parametrize(("ratio", "begin"), [((0, 0), 66), ((3, 1), 99)])
def test_ctas_in_turn_have_items_of_one_op_on_each_sm(ratio: tuple[int, int], begin: int) -> None:
    geometry = dataclasses.replace(GEOMETRY, num_q_heads=16, num_kv_heads=8, head_dim=256)
    config = target_of(H200.key).default_config(geometry)
    config = dataclasses.replace(config, prefill_ctas=ratio[0], decode_ctas=ratio[1])
    result = simulate(HYBRID, geometry, config, H200)
    ops = collections.Counter(record.op for record in result.records)
    assert ops == {"prefill": result.plan.prefill_ctas, "decode": result.plan.decode_ctas}
    by_sm: dict[int, list[SimulatedCta]] = collections.defaultdict(list)
    for record in result.records:
        by_sm[record.sm].append(record)
    beside = 0
    for records in by_sm.values():
        for one, other in itertools.combinations(records, 2):
            if one.begin < other.end and other.begin < one.end:
                assert one.op == other.op == "decode"
                beside += 1
    assert beside
    assert (
        sum(min(records, key=lambda r: r.begin).op == "prefill" for records in by_sm.values())
        == begin
    )


def test_ctas_that_stay_have_an_item_of_either_op_on_each_sm() -> None:
    default = target_of(H200.key).default_config(GEOMETRY)
    pair = with_tiles(default, tiles_of(PAIRS[0]))
    fused, serial = (
        simulate(HYBRID, GEOMETRY, with_strategy(pair, strategy), H200)
        for strategy in ("fused", "serial")
    )
    ops = collections.Counter(record.op for record in fused.records)
    assert ops == {"prefill": fused.plan.prefill_ctas, "decode": fused.plan.decode_ctas}
    # Never two of one op on an SM, and both from the beginning.
    for op in ops:
        spans = collections.defaultdict(list)
        for record in fused.records:
            if record.op == op:
                spans[record.sm].append((record.begin, record.end))
        assert all(
            end <= begin
            for each in map(sorted, spans.values())
            for (_, end), (begin, _) in zip(each, each[1:], strict=False)
        )
        assert sum(r.begin == 0 for r in fused.records if r.op == op) == H200.sms
    assert fused.us < 0.9 * serial.us
    # The ratio is not theirs.
    other = dataclasses.replace(pair, prefill_ctas=1, decode_ctas=4)
    assert simulate(HYBRID, GEOMETRY, other, H200).us == fused.us


@pytest.mark.parametrize(
    ("warps", "kv_dtype", "rate"),
    [(4, "bf16", H200.wgmma_flops), (2, "bf16", H200.kernel_flops), (4, "e4m3", H200.kernel_flops)],
)
def test_decode_computes_at_the_rate_of_its_engine(
    warps: int, kv_dtype: KvDtype, rate: float
) -> None:
    geometry = dataclasses.replace(GEOMETRY, kv_dtype=kv_dtype)
    config = PodConfig(
        prefill=TileConfig(q_rows=128, kv_rows=64, stages=2, warps=4),
        decode=TileConfig(q_rows=16, kv_rows=128, stages=1, warps=warps),
        ctas_per_sm=2,
    )
    plan = make_plan(Lengths.parse("d64@4k"), geometry, config, H200.sms)
    tensor = decode_demand(plan, geometry, config, H200).tensor.sum()
    # 64 requests of 8 heads, 16 packed rows each, 4096 keys.
    flops = 4 * 64 * 8 * 16 * 4096 * geometry.head_dim
    assert tensor * rate / H200.sms == pytest.approx(flops)


def test_a_batch_of_padding_rows_costs_nothing() -> None:
    result = run(POD_2, Lengths.of([0, 0], [5, 7]))
    assert result.us == 0.0 and result.records == []


def test_splits_add_a_merge() -> None:
    split = run(dataclasses.replace(POD_2, decode_split_tokens=1024))
    whole = run(dataclasses.replace(POD_2, max_prefill_waves=0))
    assert split.merge_us > 0 and whole.merge_us == 0


def test_published_kernels_keep_their_own_splits() -> None:
    lengths = Lengths.parse("d2@8k")
    config = dataclasses.replace(POD_2, decode_split_tokens=4096, virtual_decode=1)
    ours, theirs = (simulate(lengths, GEOMETRY, config, A100, fill_ctas=n) for n in (None, 0))
    assert len(theirs.plan.decode) == 4 * GEOMETRY.num_kv_heads < len(ours.plan.decode)
    assert time_us(lengths, GEOMETRY, config, A100) == theirs.us


def test_flash_attention_splits_only_what_does_not_fill_the_device() -> None:
    few, many = (fa_config(Lengths.parse(b), GEOMETRY, A100, "serial") for b in ("d2@8k", "d64@8k"))
    assert few.decode_split_tokens > 0 and many.decode_split_tokens == 0
