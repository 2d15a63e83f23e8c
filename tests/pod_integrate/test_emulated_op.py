"""hybrid_attention's CUDA kernel on the emulated GPU: same call, same answer, no GPU."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from pod_integrate.devices.cuda import kernel_library
from pod_integrate.devices.cuda.limits import smem_bytes
from pod_integrate.devices.cuda.variants import Variant
from pod_integrate.devices.device_plan import DevicePlan
from pod_integrate.devices.emulated import emulator
from pod_integrate.devices.emulated.emulator import EmulatorError, Order, Schedule
from pod_integrate.errors import ConfigError, DtypeError, ShapeError
from pod_integrate.measure.batches import Case, make_batch
from pod_integrate.measure.reference import attention_reference
from pod_integrate.terms.config import Strategy
from pod_integrate.terms.keys import Geometry

# One small variant serves the whole file: compiling it is most of the time.
VARIANT = Variant.parse("bf16-d64-p64x32s1w4-d16x64s1w4-c2-v1")
CONFIG = dataclasses.replace(VARIANT.config(), decode_split_tokens=64)
GEOMETRY = Geometry.uniform((4, 2, 64), "bf16")
CASE = make_batch([70, 1, 1, 33], [200, 300, 90, 40], geometry=GEOMETRY, seed=0)


def assert_close(case: Case, got: emulator.Emulated) -> None:
    """bf16 rounding of weights and output, nothing more."""
    exact = attention_reference(*case)
    assert torch.allclose(got.out.double(), exact.out, rtol=0.01, atol=0.01)
    assert torch.allclose(got.lse.double(), exact.lse, rtol=0, atol=1e-5)


@pytest.mark.parametrize("order", ["ascending", "descending", "random"])
@pytest.mark.parametrize("strategy", ["fused", "serial", "streams"])
def test_every_strategy_and_order_matches_reference(strategy: Strategy, order: Order) -> None:
    config = dataclasses.replace(CONFIG, strategy=strategy)
    schedule = Schedule(order=order, seed=3, preempt_percent=5)
    got = emulator.attend(*CASE, config=config, schedule=schedule)
    assert_close(CASE, got)
    assert got.stats.mma > 0 and got.stats.ctas >= len(got.records)


def test_strided_inputs_and_out_are_read_and_written_in_place() -> None:
    case = make_batch([40, 1], [90, 130], geometry=GEOMETRY, seed=1, strided=True, row_starts=True)
    storage = torch.full((4, 2, 41, 64), 7.0, dtype=torch.bfloat16)
    out = storage[:, 0].transpose(0, 1)
    got = emulator.attend(*case, config=CONFIG, out=out)
    assert got.out is out and (storage[:, 1] == 7).all()
    assert_close(case, got)


def test_records_hold_every_item_once_and_both_ops_share_the_sms() -> None:
    got = emulator.attend(*CASE, config=CONFIG, schedule=Schedule(num_sms=3))
    for op in (0, 1):
        items = [r.first_item + i for r in got.records if r.op == op for i in range(r.items)]
        assert sorted(items) == list(range(len(items))) and items
    assert {r.smid for r in got.records} == {0, 1, 2}
    assert all(0 < r.begin_ns <= r.end_ns for r in got.records)


def test_one_plan_serves_batches_of_changing_lengths() -> None:
    cases = [CASE, make_batch([1, 1, 1, 50], [10, 64, 200, 60], geometry=GEOMETRY, seed=2)]
    plan = DevicePlan.reserve(
        [case.batch for case in cases], torch.device("cpu"), GEOMETRY, config=CONFIG, num_sms=2
    )
    for case in (*cases, cases[0]):
        plan.update(case.batch)
        padding = torch.full((plan.max_tokens - len(case.q), 4, 64), 3.0, dtype=torch.bfloat16)
        got = emulator.attend(
            torch.cat([case.q, padding]), *case[1:], plan=plan, schedule=Schedule(num_sms=2)
        )
        tokens = len(case.q)
        assert_close(case, got._replace(out=got.out[:tokens], lse=got.lse[:tokens]))
        # Rows of the padding are never written.
        assert got.out[tokens:].isnan().all() and got.lse[tokens:].isnan().all()


def test_read_out_of_range_stops_the_call_with_a_report() -> None:
    # Right behind the cache: further away there may be somebody else's memory.
    behind = torch.full_like(CASE.batch.page_indices, CASE.k_cache.shape[0])
    past = dataclasses.replace(CASE.batch, page_indices=behind)
    with pytest.raises(EmulatorError, match="cta"):
        emulator.attend(*CASE[:3], past, config=CONFIG)
    # The emulator is whole afterwards.
    assert_close(CASE, emulator.attend(*CASE, config=CONFIG))


def test_user_mistakes_are_the_errors_of_the_op() -> None:
    with pytest.raises(ShapeError, match="page_size"):
        emulator.attend(*CASE[:3], dataclasses.replace(CASE.batch, page_size=8), config=CONFIG)
    long = torch.zeros(1, dtype=torch.int32).expand(2**31)
    with pytest.raises(ShapeError, match="page_indices holds 2147483648 entries"):
        emulator.attend(
            *CASE[:3], dataclasses.replace(CASE.batch, page_indices=long), config=CONFIG
        )
    with pytest.raises(DtypeError, match="takes bf16 or fp16"):
        emulator.attend(CASE.q.float(), CASE.k_cache.float(), CASE.v_cache.float(), CASE.batch)
    with pytest.raises(ConfigError, match="copies"):
        Schedule(copies="never")  # type: ignore[arg-type]


def test_kernel_asks_for_the_shared_memory_that_the_limits_are_checked_with() -> None:
    library = kernel_library.load(emulator.build(VARIANT))
    prefill, decode = smem_bytes(VARIANT.config(), VARIANT.head_dim)
    assert library.info("prefill").dynamic_smem == prefill
    assert library.info("decode").dynamic_smem == decode
    assert library.info("fused").dynamic_smem == max(prefill, decode)
