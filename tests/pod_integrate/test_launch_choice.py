"""What runs a CUDA call is chosen once, and the call passes through fake tensors and tracing."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from pod_integrate import op
from pod_integrate.devices.cuda import launch
from pod_integrate.devices.cuda.device_plan import DevicePlan
from pod_integrate.devices.cuda.limits import Architecture
from pod_integrate.devices.cuda.variants import Variant
from pod_integrate.devices.emulated import emulator
from pod_integrate.errors import ConfigError, ConfigInfeasibleError, DtypeError, ShapeError
from pod_integrate.measure.batches import Case, make_batch
from pod_integrate.op import hybrid_attention
from pod_integrate.terms.batch import HybridBatch
from pod_integrate.terms.config import flatten_config
from pod_integrate.terms.keys import DeviceKey, Geometry

VARIANT = Variant.parse("bf16-d64-p64x32s1w4-d16x64s1w4-c2-v1")
CONFIG = dataclasses.replace(VARIANT.config(), decode_split_tokens=64)
GEOMETRY = Geometry(
    num_q_heads=4, num_kv_heads=2, head_dim=64, dtype="bf16", kv_dtype="bf16", page_size=16
)
CPU = torch.device("cpu")


def make_case() -> Case:
    return make_batch([70, 1, 1, 33], [200, 300, 90, 40], geometry=GEOMETRY, seed=0)


@pytest.fixture
def hopper(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[Variant, str]]]:
    """An H100 as far as choose() can tell; lists the variants it asks for."""
    wanted: list[tuple[Variant, str]] = []

    def find(variant: Variant, arch: Architecture) -> Path:
        wanted.append((variant, arch.name))
        return emulator.build(VARIANT)

    monkeypatch.setattr(launch, "device_key", lambda _: DeviceKey("nvidia-h100", "sm90", 132))
    monkeypatch.setattr(launch.nvcc, "build", find)
    launch.choose.cache_clear()
    yield wanted
    launch.choose.cache_clear()


def test_variant_of_the_default_config_is_opened_once(hopper: list[tuple[Variant, str]]) -> None:
    chosen = launch.choose((), GEOMETRY, 0)
    assert launch.choose((), GEOMETRY, 0) is chosen
    assert hopper == [(Variant.of(chosen.config, GEOMETRY), "sm_90a")]
    assert chosen.num_sms == 132 and chosen.sm_slots >= 2 * 132


def test_what_the_gpu_cannot_run_is_refused_before_a_build(
    hopper: list[tuple[Variant, str]],
) -> None:
    wide = dataclasses.replace(CONFIG, ctas_per_sm=8, virtual_decode=4)
    with pytest.raises(ConfigInfeasibleError, match="warps"):
        launch.choose(tuple(flatten_config(wide)), GEOMETRY, 0)
    with pytest.raises(DtypeError, match="takes bf16 or fp16"):
        launch.choose((), dataclasses.replace(GEOMETRY, dtype="fp32", kv_dtype="fp32"), 0)
    with pytest.raises(ShapeError, match="head dim must be one of"):
        launch.choose((), dataclasses.replace(GEOMETRY, head_dim=80), 0)
    assert not hopper


def on_fake_gpu() -> tuple[Case, DevicePlan]:
    q, k_cache, v_cache, batch = make_case()
    plan = DevicePlan.reserve([batch], CPU, GEOMETRY, config=CONFIG, num_sms=2)
    plan.update(batch)
    with FakeTensorMode(allow_non_fake_inputs=True):
        fakes = [torch.empty_like(t, device="cuda") for t in (q, k_cache, v_cache)]
        pages = [
            torch.empty_like(t, device="cuda") for t in (batch.page_indices, batch.page_starts)
        ]
        plan.words = torch.empty_like(plan.words, device="cuda")
    fake = dataclasses.replace(batch, page_indices=pages[0], page_starts=pages[1])
    return Case(*fakes, fake), plan


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
    monkeypatch.setattr(launch, "_raw_stream", lambda index: 100 + index)
    assert launch.current_stream(device) == 103
    asked: list[torch.device] = []

    def current(device: torch.device) -> Any:
        asked.append(device)
        return SimpleNamespace(cuda_stream=7)

    monkeypatch.setattr(launch, "_raw_stream", None)
    monkeypatch.setattr(torch.cuda, "current_stream", current)
    assert launch.current_stream(device) == 7 and asked == [device]


def test_device_is_entered_unless_it_is_current(monkeypatch: pytest.MonkeyPatch) -> None:
    entered: list[torch.device] = []

    def enter(device: torch.device) -> Any:
        entered.append(device)
        return contextlib.nullcontext()

    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    monkeypatch.setattr(torch.cuda, "device", enter)
    for index in (1, 0):
        with launch._current(torch.device("cuda", index)):
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
        torch.vmap(lambda x: seen.append(op._nobody_watches(x)) or x)(q)
        assert seen == [False]
    assert not op._nobody_watches(q)
