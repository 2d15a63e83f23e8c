"""Bad input raises the right error, says what and how much, and nothing is written."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from pod_integrate.devices.device_plan import DevicePlan
from pod_integrate.devices.registry import device_of
from pod_integrate.errors import (
    DeviceMismatchError,
    DtypeError,
    KernelUnavailableError,
    PageIndexError,
    PodAttentionError,
    SettingsError,
    ShapeError,
    UnsupportedFeatureError,
)
from pod_integrate.measure.batches import make_batch
from pod_integrate.op import hybrid_attention
from pod_integrate.terms.batch import HybridBatch
from pod_integrate.terms.keys import Geometry

GEOMETRY = Geometry.uniform((4, 2, 32), "fp32")


def arguments() -> dict[str, Any]:
    q, k_cache, v_cache, batch = make_batch([5, 1], [20, 40], geometry=GEOMETRY, seed=0)
    return {"q": q, "k_cache": k_cache, "v_cache": v_cache, "batch": batch}


def replaced(a: dict[str, Any], **tensors: torch.Tensor | int) -> None:
    a["batch"] = dataclasses.replace(a["batch"], **tensors)


def set_page(a: dict[str, Any], place: int, page: int) -> None:
    indices = a["batch"].page_indices.clone()
    indices[place] = page
    replaced(a, page_indices=indices)


Change = Callable[[dict[str, Any]], Any]
BAD: dict[str, tuple[Change, type[PodAttentionError], str]] = {
    "q rank": (lambda a: a.update(q=a["q"][0]), ShapeError, r"q must be \[T, Hq, D\]"),
    "q longer than the batch": (
        lambda a: a.update(q=torch.zeros(7, 4, 32)),
        ShapeError,
        "q has T = 7 rows but the batch has 6",
    ),
    "q shorter than the batch": (
        lambda a: a.update(q=torch.zeros(5, 4, 32)),
        ShapeError,
        "q has T = 5 rows but the batch has 6",
    ),
    "heads not divisible": (
        lambda a: a.update(q=torch.zeros(6, 3, 32)),
        ShapeError,
        "Hq 3 and Hkv 2",
    ),
    "head dim": (
        lambda a: a.update(
            q=torch.zeros(6, 4, 40),
            k_cache=torch.zeros(9, 16, 2, 40),
            v_cache=torch.zeros(9, 16, 2, 40),
        ),
        ShapeError,
        "multiple of 16 in 32..256, got 40",
    ),
    "head dim of the cache": (
        lambda a: a.update(k_cache=torch.zeros(9, 16, 2, 48)),
        ShapeError,
        "D of q = 32",
    ),
    "cache rank": (
        lambda a: a.update(k_cache=a["k_cache"][0]),
        ShapeError,
        r"k_cache must be \[P, S, Hkv, D\]",
    ),
    "caches differ": (
        lambda a: a.update(v_cache=a["v_cache"][:-1]),
        ShapeError,
        "v_cache must be",
    ),
    "page size": (
        lambda a: replaced(a, page_size=8),
        ShapeError,
        "batch.page_size is 8 .* S = 16",
    ),
    "q last axis strided": (
        lambda a: a.update(q=torch.zeros(6, 4, 64)[..., ::2]),
        ShapeError,
        "q needs a contiguous last axis, got stride 2",
    ),
    "out shape": (
        lambda a: a.update(out=torch.zeros(6, 4, 48)),
        ShapeError,
        r"out must be \[T, Hq, D\]",
    ),
    "sinks shape": (
        lambda a: a.update(sinks=torch.zeros(3)),
        ShapeError,
        r"sinks must be \[Hq\]",
    ),
    "scale": (lambda a: a.update(scale=math.nan), ShapeError, "scale is nan but"),
    "cap": (lambda a: a.update(logit_cap=-1.0), ShapeError, "must be finite and >= 0"),
    "window": (lambda a: a.update(window_left=-2), ShapeError, "window_left must be -1"),
    "q dtype": (
        lambda a: a.update(q=a["q"].double(), k_cache=a["k_cache"].double()),
        DtypeError,
        "float64",
    ),
    "cache dtype": (
        lambda a: a.update(k_cache=a["k_cache"].half()),
        DtypeError,
        "k_cache is float16 but q is float32",
    ),
    "out dtype": (
        lambda a: a.update(out=torch.zeros(6, 4, 32, dtype=torch.float16)),
        DtypeError,
        "out is float16",
    ),
    "sinks dtype": (
        lambda a: a.update(sinks=torch.zeros(4, dtype=torch.float64)),
        DtypeError,
        "sinks must be float32",
    ),
    "page too large": (
        lambda a: set_page(a, 1, 8),
        PageIndexError,
        r"page_indices\[1\] of request 0 is 8, outside of the cache's 8 pages",
    ),
    "page negative": (
        lambda a: set_page(a, 4, -1),
        PageIndexError,
        r"page_indices\[4\] of request 1 is -1",
    ),
    "page list too short": (
        lambda a: replaced(a, page_indices=a["batch"].page_indices[:4]),
        PageIndexError,
        "request 1 reads 3 page_indices from 2 on but page_indices holds 4",
    ),
    "unchecked lengths": (
        lambda a: replaced(a, kv_lens=torch.tensor([4, 40], dtype=torch.int32)),
        ShapeError,
        "request 0 has q_len 5 and kv_len 4",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_raises_before_launch(name: str) -> None:
    change, error, words = BAD[name]
    given = arguments()
    given["out"] = torch.full((6, 4, 32), 7.0)
    change(given)
    before = given["out"].clone()
    with pytest.raises(error, match=words):
        hybrid_attention(**given)
    assert torch.equal(given["out"], before)


def test_head_dim_of_0_is_refused() -> None:
    given = arguments()
    given |= {name: given[name][..., :0] for name in ("q", "k_cache", "v_cache")}
    with pytest.raises(ShapeError, match="head dim must be a multiple of 16"):
        hybrid_attention(**given)


def test_pages_that_are_not_read_may_hold_anything() -> None:
    given = arguments()
    batch: HybridBatch = given["batch"]
    tail = torch.tensor([2**31 - 1, -5], dtype=torch.int32)
    replaced(given, page_indices=torch.cat([batch.page_indices, tail]))
    assert hybrid_attention(**given).out.isfinite().all()


def test_device_without_a_kernel_is_refused_with_a_remedy() -> None:
    with FakeTensorMode():
        q = torch.empty(6, 4, 32, device="meta")
    with pytest.raises(KernelUnavailableError, match="on meta: .*SGLANG_PLATFORM=pod_cpu"):
        hybrid_attention(**(arguments() | {"q": q}))


@pytest.mark.parametrize("name", ["k_cache", "v_cache", "sinks", "out", "page_indices"])
def test_one_tensor_on_another_device_is_refused(name: str) -> None:
    given = arguments() | {"sinks": torch.zeros(4), "out": torch.zeros(6, 4, 32)}
    if name == "page_indices":
        replaced(given, page_indices=given["batch"].page_indices.to("meta"))
    else:
        given[name] = given[name].to("meta")
    with pytest.raises(DeviceMismatchError, match=f"{name} is on meta but q is on cpu"):
        hybrid_attention(**given)


def test_gpu_queries_with_a_cache_on_the_host_are_refused() -> None:
    with FakeTensorMode():
        q = torch.empty(6, 4, 32, device="cuda")
    with pytest.raises(DeviceMismatchError, match="k_cache is on cpu but q is on cuda:0"):
        hybrid_attention(**(arguments() | {"q": q}))


def test_plan_on_the_cpu_is_refused_instead_of_ignored() -> None:
    given = arguments()
    config = device_of(torch.device("cpu")).default_config(GEOMETRY)
    plan = DevicePlan.reserve(
        [given["batch"]], torch.device("cpu"), GEOMETRY, config=config, num_sms=2
    )
    plan.update(given["batch"])
    with pytest.raises(UnsupportedFeatureError, match="plan is for CUDA graphs"):
        hybrid_attention(**given, plan=plan)


@pytest.mark.parametrize(
    ("name", "value"), [("POD_ATTN_ISA", "avx1024"), ("POD_ATTN_THREADS", "many")]
)
def test_malformed_variable_stops_the_call(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match=f"{name}='{value}'"):
        hybrid_attention(**arguments())
