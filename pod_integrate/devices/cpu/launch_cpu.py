"""The CPU path of the op: its arguments for the native library, which checks and computes."""

from __future__ import annotations

import functools
from typing import Any

import torch
import tvm_ffi

from pod_integrate.builds import native
from pod_integrate.devices.defaults import default_config, require_feasible
from pod_integrate.devices.device import ISAS, device_key, isa, num_threads
from pod_integrate.errors import UnsupportedFeatureError
from pod_integrate.terms.config import flatten_config, unflatten_config
from pod_integrate.terms.geometry import geometry_of
from pod_integrate.terms.keys import Geometry

_ARGUMENTS = 15


def attend(*arguments: Any) -> None:
    """Attend into out and lse; arguments as of the torch op, without plan and capacity."""
    # The dispatcher leaves out trailing arguments that have their default.
    if len(arguments) > _ARGUMENTS:
        raise UnsupportedFeatureError(
            "plan is for CUDA graphs, but q is on the CPU; leave it out there"
        )
    native.load("cpu").attend(*native_arguments(*arguments))


@functools.lru_cache(maxsize=4096)
def native_config(values: tuple[int, ...], geometry: Geometry, threads: int, level: str) -> Any:
    """The integers that the native library takes; an empty tuple stands for the default."""
    device = device_key(torch.device("cpu"), threads)
    config = unflatten_config(values) if values else default_config(device, geometry)
    require_feasible(config, device, geometry)
    flat = flatten_config(config)
    return tvm_ffi.Shape([value for i, value in enumerate(flat) if i not in (3, 7)])


def native_arguments(
    q: torch.Tensor,
    k_cache: torch.Tensor,
    v_cache: torch.Tensor,
    q_indptr: torch.Tensor,
    kv_lens: torch.Tensor,
    page_indices: torch.Tensor,
    page_starts: torch.Tensor,
    page_size: int,
    scale: float,
    window_left: int,
    logit_cap: float,
    sinks: torch.Tensor | None,
    config: list[int],
    out: torch.Tensor,
    lse: torch.Tensor,
) -> tuple[Any, ...]:
    """Arguments of the native `attend` and `attend_logged` for those of the torch op."""
    geometry = geometry_of(q, k_cache, window_left=window_left, logit_cap=logit_cap)
    threads, level = num_threads(), isa()
    chosen = native_config(tuple(config), geometry, threads, level)
    tensors = (q, k_cache, v_cache, q_indptr, kv_lens, page_indices, page_starts)
    numbers = (page_size, scale, window_left, logit_cap)
    return (*tensors, *numbers, sinks, out, lse, chosen, threads, ISAS.index(level))
