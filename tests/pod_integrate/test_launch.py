"""The CUDA path of the op around the kernel: plans made once per batch, streams, checks.

The emulated GPU stands in for the device; what asks torch.cuda for streams is replaced.
"""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import weakref
from typing import Any

import pytest
import torch

from pod_integrate.devices.cuda import kernel_library, launch, uploads
from pod_integrate.devices.cuda.device_plan import DevicePlan
from pod_integrate.devices.cuda.planning import plan_batch
from pod_integrate.devices.cuda.variants import Variant
from pod_integrate.devices.emulated import emulator
from pod_integrate.errors import ShapeError, UnsupportedFeatureError
from pod_integrate.measure.batches import Case, make_batch
from pod_integrate.measure.reference import attention_reference
from pod_integrate.terms.config import PodConfig, flatten_config
from pod_integrate.terms.keys import Geometry

VARIANT = Variant.parse("bf16-d64-p64x32s1w4-d16x64s1w4-c2-v1")
CONFIG = dataclasses.replace(VARIANT.config(), decode_split_tokens=64)
GEOMETRY = Geometry(
    num_q_heads=4, num_kv_heads=2, head_dim=64, dtype="bf16", kv_dtype="bf16", page_size=16
)
CPU = torch.device("cpu")


class Device:
    """What a test sees and sets of the stand-in GPU."""

    def __init__(self) -> None:
        self.stream, self.capturing = 0, False
        self.planned: list[PodConfig] = []


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Device:
    device = Device()
    library = kernel_library.load(emulator.build(VARIANT))

    def choose(config: tuple[int, ...], geometry: Geometry, _: int | None) -> launch.Chosen:
        return launch.Chosen(library, launch.unflatten_config(config), geometry, num_sms=2)

    def plan(q: Any, kv: Any, geometry: Geometry, config: PodConfig, **more: Any) -> Any:
        device.planned.append(config)
        return plan_batch(q, kv, geometry, config, **more)

    monkeypatch.setattr(launch, "choose", choose)
    # Of the choose of another test.
    launch._route.cache_clear()
    monkeypatch.setattr(uploads, "plan_batch", plan)
    monkeypatch.setattr(launch, "_current", lambda _: contextlib.nullcontext())
    monkeypatch.setattr(launch, "_is_capturing", lambda: device.capturing)
    monkeypatch.setattr(launch, "current_stream", lambda _: device.stream)
    monkeypatch.setattr(launch, "_side_stream", lambda _: 0)
    return device


def make_case(seed: int = 0) -> Case:
    return make_batch([70, 1, 1, 33], [200, 300, 90, 40], geometry=GEOMETRY, seed=seed)


def call(
    case: Case, config: PodConfig = CONFIG, window_left: int = -1, **more: Any
) -> tuple[torch.Tensor, torch.Tensor]:
    q, k_cache, v_cache, batch = case
    out, lse = torch.full_like(q, 7), torch.empty(q.shape[:2])
    indices = (batch.q_indptr, batch.kv_lens, batch.page_indices, batch.page_starts)
    numbers = (batch.page_size, q.shape[2] ** -0.5, window_left, 0.0, None)
    launch.attend(
        *(q, k_cache, v_cache, *indices, *numbers, flatten_config(config), out, lse), **more
    )
    return out, lse


@pytest.mark.parametrize("strategy", ["fused", "serial", "streams"])
def test_call_matches_reference(device: Device, strategy: Any) -> None:
    case = make_case()
    out, lse = call(case, dataclasses.replace(CONFIG, strategy=strategy))
    exact = attention_reference(*case)
    assert torch.allclose(out.double(), exact.out, rtol=0.01, atol=0.01)
    assert torch.allclose(lse.double(), exact.lse, rtol=0, atol=1e-5)


def test_layers_of_one_batch_are_planned_once(device: Device) -> None:
    case = make_case()
    for _ in range(3):
        call(case)
    assert len(device.planned) == 1
    call(make_case())
    assert len(device.planned) == 2


def test_what_a_plan_depends_on_is_planned_anew(device: Device) -> None:
    case = make_case()
    for _ in range(2):
        call(case)
        call(case, window_left=30)
        call(case, dataclasses.replace(CONFIG, decode_split_tokens=128))
        device.stream = 1
        call(case)
        device.stream = 0
    assert len(device.planned) == 4


def test_batch_with_the_same_queries_and_other_keys_gets_its_own_plan(device: Device) -> None:
    case = make_case()
    call(case)
    shorter = case.batch.kv_lens - torch.tensor([100, 200, 30, 7], dtype=torch.int32)
    other = case._replace(batch=dataclasses.replace(case.batch, kv_lens=shorter))
    out, _ = call(other)
    assert len(device.planned) == 2
    assert torch.allclose(out.double(), attention_reference(*other).out, rtol=0.01, atol=0.01)


def test_layers_that_alternate_between_batches_and_streams_get_their_own_plans(
    device: Device,
) -> None:
    cases = [make_case(), make_case(seed=1)]
    for stream in (0, 1, 0, 1):
        device.stream = stream
        for case in cases:
            out, _ = call(case)
            assert torch.allclose(
                out.double(), attention_reference(*case).out, rtol=0.01, atol=0.01
            )
    assert len(device.planned) == 4


def test_only_the_strategy_of_two_streams_asks_for_a_second(
    device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[torch.device] = []
    monkeypatch.setattr(launch, "_side_stream", lambda d: asked.append(d) or 0)
    call(make_case())
    assert not asked
    call(make_case(), dataclasses.replace(CONFIG, strategy="streams"))
    assert asked == [CPU]


def test_plans_go_with_their_batch(device: Device) -> None:
    case = make_case()
    call(case)
    (uploaded,) = uploads._plans[case.batch.q_indptr].values()
    words = weakref.ref(uploaded.words)
    del uploaded, case
    gc.collect()
    assert words() is None


def test_records_tell_every_ctas_share(device: Device) -> None:
    case = make_case()
    plan = plan_batch(case.batch.q_indptr, case.batch.kv_lens, GEOMETRY, CONFIG, num_sms=2)
    ctas = plan.capacity.prefill_ctas + plan.capacity.decode_ctas
    records = torch.zeros(ctas, 5, dtype=torch.int64)
    call(case, records=records)
    told = emulator.decode_records(records)
    assert len(told) == ctas and all(record.end_ns > record.begin_ns for record in told)
    with pytest.raises(ShapeError, match="records must be int64"):
        call(case, records=records[1:])


def test_capture_without_a_plan_is_refused_and_with_one_runs(device: Device) -> None:
    case = make_case()
    call(case)
    device.capturing = True
    with pytest.raises(UnsupportedFeatureError, match="make a DevicePlan before the capture"):
        call(case)
    plan = DevicePlan.reserve([case.batch], CPU, GEOMETRY, config=CONFIG, num_sms=2)
    plan.update(case.batch)
    out, _ = call(case, plan=plan.words, capacity=plan.capacity)
    assert torch.allclose(out.double(), attention_reference(*case).out, rtol=0.01, atol=0.01)


def test_rows_that_the_batch_does_not_have_are_refused(device: Device) -> None:
    case = make_case()
    with pytest.raises(ShapeError, match="q has T = 104 rows but the batch has 105"):
        call(case._replace(q=case.q[:-1]))
    short = dataclasses.replace(case.batch, page_starts=case.batch.page_starts[:-1])
    with pytest.raises(ShapeError, match="page_starts has 3 requests but kv_lens 4"):
        call(case._replace(batch=short))


def test_batch_without_a_token_launches_nothing(device: Device) -> None:
    case = make_batch([0, 0], [5, 0], geometry=GEOMETRY, seed=0)
    out, lse = call(case)
    assert out.shape == (0, 4, 64) and lse.shape == (0, 4)
