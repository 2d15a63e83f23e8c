"""The Geometry of a call, read from its tensors."""

from __future__ import annotations

import functools

import torch

from pod_integrate.errors import DtypeError, ShapeError
from pod_integrate.terms.keys import Dtype, Geometry, KvDtype

DTYPES: dict[torch.dtype, Dtype] = {
    torch.float32: "fp32",
    torch.bfloat16: "bf16",
    torch.float16: "fp16",
}
KV_DTYPES: dict[torch.dtype, KvDtype] = {**DTYPES, torch.float8_e4m3fn: "e4m3"}
TORCH_DTYPES: dict[KvDtype, torch.dtype] = {name: dtype for dtype, name in KV_DTYPES.items()}


# As kernels/cpu/src/checks.cpp; a GPU takes fewer (limits.HEAD_DIMS).
HEAD_DIM_STEP, MIN_HEAD_DIM, MAX_HEAD_DIM = 16, 32, 256
HEAD_DIM_RULE = f"a multiple of {HEAD_DIM_STEP} in {MIN_HEAD_DIM}..{MAX_HEAD_DIM}"


def takes_head_dim(head_dim: int) -> bool:
    """Whether any kernel of ours takes heads of this size."""
    return MIN_HEAD_DIM <= head_dim <= MAX_HEAD_DIM and head_dim % HEAD_DIM_STEP == 0


def require_heads(num_q_heads: int, num_kv_heads: int, head_dim: int) -> None:
    """Raise ShapeError when the op cannot attend with these heads on any machine."""
    if num_kv_heads < 1 or num_q_heads < 1 or num_q_heads % num_kv_heads:
        raise ShapeError(
            f"query heads must be a multiple of KV heads, got {num_q_heads} and {num_kv_heads}"
        )
    if not takes_head_dim(head_dim):
        raise ShapeError(f"head dim must be {HEAD_DIM_RULE}, got {head_dim}")


# What a Geometry holds, as plain numbers and torch's dtypes in the order of its fields: hashed and
# compared in a fraction of the time.
Numbers = tuple[int, int, int, torch.dtype, torch.dtype, int, int, float]


def numbers_of(
    q: torch.Tensor, k_cache: torch.Tensor, window_left: int, logit_cap: float
) -> Numbers:
    """Of a call."""
    _, heads, dim = q.shape
    _, slots, kv_heads, _ = k_cache.shape
    return heads, kv_heads, dim, q.dtype, k_cache.dtype, slots, window_left, logit_cap


def numbers_in(geometry: Geometry) -> Numbers:
    """Of a geometry; make_geometry is its inverse."""
    return (
        *(geometry.num_q_heads, geometry.num_kv_heads, geometry.head_dim),
        *(TORCH_DTYPES[geometry.dtype], TORCH_DTYPES[geometry.kv_dtype], geometry.page_size),
        *(geometry.window_left, geometry.logit_cap),
    )


def geometry_of(
    q: torch.Tensor,
    k_cache: torch.Tensor,
    *,
    window_left: int = -1,
    logit_cap: float = 0.0,
) -> Geometry:
    """Geometry of a call; raises DtypeError for a dtype that no kernel takes."""
    return make_geometry(numbers_of(q, k_cache, window_left, logit_cap))


@functools.lru_cache(maxsize=4096)
def make_geometry(numbers: Numbers) -> Geometry:
    """The geometry of numbers_in; raises DtypeError as geometry_of."""
    heads, kv_heads, head_dim, dtype, kv_dtype, page_size, window_left, logit_cap = numbers
    if dtype not in DTYPES or kv_dtype not in KV_DTYPES:
        raise DtypeError(
            f"q is {dtype}, k_cache {kv_dtype}; the kernel takes float32, bfloat16 and float16, "
            "and beside them caches of float8_e4m3fn. Cast q and the caches to one of them"
        )
    return Geometry(
        num_q_heads=heads,
        num_kv_heads=kv_heads,
        head_dim=head_dim,
        dtype=DTYPES[dtype],
        kv_dtype=KV_DTYPES[kv_dtype],
        page_size=page_size,
        window_left=window_left,
        logit_cap=logit_cap,
    )
