"""torch's scaled_dot_product_attention on contiguous K and V, which are copied beforehand."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.attention.bias import causal_lower_right

from pod_integrate.devices.registry import device_of
from pod_integrate.measure.batches import Case
from pod_integrate.measure.reference import gather
from pod_integrate.model.floors import CaseSpec

Make = Callable[[Case, CaseSpec], Callable[[], torch.Tensor]]


def prefill(kernel: str) -> Make:
    """The chunk alone, causal and bottom-right aligned."""

    def make(case: Case, spec: CaseSpec) -> Callable[[], torch.Tensor]:
        q = case.q[: spec.chunk].transpose(0, 1)[None].contiguous()
        k, v = (_request(cache, case) for cache in (case.k_cache, case.v_cache))
        whole = spec.chunk == spec.context
        if not whole and kernel == "CUDNN_ATTENTION":
            raise NotImplementedError("torch's cuDNN path has no bottom-right causal mask")
        bias = None if whole else causal_lower_right(spec.chunk, spec.context)

        def call() -> torch.Tensor:
            with sdpa_kernel(_kernel(kernel, case)):
                out = F.scaled_dot_product_attention(
                    q, k, v, attn_mask=bias, is_causal=whole, enable_gqa=True
                )
            return out[0].transpose(0, 1)

        return call

    return make


def decode(kernel: str) -> Make:
    """The one-token requests as a batch; all of them have one context."""

    def make(case: Case, spec: CaseSpec) -> Callable[[], torch.Tensor]:
        q = case.q[spec.chunk :, :, None]
        k, v = (_decodes(cache, case, spec) for cache in (case.k_cache, case.v_cache))

        def call() -> torch.Tensor:
            with sdpa_kernel(_kernel(kernel, case)):
                out = F.scaled_dot_product_attention(q, k, v, enable_gqa=True)
            return out[:, :, 0]

        return call

    return make


def _kernel(name: str, case: Case) -> SDPBackend:
    """The kernel of that name, plain products where there is none of CUDA's."""
    has_kernels = device_of(case.q).compute_capability is not None
    return getattr(SDPBackend, name) if has_kernels else SDPBackend.MATH


def _request(cache: torch.Tensor, case: Case) -> torch.Tensor:
    return gather(cache, case.batch, 0).transpose(0, 1)[None].contiguous()


def _decodes(cache: torch.Tensor, case: Case, spec: CaseSpec) -> torch.Tensor:
    shape = (spec.decodes, spec.num_kv_heads, spec.decode_context, spec.head_dim)
    together = torch.empty(shape, dtype=cache.dtype, device=cache.device)
    for i in range(spec.decodes):
        together[i] = gather(cache, case.batch, 1 + i).transpose(0, 1)
    return together
