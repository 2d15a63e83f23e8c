"""NaN and infinities in the inputs: the rows that see them say so, and no others."""

from __future__ import annotations

import dataclasses
import math
import os
from typing import NamedTuple
from unittest import mock

import hypothesis
import hypothesis.strategies as st
import pytest
import torch

from pod_integrate.devices.cpu.processor import ISAS, isa
from pod_integrate.devices.registry import device_of
from pod_integrate.measure.batches import Case, make_batch
from pod_integrate.measure.reference import Attended, attention_reference
from pod_integrate.op import Result, hybrid_attention
from pod_integrate.terms.config import PodConfig
from pod_integrate.terms.keys import Dtype, Geometry

pytestmark = pytest.mark.usefixtures("one_thread_for_the_reference")
LEVELS = [level for level in ISAS if ISAS.index(level) >= ISAS.index(isa())]
# A chunk, a decode, speculative rows, and a decode that is long enough to be folded and split.
Q_LENS, KV_LENS = [40, 1, 3, 1], [90, 130, 50, 2300]
HEADS, KV_HEADS, DIM = 4, 2, 32


class Poison(NamedTuple):
    """One element of a tensor, or one sink, set to a value."""

    where: str
    value: float
    request: int
    place: float
    head: int
    column: int


def geometry(dtype: Dtype) -> Geometry:
    return Geometry.uniform((HEADS, KV_HEADS, DIM), dtype)


def config(split: bool) -> PodConfig:
    base = device_of(torch.device("cpu")).default_config(geometry("fp32"))
    tokens, waves = (64, 8) if split else (0, 0)
    return dataclasses.replace(base, decode_split_tokens=tokens, max_prefill_waves=waves)


def poisoned(case: Case, sinks: torch.Tensor, poison: Poison) -> None:
    """Set one value in place."""
    b, batch = poison.request, case.batch
    if poison.where == "sinks":
        sinks[poison.head] = poison.value
    elif poison.where == "q":
        row = int(batch.q_indptr[b]) + int(poison.place * Q_LENS[b])
        case.q[row, poison.head, poison.column] = poison.value
    else:
        token = int(poison.place * KV_LENS[b])
        page = int(batch.page_indices[int(batch.page_starts[b]) + token // 16])
        cache = case.k_cache if poison.where == "k" else case.v_cache
        cache[page, token % 16, poison.head % KV_HEADS, poison.column] = poison.value


def assert_alike(got: Result, exact: Attended) -> None:
    """NaN where the reference has NaN, infinite where it is infinite, close elsewhere."""
    for mine, theirs in zip(got, exact, strict=True):
        assert torch.equal(mine.isnan(), theirs.isnan())
        assert torch.allclose(mine.double(), theirs, rtol=0.01, atol=0.01, equal_nan=True)


poisons = st.builds(
    Poison,
    where=st.sampled_from(["q", "k", "v", "v", "sinks"]),
    value=st.sampled_from([math.nan, math.inf, -math.inf]),
    request=st.integers(0, 3),
    place=st.floats(0, 1, exclude_max=True),
    head=st.integers(0, HEADS - 1),
    column=st.integers(0, DIM - 1),
)


@pytest.mark.parametrize("level", LEVELS)
@hypothesis.settings(max_examples=60)
@hypothesis.given(
    poison=poisons,
    dtype=st.sampled_from(["fp32", "bf16", "fp16"]),
    window=st.sampled_from([-1, -1, 0, 25]),
    cap=st.sampled_from([0.0, 0.0, 5.0]),
    split=st.booleans(),
    seed=st.integers(0, 2**31),
)
def test_broken_value_reaches_exactly_the_rows_that_see_it(
    level: str, poison: Poison, dtype: Dtype, window: int, cap: float, split: bool, seed: int
) -> None:
    case = make_batch(Q_LENS, KV_LENS, geometry=geometry(dtype), seed=seed)
    sinks = torch.linspace(-3, 3, HEADS)
    poisoned(case, sinks, poison)
    features = {"window_left": window, "logit_cap": cap, "sinks": sinks}
    with mock.patch.dict(os.environ, POD_ATTN_ISA=level):
        got = hybrid_attention(*case, config=config(split), **features)  # type: ignore[arg-type]
    assert_alike(got, attention_reference(*case, **features))  # type: ignore[arg-type]


@pytest.mark.parametrize("q_len", [1, 2])
@pytest.mark.parametrize("payload", [0x7FC00000, 0x7F800001, -1, 0x7FFFFFFF], ids=hex)
@pytest.mark.parametrize("level", LEVELS)
def test_every_bit_pattern_of_nan_stays_one(
    level: str, payload: int, q_len: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POD_ATTN_ISA", level)
    case = make_batch([q_len], [2], geometry=geometry("fp32"), seed=0)
    case.q[-1].view(torch.int32)[:] = payload
    got = hybrid_attention(*case)
    assert got.out[-1].isnan().all() and got.lse[-1].isnan().all()
    assert q_len == 1 or got.out[0].isfinite().all()


@pytest.mark.parametrize("split", [False, True])
@pytest.mark.parametrize("level", LEVELS)
def test_row_whose_logits_are_all_minus_infinity_is_0_or_its_sink(
    level: str, split: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POD_ATTN_ISA", level)
    case = make_batch(Q_LENS, KV_LENS, geometry=geometry("fp32"), seed=1)
    case.q[..., 0] = 1
    case.k_cache[..., 0] = -math.inf
    plain = hybrid_attention(*case, config=config(split))
    assert (plain.out == 0).all() and (plain.lse == -math.inf).all()
    sunk = hybrid_attention(*case, config=config(split), sinks=torch.full((HEADS,), 2.5))
    assert (sunk.out == 0).all() and (sunk.lse == 2.5).all()


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize(("dtype", "top"), [("fp32", 1e6), ("bf16", 133120.0), ("fp16", 20000.0)])
@pytest.mark.parametrize("q_len", [1, 2])
@pytest.mark.parametrize("sign", [1, -1])
def test_largest_weight_of_a_row_is_1_however_large_its_logit(
    level: str, dtype: Dtype, top: float, q_len: int, sign: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POD_ATTN_ISA", level)
    case = make_batch([q_len], [q_len], geometry=geometry(dtype), seed=2, fill_unused=0)
    case.q.fill_(sign * top)
    case.k_cache.fill_(top)
    case.v_cache.fill_(1)
    got = hybrid_attention(*case)
    assert (got.out == 1).all()
    logit = sign * float(case.q[0, 0, 0].abs()) * float(case.k_cache[0, 0, 0, 0]) * DIM**0.5
    keys = torch.arange(1, q_len + 1).double().log()[:, None]
    assert torch.allclose(got.lse.double(), logit + keys, rtol=3e-7, atol=0)


@pytest.mark.parametrize("split", [False, True])
@pytest.mark.parametrize("level", LEVELS)
def test_infinite_sink_leaves_nan_and_no_zero(
    level: str, split: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POD_ATTN_ISA", level)
    case = make_batch(Q_LENS, KV_LENS, geometry=geometry("fp32"), seed=1)
    got = hybrid_attention(*case, config=config(split), sinks=torch.full((HEADS,), math.inf))
    assert got.out.isnan().all() and got.lse.isnan().all()
