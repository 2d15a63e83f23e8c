"""What runs a CUDA call is chosen once, and the call passes through fake tensors and tracing."""

from __future__ import annotations

import contextlib
import dataclasses
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from support.emulated import CONFIG, GEOMETRY, VARIANT
from torch._subclasses.fake_tensor import FakeTensorMode

from pod_integrate import op
from pod_integrate.builds import nvcc
from pod_integrate.devices.cuda import runtime
from pod_integrate.devices.cuda.attention import CudaAttention
from pod_integrate.devices.cuda.device import CudaDevice
from pod_integrate.devices.cuda.limits import Architecture
from pod_integrate.devices.cuda.runtime import CudaRuntime
from pod_integrate.devices.cuda.target import CudaTarget
from pod_integrate.devices.cuda.variants import Variant
from pod_integrate.devices.device_plan import DevicePlan
from pod_integrate.devices.emulated import emulator
from pod_integrate.devices.emulated.device import EmulatedRuntime
from pod_integrate.errors import ConfigError, ConfigInfeasibleError, DtypeError, ShapeError
from pod_integrate.measure.batches import Case, make_batch
from pod_integrate.op import hybrid_attention
from pod_integrate.terms.batch import HybridBatch
from pod_integrate.terms.keys import DeviceKey

CPU = torch.device("cpu")


def make_case() -> Case:
    return make_batch([70, 1, 1, 33], [200, 300, 90, 40], geometry=GEOMETRY, seed=0)


class Hopper(CudaDevice):
    """An H100 as far as the choice of a variant can tell; lists the variants it asks for."""

    target = CudaTarget(DeviceKey("nvidia-h100", "sm90", 132))

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__(torch.device("cuda", 0))
        self.wanted: list[tuple[Variant, str]] = []
        self._runtime = EmulatedRuntime()

        def find(variant: Variant, arch: Architecture) -> Path:
            self.wanted.append((variant, arch.name))
            return emulator.build(VARIANT)

        monkeypatch.setattr(nvcc, "build", find)


def test_variant_of_the_default_config_is_opened_once(monkeypatch: pytest.MonkeyPatch) -> None:
    hopper = Hopper(monkeypatch)
    attention = hopper.attention(GEOMETRY)
    assert hopper.attention(GEOMETRY) is attention
    # With the tile of few rows that most of its batches run with; no H200, nothing for heavy ones.
    wide = Variant.of(attention.config, GEOMETRY)
    few = dataclasses.replace(wide, decode=dataclasses.replace(wide.decode, q_rows=8))
    assert sorted(hopper.wanted, key=str) == sorted([(wide, "sm_90a"), (few, "sm_90a")], key=str)
    assert isinstance(attention, CudaAttention) and attention.num_sms == 132


def test_what_the_gpu_cannot_run_is_refused_before_a_build(monkeypatch: pytest.MonkeyPatch) -> None:
    hopper = Hopper(monkeypatch)
    wide = dataclasses.replace(CONFIG, ctas_per_sm=8, virtual_decode=4)
    with pytest.raises(ConfigInfeasibleError, match="warps"):
        hopper.attention(GEOMETRY, wide)
    with pytest.raises(DtypeError, match="takes bf16 or fp16"):
        hopper.attention(dataclasses.replace(GEOMETRY, dtype="fp32", kv_dtype="fp32"))
    with pytest.raises(ShapeError, match="head dim must be one of"):
        hopper.attention(dataclasses.replace(GEOMETRY, head_dim=80))
    assert not hopper.wanted


def on_fake_gpu() -> tuple[Case, DevicePlan]:
    q, k_cache, v_cache, batch = make_case()
    plan = DevicePlan.reserve([batch], CPU, GEOMETRY, config=CONFIG, num_sms=2)
    plan.update(batch)
    with FakeTensorMode(allow_non_fake_inputs=True):
        fakes = [torch.empty_like(t, device="cuda") for t in (q, k_cache, v_cache)]
        pages = [
            torch.empty_like(t, device="cuda") for t in (batch.page_indices, batch.page_starts)
        ]
        plan.held = plan.held._replace(words=torch.empty_like(plan.words, device="cuda"))
    fake = dataclasses.replace(batch, page_indices=pages[0], page_starts=pages[1])
    return Case(fakes[0], fakes[1], fakes[2], fake), plan


@pytest.mark.parametrize("planned", [False, True])
def test_fake_gpu_tensors_pass_through_the_fake_kernel(planned: bool) -> None:
    case, plan = on_fake_gpu()
    with FakeTensorMode(allow_non_fake_inputs=True):
        got = hybrid_attention(*case, plan=plan if planned else None)
    assert got.out.shape == case.q.shape and got.out.device.type == "cuda"
    assert got.lse.dtype == torch.float32 and got.lse.device.type == "cuda"


def test_call_with_a_plan_compiles_as_one_graph() -> None:
    case = make_case()
    plan = DevicePlan.reserve([case.batch], CPU, GEOMETRY, config=CONFIG, num_sms=2)
    plan.update(case.batch)
    graphs: list[torch.fx.GraphModule] = []

    def keep(graph: torch.fx.GraphModule, _: Any) -> Any:
        graphs.append(graph)
        return lambda *_: (torch.zeros(1), torch.zeros(1))

    def step(q: torch.Tensor, batch: HybridBatch) -> Any:
        return hybrid_attention(q * 2, *case[1:3], batch, plan=plan)

    torch.compiler.reset()
    with torch.inference_mode():
        torch.compile(step, backend=keep, fullgraph=True)(case.q, case.batch)
    ops = [node.target for node in graphs[0].graph.nodes if node.op == "call_function"]
    assert torch.ops.pod.hybrid_attention in ops or torch.ops.pod.hybrid_attention.default in ops
    assert len(graphs) == 1


def test_config_that_contradicts_the_plan_is_refused() -> None:
    case, plan = on_fake_gpu()
    other = dataclasses.replace(CONFIG, strategy="serial")
    with pytest.raises(ConfigError, match="plan was made for"):
        hybrid_attention(*case, plan=plan, config=other)


def test_stream_is_asked_for_without_an_object_where_torch_can(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    device = torch.device("cuda", 3)
    monkeypatch.setattr(runtime, "_raw_stream", lambda index: 100 + index)
    assert CudaRuntime(device).stream() == 103
    asked: list[torch.device] = []

    def current(device: torch.device) -> Any:
        asked.append(device)
        return SimpleNamespace(cuda_stream=7)

    monkeypatch.setattr(runtime, "_raw_stream", None)
    monkeypatch.setattr(torch.cuda, "current_stream", current)
    assert CudaRuntime(device).stream() == 7 and asked == [device]


def test_device_is_entered_unless_it_is_current(monkeypatch: pytest.MonkeyPatch) -> None:
    entered: list[torch.device] = []

    def enter(device: torch.device) -> Any:
        entered.append(device)
        return contextlib.nullcontext()

    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    monkeypatch.setattr(torch.cuda, "device", enter)
    for index in (1, 0):
        with CudaRuntime(torch.device("cuda", index)).current():
            pass
    assert entered == [torch.device("cuda", 0)]


def test_dispatcher_is_skipped_only_where_nothing_wants_to_see_the_op() -> None:
    q = torch.zeros(2)
    with torch.inference_mode():
        assert op._nobody_watches(q)
        assert not op._nobody_watches(torch.nn.Parameter(q, requires_grad=False))
        with FakeTensorMode():
            assert not op._nobody_watches(q)
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]):
            assert not op._nobody_watches(q)
        seen: list[bool] = []

        def look(x: torch.Tensor) -> torch.Tensor:
            seen.append(op._nobody_watches(x))
            return x

        torch.vmap(look)(q)
        assert seen == [False]
    assert not op._nobody_watches(q)
