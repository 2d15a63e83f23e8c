"""FlashInfer's wrappers on the paged cache of a case; planned outside of what is timed."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import NamedTuple

import torch

from benchmarks.gpu.speed.cases import Part, Spec, requests_of, rows_of
from pod_integrate.measure.batches import Case

_WORKSPACE_BYTES = 512 << 20
Call = Callable[[], torch.Tensor]
Make = Callable[[Case, Spec], Call]


class _Pages(NamedTuple):
    """FlashInfer's view of some requests; int32 on the device."""

    qo_indptr: torch.Tensor
    kv_indptr: torch.Tensor
    kv_indices: torch.Tensor
    last_page_len: torch.Tensor
    kv_lens: torch.Tensor


def prefill(kernel: str, part: Part) -> Make:
    """BatchPrefill on what prefills, or on all rows of the batch."""

    def make(case: Case, spec: Spec) -> Call:
        import flashinfer

        pages, q = _pages(case, spec, part), case.q[rows_of(spec, part)]
        wrapper = flashinfer.BatchPrefillWithPagedKVCacheWrapper(
            _workspace(case), "NHD", backend=kernel
        )
        wrapper.plan(
            *(pages.qo_indptr, pages.kv_indptr, pages.kv_indices, pages.last_page_len),
            *(spec.num_q_heads, spec.num_kv_heads, spec.head_dim, spec.page_size),
            causal=True,
            q_data_type=case.q.dtype,
            kv_data_type=case.q.dtype,
        )
        cache = (case.k_cache, case.v_cache)
        return lambda: wrapper.run(q, cache)

    return make


def decode(tensor_cores: bool) -> Make:
    """BatchDecode on the one-token requests."""

    def make(case: Case, spec: Spec) -> Call:
        import flashinfer

        pages = _pages(case, spec, "decode")
        wrapper = flashinfer.BatchDecodeWithPagedKVCacheWrapper(
            _workspace(case), "NHD", use_tensor_cores=tensor_cores
        )
        wrapper.plan(
            *(pages.kv_indptr, pages.kv_indices, pages.last_page_len),
            *(spec.num_q_heads, spec.num_kv_heads, spec.head_dim, spec.page_size),
            q_data_type=case.q.dtype,
            kv_data_type=case.q.dtype,
        )
        q, cache = case.q[rows_of(spec, "decode")], (case.k_cache, case.v_cache)
        return lambda: wrapper.run(q, cache)

    return make


def serial(kernel: str) -> Make:
    """BatchPrefill, then BatchDecode, on one stream."""

    def make(case: Case, spec: Spec) -> Call:
        first, second = prefill(kernel, "prefill")(case, spec), decode(True)(case, spec)
        return _Joined(lambda: (first(), second()))

    return make


class _Joined:
    """Joins the rows of both parts in the first answer only: that one is compared, not timed."""

    def __init__(self, both: Callable[[], tuple[torch.Tensor, torch.Tensor]]) -> None:
        self._both = both
        self._compared = False

    def __call__(self) -> torch.Tensor:
        prefilled, decoded = self._both()
        if self._compared:
            return decoded
        self._compared = True
        return torch.cat([prefilled, decoded])


def batch_pod(case: Case, spec: Spec) -> Call:
    """BatchPODWithPagedKVCacheWrapper: both ops in one kernel."""
    import flashinfer

    chunk, decodes = _pages(case, spec, "prefill"), _pages(case, spec, "decode")
    wrapper = flashinfer.BatchPODWithPagedKVCacheWrapper(_workspace(case), "NHD")
    wrapper.plan(
        *(chunk.qo_indptr, chunk.kv_indptr, chunk.kv_indices, chunk.last_page_len),
        *(decodes.qo_indptr, decodes.kv_indptr, decodes.kv_indices, decodes.last_page_len),
        *(spec.num_q_heads, spec.num_kv_heads, spec.head_dim, spec.page_size),
        q_data_type=case.q.dtype,
        kv_data_type=case.q.dtype,
    )
    cache = (case.k_cache, case.v_cache)
    q_prefill, q_decode = case.q[rows_of(spec, "prefill")], case.q[rows_of(spec, "decode")]

    return _Joined(lambda: wrapper.run(q_prefill, cache, q_decode, cache, causal_p=True)[:2])


def batch_attention(case: Case, spec: Spec) -> Call:
    """BatchAttention: one persistent kernel for all rows."""
    import flashinfer

    pages = _pages(case, spec, "all")
    wrapper = flashinfer.BatchAttention("NHD", device=str(case.q.device))
    wrapper.plan(
        *(pages.qo_indptr, pages.kv_indptr, pages.kv_indices, pages.kv_lens),
        *(spec.num_q_heads, spec.num_kv_heads, spec.head_dim, spec.head_dim, spec.page_size),
        causal=True,
        q_data_type=case.q.dtype,
        kv_data_type=case.q.dtype,
    )
    q, cache = case.q, (case.k_cache, case.v_cache)
    return lambda: wrapper.run(q, cache)[0]


def _workspace(case: Case) -> torch.Tensor:
    return torch.zeros(_WORKSPACE_BYTES, dtype=torch.uint8, device=case.q.device)


def _pages(case: Case, spec: Spec, part: Part) -> _Pages:
    """The requests of a part; pages of a case lie in the order of its requests."""
    requests = requests_of(spec, part)
    q_lens, kv_lens = (list(side[requests]) for side in spec.lengths)
    counts = [-(-kv // spec.page_size) for kv in kv_lens]
    before = sum(-(-kv // spec.page_size) for kv in spec.lengths.kv_lens[: requests.start or 0])

    def vector(values: list[int]) -> torch.Tensor:
        return torch.tensor(values, dtype=torch.int32, device=case.q.device)

    def running(values: list[int]) -> torch.Tensor:
        return vector([0, *itertools.accumulate(values)])

    return _Pages(
        qo_indptr=running(q_lens),
        kv_indptr=running(counts),
        kv_indices=case.batch.page_indices[before : before + sum(counts)],
        last_page_len=vector([(kv - 1) % spec.page_size + 1 for kv in kv_lens]),
        kv_lens=vector(kv_lens),
    )
