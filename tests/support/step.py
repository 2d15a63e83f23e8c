"""Steps as SGLang hands them over, made by hand."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch

from pod_integrate.terms.keys import Geometry

GEOMETRY = Geometry.uniform((8, 4, 64), "fp32", page_size=1)
MAX_CONTEXT = 32


def forward_batch(kv_lens: list[int], q_lens: Any, *, rows: list[int] | None = None) -> Any:
    mode = q_lens if isinstance(q_lens, str) else "extend"
    return SimpleNamespace(
        forward_mode=SimpleNamespace(
            is_decode=lambda: mode == "decode",
            is_idle=lambda: mode == "idle",
            is_target_verify=lambda: mode == "verify",
        ),
        spec_info=SimpleNamespace(draft_token_num=3),
        seq_lens_cpu=torch.tensor(kv_lens, dtype=torch.int64),
        extend_seq_lens_cpu=q_lens if mode == "extend" else None,
        req_pool_indices=torch.tensor(rows or list(range(1, len(kv_lens) + 1)), dtype=torch.int64),
    )
