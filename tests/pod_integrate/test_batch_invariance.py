"""PodConfig.batch_invariant(): a request's answer is the same bits alone and in any batch."""

from __future__ import annotations

import dataclasses
import os
import random
from collections.abc import Callable, Iterator
from unittest import mock

import hypothesis
import hypothesis.strategies as st
import pytest
import torch

from pod_integrate.devices.cuda import limits
from pod_integrate.devices.cuda.variants import Variant
from pod_integrate.devices.emulated import emulator
from pod_integrate.devices.emulated.emulator import Schedule
from pod_integrate.devices.registry import device_of
from pod_integrate.measure.batches import Case, make_batch
from pod_integrate.model.batches import Lengths
from pod_integrate.model.items import make_plan
from pod_integrate.op import Result, hybrid_attention
from pod_integrate.terms.batch import HybridBatch
from pod_integrate.terms.config import LEAST_SPLIT, PodConfig
from pod_integrate.terms.keys import Geometry

GEOMETRY = Geometry.uniform((4, 2, 64), "fp32")
BF16 = dataclasses.replace(GEOMETRY, dtype="bf16", kv_dtype="bf16")
CPU = device_of(torch.device("cpu")).default_config(GEOMETRY)
# The variant that test_emulated_op.py compiles.
SMALL = Variant.parse("bf16-d64-p64x32s1w4-d16x64s1w4-c2-v1").config()
Attend = Callable[[Case], Result]


def parts(case: Case, requests: list[int]) -> Case:
    """The call that attends only these requests, in this order, over the same cache."""
    q_lens, kv_lens = case.batch.lengths
    starts = case.batch.q_indptr.tolist()
    rows = [case.q[starts[b] : starts[b + 1]] for b in requests]
    batch = HybridBatch.build(
        [q_lens[b] for b in requests],
        [kv_lens[b] for b in requests],
        page_indices=case.batch.page_indices,
        page_starts=case.batch.page_starts[requests],
        page_size=case.batch.page_size,
    )
    return Case(torch.cat(rows), case.k_cache, case.v_cache, batch)


def answers(case: Case, requests: list[int], attend: Attend) -> Iterator[tuple[int, Result]]:
    """Each request's rows of one call that attends `requests`."""
    part = parts(case, requests)
    got, ends = attend(part), part.batch.q_indptr.tolist()
    for place, b in enumerate(requests):
        rows = slice(ends[place], ends[place + 1])
        yield b, Result(got.out[rows], got.lse[rows])


def same(a: Result, b: Result) -> bool:
    return torch.equal(a.out, b.out) and torch.equal(a.lse, b.lse)


@st.composite
def lengths(draw: st.DrawFn) -> tuple[list[int], list[int]]:
    """Two to five requests: decodes, a few speculative rows, chunks with a prefix."""
    kv_lens = draw(st.lists(st.integers(1, 1500), min_size=2, max_size=5))
    q_lens = [min(n, draw(st.sampled_from([1, 1, 2, 33, 100]))) for n in kv_lens]
    return q_lens, kv_lens


@hypothesis.settings(max_examples=40)
@hypothesis.given(
    lens=lengths(),
    order=st.randoms(use_true_random=False),
    window=st.sampled_from([-1, 0, 200]),
    threads=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    strategies=st.sampled_from([("fused", "fused"), ("fused", "serial"), ("streams", "fused")]),
    seed=st.integers(0, 2**31),
)
def test_cpu_answer_of_a_request_is_the_same_bits_alone_and_in_any_batch(
    lens: tuple[list[int], list[int]],
    order: random.Random,
    window: int,
    threads: tuple[int, int],
    strategies: tuple[str, str],
    seed: int,
) -> None:
    case = make_batch(*lens, geometry=GEOMETRY, seed=seed)
    config = CPU.batch_invariant()
    alone, together = (
        lambda c, n=n, s=s: _on_cpu(c, dataclasses.replace(config, strategy=s), n, window)
        for n, s in zip(threads, strategies, strict=True)
    )
    requests = list(range(len(lens[0])))
    order.shuffle(requests)
    for b, got in answers(case, requests, together):
        ((_, expected),) = answers(case, [b], alone)
        assert same(got, expected), f"request {b} of {lens}"


def _on_cpu(case: Case, config: PodConfig, threads: int, window: int) -> Result:
    with mock.patch.dict(os.environ, POD_ATTN_THREADS=str(threads)):
        return hybrid_attention(*case, config=config, window_left=window)


@pytest.mark.parametrize("kv_lens", [[700, 90, 300, 1100], [1500, 77, 520, 40]], ids=str)
def test_emulated_answer_of_a_request_is_the_same_bits_alone_and_in_any_batch(
    kv_lens: list[int],
) -> None:
    case = make_batch([1, 60, 2, 1], kv_lens, geometry=BF16, seed=kv_lens[0])
    config = dataclasses.replace(SMALL, decode_split_tokens=2048).batch_invariant()

    def attend(case: Case, sms: int) -> Result:
        return emulator.attend(*case, config=config, schedule=Schedule(num_sms=sms)).attention

    together = dict(answers(case, [2, 0, 3, 1], lambda c: attend(c, 2)))
    for b, expected in together.items():
        ((_, alone),) = answers(case, [b], lambda c: attend(c, 24))
        assert same(alone, expected), f"request {b} of {kv_lens}"


Item = tuple[int, int, int, int, int]


def cuda_items(lengths: Lengths, config: PodConfig, sms: int, op: str) -> dict[int, set[Item]]:
    """(kv_head, row0, rows, kv0, kv1) of each request's items."""
    found: dict[int, set[Item]] = {}
    for item in getattr(make_plan(lengths, BF16, config, sms), op):
        values = (int(item[n]) for n in ("kv_head", "row0", "rows", "kv0", "kv1"))
        found.setdefault(int(item["request"]), set()).add(tuple(values))  # type: ignore[arg-type]
    return found


@hypothesis.settings(max_examples=60)
@hypothesis.given(
    lens=lengths(),
    split=st.sampled_from([0, 16, 112, 256, 512, 2048]),
    waves=st.integers(0, 4),
    sms=st.tuples(st.integers(1, 140), st.integers(1, 140)),
    sixteenth=st.integers(1, 40),
)
def test_cuda_items_of_a_request_depend_on_nothing_else_of_its_batch(
    lens: tuple[list[int], list[int]],
    split: int,
    waves: int,
    sms: tuple[int, int],
    sixteenth: int,
) -> None:
    tiles = limits.default_tiles(limits.ARCHITECTURES["sm_90a"], 128)
    config = dataclasses.replace(tiles, decode_split_tokens=split, max_prefill_waves=waves)
    config = config.batch_invariant()
    kv_lens = [n * sixteenth for n in lens[1]]
    for op in ("prefill", "decode"):
        together = cuda_items(Lengths.of(lens[0], kv_lens), config, sms[0], op)
        for b, items in together.items():
            one = Lengths.of([lens[0][b]], [kv_lens[b]])
            assert cuda_items(one, config, sms[1], op) == {0: items}


@pytest.mark.parametrize("split", [0, 16, LEAST_SPLIT, 2048])
def test_batch_invariant_changes_the_splits_alone_and_stays_as_it_is(split: int) -> None:
    config = dataclasses.replace(CPU, decode_split_tokens=split, virtual_decode=3)
    got = config.batch_invariant()
    expected = dataclasses.replace(
        config, max_prefill_waves=0, decode_split_tokens=min(split, LEAST_SPLIT)
    )
    assert got == expected and got.batch_invariant() == got
    assert got.is_batch_invariant and not config.is_batch_invariant
