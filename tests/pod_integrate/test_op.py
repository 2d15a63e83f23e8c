"""hybrid_attention against the float64 reference: named cases."""

from __future__ import annotations

import math

import pytest
import torch

from pod_integrate.devices.cpu.processor import ISAS, isa
from pod_integrate.measure.accuracy import attend_and_check
from pod_integrate.measure.batches import Case, make_batch
from pod_integrate.op import hybrid_attention
from pod_integrate.terms.batch import HybridBatch
from pod_integrate.terms.keys import Dtype, Geometry

LEVELS = [level for level in ISAS if ISAS.index(level) >= ISAS.index(isa())]


@pytest.fixture(params=LEVELS)
def level(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("POD_ATTN_ISA", request.param)
    return str(request.param)


def geometry(
    hq: int = 8, hkv: int = 4, dim: int = 64, dtype: Dtype = "fp32", page_size: int = 16
) -> Geometry:
    return Geometry.uniform((hq, hkv, dim), dtype, page_size=page_size)


CASES = {
    "prefill only": ([70, 33], [70, 90]),
    "decode only": ([1, 1, 1], [1, 40, 300]),
    "prefill then decode": ([65, 1, 1], [200, 17, 130]),
    "decode before prefill": ([1, 40, 1, 3], [64, 41, 65, 100]),
    "speculative rows": ([4, 2, 5, 1], [90, 2, 33, 8]),
    "padding requests": ([0, 20, 0, 1, 0], [0, 31, 12, 9, 0]),
    "kv_len 1": ([1], [1]),
    "no request": ([], []),
    "no token": ([0, 0], [5, 0]),
}


@pytest.mark.parametrize("name", CASES)
def test_batch_matches_reference(name: str, level: str) -> None:
    attend_and_check(make_batch(*CASES[name], geometry=geometry(), seed=1))


@pytest.mark.parametrize("page_size", [1, 16, 24])
@pytest.mark.parametrize("edge", [-1, 0, 1])
def test_lengths_at_page_and_tile_edges_match(page_size: int, edge: int) -> None:
    kv_lens = [page_size * 2 + edge, 64 + edge, 128 + edge, page_size + 1]
    q_lens = [1, 33 + edge, 1, page_size + 1]
    case = make_batch(q_lens, kv_lens, geometry=geometry(page_size=page_size), seed=2)
    attend_and_check(case)


@pytest.mark.parametrize("dim", range(32, 257, 16))
def test_every_head_dim_matches(dim: int, level: str) -> None:
    attend_and_check(make_batch([18, 1], [50, 70], geometry=geometry(4, 2, dim), seed=3))


@pytest.mark.parametrize(("hq", "hkv"), [(4, 4), (6, 2), (16, 1), (14, 2), (40, 1), (1, 1)])
def test_every_group_size_matches(hq: int, hkv: int, level: str) -> None:
    attend_and_check(make_batch([9, 1], [30, 77], geometry=geometry(hq, hkv, 48), seed=4))


@pytest.mark.parametrize("dtype", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("window_left", [-1, 0, 21])
def test_every_dtype_matches_with_cap_sinks_and_window(
    dtype: Dtype, window_left: int, level: str
) -> None:
    case = make_batch([40, 1, 1], [90, 130, 7], geometry=geometry(dtype=dtype), seed=5)
    sinks = torch.linspace(-4, 40, 8)
    attend_and_check(case, window_left=window_left, logit_cap=3.0, sinks=sinks, scale=0.3)


def test_large_scores_neither_overflow_nor_lose_the_maximum(level: str) -> None:
    case = make_batch([20, 1], [60, 99], geometry=geometry(), seed=6)
    attend_and_check(case, scale=8.0)
    attend_and_check(case, scale=-8.0)


@pytest.mark.parametrize("dtype", ["bf16", "fp16"])
def test_dtype_extremes_survive(dtype: Dtype, level: str) -> None:
    case = make_batch([5, 1], [9, 12], geometry=geometry(dtype=dtype), seed=7)
    info = torch.finfo(case.q.dtype)
    for cache in (case.k_cache, case.v_cache):
        cache[..., 0] *= info.smallest_normal / 4  # denormal in fp16
    case.v_cache[..., 1] *= info.max / 64
    out, lse = hybrid_attention(*case)
    assert out.isfinite().all() and lse.isfinite().all()
    attend_and_check(case)


def test_window_never_reads_freed_pages() -> None:
    case = make_batch([1, 8], [200, 150], geometry=geometry(page_size=1), seed=8)
    starts = case.batch.page_starts
    # Far outside of the cache: reading one of them raises or crashes.
    case.batch.page_indices[int(starts[0]) : int(starts[0]) + 179] = 2**31 - 1
    case.batch.page_indices[int(starts[1]) : int(starts[1]) + 150 - 8 - 20] = -1
    attend_and_check(case, window_left=20)


def test_strided_inputs_and_padded_index_rows_are_read_in_place() -> None:
    case = make_batch(
        [40, 1, 1], [90, 130, 7], geometry=geometry(), seed=9, strided=True, row_starts=True
    )
    assert not case.k_cache.is_contiguous() and not case.q.is_contiguous()
    attend_and_check(case)


def test_out_is_written_in_place_through_any_strides() -> None:
    case = make_batch([10, 1], [20, 30], geometry=geometry(), seed=10)
    storage = torch.full((8, 2, 11, 64), math.nan)
    out = storage[:, 0].transpose(0, 1)
    got = attend_and_check(case, out=out)
    assert got.out is out
    assert storage[:, 1].isnan().all()


def test_sinks_are_part_of_the_lse() -> None:
    case = make_batch([1], [4], geometry=geometry(), seed=11)
    plain = hybrid_attention(*case)
    sunk = hybrid_attention(*case, sinks=torch.full((8,), 50.0))
    assert torch.allclose(sunk.lse, torch.full((1, 8), 50.0))
    assert sunk.out.abs().max() < 1e-6 < plain.out.abs().max()


def test_same_call_gives_same_bits() -> None:
    case = make_batch([70, 1, 1], [300, 600, 90], geometry=geometry(), seed=12)
    first = hybrid_attention(*case)
    for _ in range(3):
        again = hybrid_attention(*case)
        assert torch.equal(first.out, again.out) and torch.equal(first.lse, again.lse)


def test_unused_rows_of_a_batch_built_elsewhere_are_not_needed() -> None:
    case = make_batch([3], [9], geometry=geometry(), seed=13)
    batch = HybridBatch.build(
        [3],
        [9],
        page_indices=case.batch.page_indices,
        page_starts=case.batch.page_starts,
        page_size=16,
    )
    attend_and_check(Case(case.q, case.k_cache, case.v_cache, batch))
