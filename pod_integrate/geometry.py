"""The Geometry of a call, read from its tensors."""

from __future__ import annotations

import functools

import torch

from pod_integrate.errors import DtypeError
from pod_integrate.keys import Dtype, Geometry

_DTYPES: dict[torch.dtype, Dtype] = {
    torch.float32: "fp32",
    torch.bfloat16: "bf16",
    torch.float16: "fp16",
}


def geometry_of(
    q: torch.Tensor,
    k_cache: torch.Tensor,
    *,
    window_left: int = -1,
    logit_cap: float = 0.0,
) -> Geometry:
    """Geometry of a call; raises DtypeError for a dtype that no kernel takes."""
    return make_geometry(
        q.shape[1],
        k_cache.shape[2],
        q.shape[2],
        q.dtype,
        k_cache.dtype,
        k_cache.shape[1],
        window_left,
        logit_cap,
    )


@functools.lru_cache(maxsize=4096)
def make_geometry(
    num_q_heads: int,
    num_kv_heads: int,
    head_dim: int,
    dtype: torch.dtype,
    kv_dtype: torch.dtype,
    page_size: int,
    window_left: int,
    logit_cap: float,
) -> Geometry:
    """A Geometry of plain numbers and torch's dtypes; raises DtypeError as geometry_of."""
    if dtype not in _DTYPES or kv_dtype not in _DTYPES:
        raise DtypeError(
            f"q is {dtype}, k_cache {kv_dtype}; the kernel takes float32, bfloat16 and float16. "
            "Cast q and the caches to one of them"
        )
    return Geometry(
        num_q_heads=num_q_heads,
        num_kv_heads=num_kv_heads,
        head_dim=head_dim,
        dtype=_DTYPES[dtype],
        kv_dtype=_DTYPES[kv_dtype],
        page_size=page_size,
        window_left=window_left,
        logit_cap=logit_cap,
    )
