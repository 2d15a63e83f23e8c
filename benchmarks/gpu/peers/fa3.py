"""FlashAttention-3 as SGLang has it compiled, on the paged cache of a case; any head dim to 256."""

from __future__ import annotations

import torch

from benchmarks.gpu.peers.flashinfer import Call, Make
from benchmarks.gpu.speed.cases import Part, Spec, requests_of, rows_of
from pod_integrate.measure.batches import Case


def attention(part: Part) -> Make:
    """One call for `part` of the requests; it makes its schedule on the device, timed with it."""

    def make(case: Case, spec: Spec) -> Call:
        from sgl_kernel.flash_attn import flash_attn_with_kvcache

        requests = requests_of(spec, part)
        q_lens = spec.lengths.q_lens[requests]
        starts = torch.tensor([0, *q_lens], dtype=torch.int32).cumsum(0, dtype=torch.int32)
        arguments = {
            "q": case.q[rows_of(spec, part)],
            "k_cache": case.k_cache,
            "v_cache": case.v_cache,
            "cache_seqlens": case.batch.kv_lens[requests].to(case.q.device),
            "page_table": page_table(case, spec)[requests].contiguous(),
            "cu_seqlens_q": starts.to(case.q.device),
            "max_seqlen_q": max(q_lens),
            "causal": True,
        }

        def call() -> torch.Tensor:
            out: torch.Tensor = flash_attn_with_kvcache(**arguments)
            return out

        return call

    return make


def page_table(case: Case, spec: Spec) -> torch.Tensor:
    """[B, most pages of a request] int32 on the device; what lies behind a request's pages is 0."""
    counts = [-(-kv // spec.page_size) for kv in spec.lengths.kv_lens]
    pages = torch.split(case.batch.page_indices[: sum(counts)], counts)
    return torch.nn.utils.rnn.pad_sequence(list(pages), batch_first=True)
