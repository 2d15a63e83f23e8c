"""The CUDA path of the op around the kernel: plans made once per batch, streams, checks.

On the emulated GPU, whose streams the tests set.
"""

from __future__ import annotations

import dataclasses
import gc
import weakref
from typing import Any

import pytest
import torch
from support.emulated import CONFIG, GEOMETRY, SMS, emulated_gpu

from pod_integrate.devices.call import Call
from pod_integrate.devices.cuda import uploads
from pod_integrate.devices.cuda.attention import Chosen, CudaAttention
from pod_integrate.devices.cuda.choices import PAIRS, tiles_of
from pod_integrate.devices.cuda.planning import plan_batch
from pod_integrate.devices.cuda.side_by_side import may_run_beside
from pod_integrate.devices.device_plan import DevicePlan
from pod_integrate.devices.emulated.cta_records import decode_records
from pod_integrate.errors import ShapeError, UnsupportedFeatureError
from pod_integrate.measure.batches import Case, make_batch
from pod_integrate.measure.reference import attention_reference
from pod_integrate.terms.config import PodConfig
from pod_integrate.terms.keys import DeviceKey, Geometry
from pod_integrate.terms.scalars import Scalars

CPU = torch.device("cpu")
_TILES = tiles_of(PAIRS[0])
# A CTA that runs both ops.
BOTH_OPS = {"prefill": _TILES.prefill, "decode": _TILES.decode, "ctas_per_sm": 1}


class Gpu:
    """The emulated device, and what it was asked to plan."""

    def __init__(self) -> None:
        self.device, self.planned = emulated_gpu(), list[PodConfig]()


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Gpu:
    gpu = Gpu()

    def plan(q: Any, kv: Any, geometry: Geometry, config: PodConfig, **more: Any) -> Any:
        gpu.planned.append(config)
        return plan_batch(q, kv, geometry, config, **more)

    monkeypatch.setattr(uploads, "plan_batch", plan)
    return gpu


def make_case(seed: int = 0) -> Case:
    return make_batch([70, 1, 1, 33], [200, 300, 90, 40], geometry=GEOMETRY, seed=seed)


def call(
    gpu: Gpu, case: Case, config: PodConfig = CONFIG, window_left: int = -1, **more: Any
) -> tuple[torch.Tensor, torch.Tensor]:
    out, lse = torch.full_like(case.q, 7), torch.empty(case.q.shape[:2])
    scalars = Scalars(case.q.shape[2] ** -0.5, window_left)
    gpu.device.attend(Call(*case, scalars, None, out, lse, **more), config)
    return out, lse


@pytest.mark.parametrize("strategy", ["fused", "serial", "streams"])
def test_call_matches_reference(gpu: Gpu, strategy: Any) -> None:
    case = make_case()
    out, lse = call(gpu, case, dataclasses.replace(CONFIG, strategy=strategy))
    exact = attention_reference(*case)
    assert torch.allclose(out.double(), exact.out, rtol=0.01, atol=0.01)
    assert torch.allclose(lse.double(), exact.lse, rtol=0, atol=1e-5)


def test_layers_of_one_batch_are_planned_once(gpu: Gpu) -> None:
    case = make_case()
    for _ in range(3):
        call(gpu, case)
    assert len(gpu.planned) == 1
    call(gpu, make_case())
    assert len(gpu.planned) == 2


def test_what_a_plan_depends_on_is_planned_anew(gpu: Gpu) -> None:
    case = make_case()
    for _ in range(2):
        call(gpu, case)
        call(gpu, case, window_left=30)
        call(gpu, case, dataclasses.replace(CONFIG, decode_split_tokens=128))
        gpu.device.runtime.number = 1
        call(gpu, case)
        gpu.device.runtime.number = 0
    assert len(gpu.planned) == 4


def test_batch_with_the_same_queries_and_other_keys_gets_its_own_plan(gpu: Gpu) -> None:
    case = make_case()
    call(gpu, case)
    shorter = case.batch.kv_lens - torch.tensor([100, 200, 30, 7], dtype=torch.int32)
    other = case._replace(batch=dataclasses.replace(case.batch, kv_lens=shorter))
    out, _ = call(gpu, other)
    assert len(gpu.planned) == 2
    assert torch.allclose(out.double(), attention_reference(*other).out, rtol=0.01, atol=0.01)


def test_layers_that_alternate_between_batches_and_streams_get_their_own_plans(
    gpu: Gpu,
) -> None:
    cases = [make_case(), make_case(seed=1)]
    for stream in (0, 1, 0, 1):
        gpu.device.runtime.number = stream
        for case in cases:
            out, _ = call(gpu, case)
            assert torch.allclose(
                out.double(), attention_reference(*case).out, rtol=0.01, atol=0.01
            )
    assert len(gpu.planned) == 4


def test_only_the_strategy_of_two_streams_asks_for_a_second(gpu: Gpu) -> None:
    counts = []
    for config in (CONFIG, dataclasses.replace(CONFIG, strategy="streams")):
        call(gpu, make_case(), config)
        counts.append(gpu.device.runtime.side_streams)
    assert counts == [0, 1]


def test_plans_go_with_their_batch(gpu: Gpu) -> None:
    case = make_case()
    call(gpu, case)
    (uploaded,) = uploads._plans[case.batch.q_indptr].values()
    words = weakref.ref(uploaded.words)
    del uploaded, case
    gc.collect()
    assert words() is None


def test_records_tell_every_ctas_share(gpu: Gpu) -> None:
    case = make_case()
    plan = plan_batch(case.batch.q_indptr, case.batch.kv_lens, GEOMETRY, CONFIG, num_sms=2)
    ctas = plan.capacity.prefill_ctas + plan.capacity.decode_ctas
    records = torch.zeros(ctas, 5, dtype=torch.int64)
    call(gpu, case, records=records)
    told = decode_records(records)
    assert len(told) == ctas and all(record.end_ns > record.begin_ns for record in told)
    with pytest.raises(ShapeError, match="records must be int64"):
        call(gpu, case, records=records[1:])


def test_capture_without_a_plan_is_refused_and_with_one_runs(gpu: Gpu) -> None:
    case = make_case()
    call(gpu, case)
    gpu.device.runtime.capturing = True
    with pytest.raises(UnsupportedFeatureError, match="make a DevicePlan before the capture"):
        call(gpu, case)
    plan = DevicePlan.reserve([case.batch], CPU, GEOMETRY, config=CONFIG, num_sms=2)
    plan.update(case.batch)
    out, _ = call(gpu, case, plan=plan.held)
    assert torch.allclose(out.double(), attention_reference(*case).out, rtol=0.01, atol=0.01)


def test_rows_that_the_batch_does_not_have_are_refused(gpu: Gpu) -> None:
    case = make_case()
    with pytest.raises(ShapeError, match="q has T = 104 rows but the batch has 105"):
        call(gpu, case._replace(q=case.q[:-1]))
    short = dataclasses.replace(case.batch, page_starts=case.batch.page_starts[:-1])
    with pytest.raises(ShapeError, match="page_starts has 3 requests but kv_lens 4"):
        call(gpu, case._replace(batch=short))


def test_batch_without_a_token_launches_nothing(gpu: Gpu) -> None:
    case = make_batch([0, 0], [5, 0], geometry=GEOMETRY, seed=0)
    out, lse = call(gpu, case)
    assert out.shape == (0, 4, 64) and lse.shape == (0, 4)


def test_an_open_config_launches_a_small_prefill_beside_decodes_where_that_pays() -> None:
    device = emulated_gpu()
    known = device.attention(GEOMETRY, CONFIG)
    assert isinstance(known, CudaAttention)
    whole = dataclasses.replace(CONFIG, max_prefill_waves=0)
    chosen = Chosen(known.library, whole, GEOMETRY, SMS, may_run_beside=True)
    attention = type(known)(chosen, device.runtime, device.schedule)  # type: ignore[call-arg]

    def streams(q_len: int, **more: Any) -> int:
        """Second streams that it asked for; what it attended is right."""
        case = make_batch([q_len, 1, 1], [200, 300, 90], geometry=GEOMETRY, seed=0)
        before = device.runtime.side_streams
        out, lse = torch.empty_like(case.q), torch.empty(case.q.shape[:2])
        attention(Call(*case, Scalars(case.q.shape[2] ** -0.5, -1), None, out, lse, **more))
        assert torch.allclose(out.double(), attention_reference(*case).out, rtol=0.01, atol=0.01)
        return device.runtime.side_streams - before

    # 2 and 6 prefill CTAs; 4 are a wave.
    assert (streams(20), streams(70)) == (1, 0)
    assert streams(20, records=torch.zeros(40, 5, dtype=torch.int64)) == 0


@pytest.mark.parametrize(
    ("name", "changes", "open_to_it"),
    [
        ("nvidia-h200", {}, True),
        ("nvidia-h100-80gb-hbm3", {}, False),
        ("nvidia-h200", {"strategy": "serial"}, False),
        ("nvidia-h200", {"prefill_ctas": 1, "decode_ctas": 1}, False),
        ("nvidia-h200", BOTH_OPS, False),
    ],
)
def test_only_an_open_ratio_on_a_measured_device_leaves_the_launch_to_the_batch(
    name: str, changes: dict[str, Any], open_to_it: bool
) -> None:
    config = dataclasses.replace(CONFIG, **changes)
    assert may_run_beside(config, DeviceKey(name, "sm90", 132)) is open_to_it
