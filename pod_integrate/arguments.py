"""What can be wrong with the arguments of hybrid_attention before a kernel's library sees them.

Types, devices and gradients are checked here; shapes, dtypes, strides and ranges by the libraries.
"""

from __future__ import annotations

import numbers

import torch

from pod_integrate.devices.device_plan import DevicePlan
from pod_integrate.devices.registry import has_kernel, kernel_unavailable
from pod_integrate.errors import (
    ConfigError,
    DeviceMismatchError,
    DtypeError,
    ShapeError,
    UnsupportedFeatureError,
)
from pod_integrate.terms.batch import HybridBatch
from pod_integrate.terms.config import PodConfig
from pod_integrate.terms.scalars import TYPES, Scalars

_INT64 = 1 << 63
_MEANING = {
    "scale": "None is head_dim ** -0.5",
    "window_left": "-1 is no window",
    "logit_cap": "0 is no cap",
    "k_scale": "1 takes keys as they are",
    "v_scale": "1 takes values as they are",
}


def check_types(
    batch: HybridBatch,
    config: PodConfig | None,
    plan: DevicePlan | None,
    **tensors: torch.Tensor | None,
) -> None:
    """Raise DtypeError or ConfigError, naming the argument, for what is of another type.

    tensors  by name; those that may be left out are None then
    """
    if not isinstance(batch, HybridBatch):
        raise DtypeError(f"batch must be a HybridBatch, got {_name(batch)}; use HybridBatch.build")
    if config is not None and not isinstance(config, PodConfig):
        raise ConfigError(
            f"config must be a PodConfig, got {_name(config)}; leave it out for the default"
        )
    if plan is not None and not isinstance(plan, DevicePlan):
        raise DtypeError(f"plan must be a DevicePlan, got {_name(plan)}; use DevicePlan.reserve")
    for name, tensor in tensors.items():
        required = name in ("q", "k_cache", "v_cache")
        if not isinstance(tensor, torch.Tensor) and (required or tensor is not None):
            raise DtypeError(f"{name} must be a torch.Tensor, got {_name(tensor)}")


def default_scale(head_dim: int) -> float:
    """That of a call which names none; raises ShapeError for heads without elements."""
    if head_dim < 1:
        raise ShapeError("head dim must be a multiple of 16 in 32..256, got 0")
    return float(head_dim**-0.5)


def plain(given: Scalars) -> Scalars:
    """Scalars of a caller as Python's own numbers, whatever kinds of numbers they are.

    Raises DtypeError for what is no number, ShapeError for what no kernel can take.
    """
    if tuple(map(type, given)) != TYPES:
        made = zip(Scalars._fields, given, TYPES, strict=True)
        given = Scalars._make(
            _real(name, value) if kind is float else _whole(name, value)
            for name, value, kind in made
        )
    if not -_INT64 <= given.window_left < _INT64:
        raise ShapeError(
            f"window_left must be -1 (no window) or 0..{2**30 - 1}, got {given.window_left}"
        )
    return given


def _whole(name: str, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise DtypeError(f"{name} must be an integer, got {_name(value)}; {_MEANING[name]}")
    return int(value)


def _real(name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise DtypeError(f"{name} must be a number, got {_name(value)}; {_MEANING[name]}")
    try:
        return float(value)
    except OverflowError as error:
        raise ShapeError(f"{name} must be finite, got a number of hundreds of digits") from error


def _name(value: object) -> str:
    return "None" if value is None else f"{type(value).__name__} {str(value)[:40]!r}"


def check_devices(
    q: torch.Tensor,
    k_cache: torch.Tensor,
    v_cache: torch.Tensor,
    batch: HybridBatch,
    sinks: torch.Tensor | None,
    out: torch.Tensor | None,
) -> None:
    """Raise KernelUnavailableError or DeviceMismatchError unless a kernel can reach all tensors."""
    if not has_kernel(q.device):
        raise kernel_unavailable(q.device)
    device, pages, starts = q.device, batch.page_indices, batch.page_starts
    if not (device == k_cache.device == v_cache.device == pages.device == starts.device):
        _refuse_devices(q, k_cache=k_cache, v_cache=v_cache, page_indices=pages, page_starts=starts)
    if (sinks is not None and sinks.device != device) or (out is not None and out.device != device):
        _refuse_devices(q, sinks=sinks, out=out)


def _refuse_devices(q: torch.Tensor, **others: torch.Tensor | None) -> None:
    # A meta or fake tensor among real ones would reach the fake kernel and leave `out` unwritten.
    for name, tensor in others.items():
        if tensor is not None and tensor.device != q.device:
            raise DeviceMismatchError(
                f"{name} is on {tensor.device} but q is on {q.device}; move all tensors of a call "
                "to one device"
            )


def check_gradients(**tensors: torch.Tensor | None) -> None:
    """Raise UnsupportedFeatureError where a gradient would be lost."""
    if not torch.is_grad_enabled():
        return
    for name, tensor in tensors.items():
        if tensor is not None and tensor.requires_grad:
            raise UnsupportedFeatureError(
                f"hybrid_attention has no gradient but {name} requires one; call it under "
                "torch.no_grad() or torch.inference_mode(), and train with torch's own attention"
            )
