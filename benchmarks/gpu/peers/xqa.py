"""XQA, TensorRT-LLM's decode kernel, as FlashInfer has it; page sizes from 16 on.

SGLang's `trtllm_mha` runs it on a Hopper GPU. Each group size is a build of its own.
"""

from __future__ import annotations

import math

import torch

from benchmarks.gpu.peers.fa3 import page_table
from benchmarks.gpu.peers.flashinfer import Call
from benchmarks.gpu.speed.cases import Spec, requests_of, rows_of
from pod_integrate.measure.batches import Case

# FlashInfer's wrapper takes the first 8 MiB for semaphores, which start at 0.
_WORKSPACE_BYTES = 512 << 20


def decode(case: Case, spec: Spec) -> Call:
    """XQA on the one-token requests; it reads the lengths on the device."""
    from flashinfer.decode import xqa_batch_decode_with_kv_cache

    requests = requests_of(spec, "decode")
    arguments = {
        "query": case.q[rows_of(spec, "decode")],
        "kv_cache": (case.k_cache, case.v_cache),
        "workspace_buffer": _workspace(case),
        "block_tables": page_table(case, spec)[requests].contiguous(),
        "seq_lens": case.batch.kv_lens[requests].to(case.q.device),
        "max_seq_len": max(spec.lengths.kv_lens[requests]),
        "bmm1_scale": 1 / math.sqrt(spec.head_dim),
        "kv_layout": "NHD",
    }

    def call() -> torch.Tensor:
        out: torch.Tensor = xqa_batch_decode_with_kv_cache(**arguments)
        return out

    return call


def _workspace(case: Case) -> torch.Tensor:
    return torch.zeros(_WORKSPACE_BYTES, dtype=torch.uint8, device=case.q.device)
