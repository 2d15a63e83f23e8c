"""Every argument of the wrong type, out of float32's range, in shared memory or with a gradient."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from pod_integrate.devices.cuda.variants import Variant
from pod_integrate.devices.emulated import emulator
from pod_integrate.errors import (
    ConfigError,
    DtypeError,
    PodAttentionError,
    ShapeError,
    UnsupportedFeatureError,
)
from pod_integrate.measure.batches import make_batch
from pod_integrate.measure.reference import attention_reference
from pod_integrate.op import Result, hybrid_attention
from pod_integrate.terms.batch import HybridBatch
from pod_integrate.terms.keys import Geometry

Arguments = dict[str, Any]
# What test_emulated_op.py compiles.
CONFIG = Variant.parse("bf16-d64-p64x32s1w4-d16x64s1w4-c2-v1").config()
GEOMETRY = Geometry.uniform((4, 2, 64), "bf16")
SCALES = ("k_scale", "v_scale")
TENSORS = ("q", "k_cache", "v_cache", "sinks", "out")


def arguments() -> Arguments:
    case = make_batch([5, 1], [20, 40], geometry=GEOMETRY, seed=0)
    return {**case._asdict(), "sinks": torch.zeros(4), "out": torch.full_like(case.q, 7)}


def emulated(**given: Any) -> Result:
    return emulator.attend(**given, config=CONFIG).attention


@pytest.fixture(params=[hybrid_attention, emulated], ids=["cpu", "cuda"])
def attend(request: pytest.FixtureRequest) -> Callable[..., Result]:
    """The op on the CPU kernel, and on the CUDA kernel emulated."""
    return request.param  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *((name, value) for name in TENSORS for value in ([1.0], 3, np.zeros(4), "q")),
        *((name, None) for name in TENSORS[:3]),
        *(("batch", value) for value in (None, (1, 2), "b")),
        *(("config", value) for value in ({"strategy": "fused"}, "fused", 1)),
        pytest.param("plan", object(), id="plan-an object"),
        *(("scale", value) for value in ("1", True, [1.0], torch.ones(()), 1j)),
        *(("logit_cap", value) for value in (None, "30", False, torch.ones(()))),
        *(("window_left", value) for value in (None, "9", 9.0, True, torch.ones(()))),
        *((name, value) for name in SCALES for value in (None, "1", True, torch.ones(()))),
    ],
    ids=str,
)
def test_argument_of_a_wrong_type_is_refused_by_name(name: str, value: object) -> None:
    with pytest.raises((DtypeError, ConfigError), match=f"^{name} must be .* got "):
        hybrid_attention(**(arguments() | {name: value}))


@pytest.mark.parametrize(
    "numbers",
    [
        {"scale": np.float32(0.125), "logit_cap": np.float64(0), "window_left": np.int64(30)},
        {"scale": 1, "logit_cap": 30, "window_left": np.int32(5), "k_scale": 1},
    ],
    ids=str,
)
def test_any_kind_of_number_will_do(numbers: dict[str, Any]) -> None:
    given = arguments() | numbers
    got = hybrid_attention(**given)
    plain = {name: float(value) for name, value in numbers.items()} | {
        "window_left": int(numbers["window_left"])
    }
    assert torch.equal(got.lse, hybrid_attention(**(given | plain)).lse)


HUGE = 10**400


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("scale", value) for value in (1e39, -1e39, 3e38, 1e-39, 1e-45, math.nan, math.inf)),
        *(("logit_cap", value) for value in (1e39, 3e38, 1e-40, -1.0, -0.5, math.nan, math.inf)),
        *(("window_left", value) for value in (-2, 2**30, 2**31, 2**62, -(2**31))),
    ],
)
def test_number_that_float32_or_the_kernel_cannot_hold_is_refused(
    name: str, value: float, attend: Callable[..., Result]
) -> None:
    given = arguments()
    before = given["out"].clone()
    with pytest.raises(ShapeError, match=f"^{name} .*(2\\^-100..2\\^100|0\\.\\.)"):
        attend(**(given | {name: value}))
    assert torch.equal(given["out"], before)


@pytest.mark.parametrize("name", ["scale", "logit_cap", "window_left", *SCALES])
def test_number_beyond_every_machine_type_is_refused(name: str) -> None:
    with pytest.raises(ShapeError, match=f"^{name} must be"):
        hybrid_attention(**(arguments() | {name: HUGE}))


def test_cap_that_its_scale_cannot_be_divided_by_is_refused(
    attend: Callable[..., Result],
) -> None:
    with pytest.raises(ShapeError, match="scale / logit_cap is 1e-40"):
        attend(**(arguments() | {"scale": 1e-20, "logit_cap": 1e20}))


@pytest.mark.parametrize(
    ("scale", "logit_cap"),
    [
        (0.0, 0.0),
        (1e-30, 0.0),
        (0.125, 0.0),
        (0.0, 1e30),
        (0.125, 1e6),
        (0.125, 1e30),
        (1e-24, 1e6),
    ],
)
def test_numbers_at_the_ends_of_the_range_are_exact(
    scale: float, logit_cap: float, attend: Callable[..., Result]
) -> None:
    given = arguments() | {"scale": scale, "logit_cap": logit_cap}
    got = attend(**given)
    plain = {name: value for name, value in given.items() if name not in ("out", "logit_cap")}
    # So large a cap is as good as none.
    exact = attention_reference(**plain)
    assert torch.allclose(got.out.double(), exact.out, rtol=0.01, atol=0.01)
    assert torch.allclose(got.lse.double(), exact.lse, rtol=0, atol=2e-6)


def overlapping(kind: str) -> torch.Tensor:
    out = torch.zeros(6 * 4 * 64, dtype=torch.bfloat16)
    shape, strides = (
        (6, 4, 64),
        {
            "tokens in one place": (0, 64, 1),
            "heads in one place": (64, 0, 1),
            "tokens a head apart": (64, 64, 1),
            "rows half a row apart": (256, 32, 1),
            "heads between tokens": (96, 128, 1),
        },
    )
    return out.as_strided(shape, strides[kind])


@pytest.mark.parametrize(
    "kind",
    [
        *("tokens in one place", "heads in one place", "tokens a head apart"),
        *("rows half a row apart", "heads between tokens"),
    ],
)
def test_out_whose_rows_overlap_is_refused(kind: str, attend: Callable[..., Result]) -> None:
    with pytest.raises(ShapeError, match="rows of out overlap in memory"):
        attend(**(arguments() | {"out": overlapping(kind)}))


@pytest.mark.parametrize("strides", [(256, 64, 1), (64, 384, 1), (640, 128, 1), (192, 64 * 19, 1)])
def test_out_whose_rows_lie_apart_is_written(
    strides: tuple[int, ...], attend: Callable[..., Result]
) -> None:
    given = arguments()
    expected = attend(**given).out.clone()
    given["out"] = torch.zeros(8000, dtype=torch.bfloat16).as_strided((6, 4, 64), strides)
    assert torch.equal(attend(**given).out, expected)


@pytest.mark.parametrize("name", ["q", "k_cache", "v_cache", "sinks"])
def test_out_in_memory_of_an_input_is_refused(name: str) -> None:
    given = arguments()
    room = torch.zeros(1 << 16, dtype=torch.bfloat16)
    tensor = given[name]
    words = tensor.numel() * tensor.element_size() // 2
    mine = room[64 : 64 + words].view(tensor.dtype).view(tensor.shape)
    mine.copy_(tensor)
    shared = room[: given["q"].numel()].view(given["q"].shape)
    with pytest.raises(ShapeError, match=f"out shares memory with {name}"):
        hybrid_attention(**(given | {name: mine, "out": shared}))
    if name == "q":
        with pytest.raises(ShapeError, match="out shares memory with q"):
            hybrid_attention(**(given | {"q": mine, "out": mine}))


def test_out_between_the_rows_of_q_in_one_buffer_is_written() -> None:
    given = arguments()
    expected = hybrid_attention(**given).out.clone()
    buffer = torch.zeros(6, 2, 4, 64, dtype=torch.bfloat16)
    buffer[:, 0] = given["q"]
    got = hybrid_attention(**(given | {"q": buffer[:, 0], "out": buffer[:, 1]}))
    assert torch.equal(got.out, expected) and torch.equal(buffer[:, 0], given["q"])


@pytest.mark.parametrize("name", TENSORS)
def test_gradient_of_any_tensor_is_refused_instead_of_lost(name: str) -> None:
    given = arguments()
    given[name] = given[name].requires_grad_()
    with pytest.raises(UnsupportedFeatureError, match=f"but {name} requires one; .*no_grad"):
        hybrid_attention(**given)
    with torch.no_grad():
        assert hybrid_attention(**given).out.isfinite().all()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"page_size": None}, "page_size must be an integer"),
        ({"page_size": 16.0}, "page_size must be an integer"),
        ({"page_size": 2**31}, "page_size must be >= 1"),
        ({"page_indices": [0, 1]}, "page_indices must be an int32 tensor"),
        ({"page_starts": [0.5, 1]}, "page_starts must hold integers"),
        ({"page_starts": torch.tensor([0.5, 1])}, "page_starts must hold integers"),
        ({"page_starts": None}, "page_starts must be one-dimensional"),
        ({"q_lens": [[1], [1, 2]]}, "q_lens must be a flat list of host integers"),
        ({"q_lens": None}, "q_lens must be one-dimensional"),
        ({"kv_lens": [1.5, 2]}, "kv_lens must hold integers"),
    ],
    ids=str,
)
def test_batch_of_a_wrong_kind_is_refused(change: Arguments, words: str) -> None:
    good: Arguments = {"q_lens": [1, 1], "kv_lens": [3, 4], "page_starts": [0, 1], "page_size": 16}
    good["page_indices"] = torch.zeros(2, dtype=torch.int32)
    assert HybridBatch.build(**good).num_tokens == 2
    with pytest.raises(PodAttentionError, match=words):
        HybridBatch.build(**(good | change))
