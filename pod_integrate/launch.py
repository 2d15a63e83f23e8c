"""The CUDA path of the op: variant, plan, workspace and streams of one call.

A batch is planned and uploaded once per geometry, config and stream, however many layers share it.
Nothing waits for the device: memory comes from torch's caching allocator, so it is safe on any
stream and inside graph captures.
"""

from __future__ import annotations

import functools
import logging
import threading
from collections.abc import MutableMapping, Sequence
from contextlib import AbstractContextManager
from typing import NamedTuple

import torch
import tvm_ffi
from torch.utils.weak import WeakTensorKeyDictionary

from pod_integrate import gpu, kernel_library, native, nvcc
from pod_integrate.config import STRATEGIES, PodConfig, unflatten_config
from pod_integrate.defaults import default_config, require_feasible
from pod_integrate.device import device_key
from pod_integrate.errors import ShapeError, UnsupportedFeatureError
from pod_integrate.geometry import geometry_of
from pod_integrate.kernel_library import KERNELS, KernelLibrary
from pod_integrate.keys import Geometry
from pod_integrate.planning import Capacity, plan_batch
from pod_integrate.variants import Variant

logger = logging.getLogger(__name__)

# %smid may have gaps: an SM beyond the last slot is served, but shares a counter.
_MIN_SM_SLOTS = 256


class Chosen(NamedTuple):
    """What runs one geometry with one config on one device."""

    library: KernelLibrary
    config: PodConfig
    geometry: Geometry
    num_sms: int

    @property
    def sm_slots(self) -> int:
        """Ticket counters of a launch."""
        return max(_MIN_SM_SLOTS, 2 * self.num_sms)


class _Uploaded(NamedTuple):
    """A batch's plan in device memory; `kv_lens` is held so that its id stays its own."""

    words: torch.Tensor
    capacity: Capacity
    tokens: int
    kv_lens: torch.Tensor


_Key = tuple[object, ...]
_lock = threading.Lock()
# By q_indptr; entries go with their batch.
_plans: MutableMapping[torch.Tensor, dict[_Key, _Uploaded]] = WeakTensorKeyDictionary()


def attend(
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
    plan: torch.Tensor | None = None,
    capacity: Sequence[int] = (),
    *,
    records: torch.Tensor | None = None,
) -> None:
    """Attend into out and lse on the current stream of q's device; arguments as of the torch op.

    records  int64 [CTAs, 4] on q's device, receives what each CTA did (CtaRecord of arguments.h)
    """
    geometry = geometry_of(q, k_cache, window_left=window_left, logit_cap=logit_cap)
    with _current(q.device):
        chosen = choose(tuple(config), geometry, q.device.index)
        if plan is None:
            uploaded = _upload(q_indptr, kv_lens, chosen, q.device)
            _require_rows(q, page_starts, uploaded)
            plan, needs = uploaded.words, uploaded.capacity
        else:
            needs = Capacity(*capacity)
        side = _side_stream(q.device) if chosen.config.strategy == "streams" else 0
        native.load("host").attend(
            *(chosen.library.launch, chosen.library.error, q, k_cache, v_cache, plan),
            *(page_indices, page_starts, page_size, scale, window_left, logit_cap, sinks),
            *(out, lse, _workspace(chosen, needs.partial_rows, q.device), _shape(needs)),
            *(STRATEGIES.index(chosen.config.strategy), chosen.sm_slots),
            *(_stream(q.device), side, records),
        )


@functools.lru_cache(maxsize=4096)
def choose(config: tuple[int, ...], geometry: Geometry, device: int) -> Chosen:
    """The library and config of a call, built if need be; an empty config stands for the default.

    The caller has made `device` current. Raises ConfigInfeasibleError, DtypeError, ShapeError,
    KernelUnavailableError or BuildError.
    """
    key = device_key(torch.device("cuda", device))
    chosen = unflatten_config(config) if config else default_config(key, geometry)
    require_feasible(chosen, key, geometry)
    path = nvcc.build(Variant.of(chosen, geometry), gpu.architecture(key.capability))
    library = kernel_library.load(path)
    # CUDA loads a kernel when it is first asked for, which it must not be during a capture.
    resident = {name: library.info(name, device).ctas_per_sm for name in KERNELS}
    logger.info("%s from %s on %s, CTAs per SM %s", path.stem, path.parent, key, resident)
    return Chosen(library, chosen, geometry, key.units)


def _upload(
    q_indptr: torch.Tensor, kv_lens: torch.Tensor, chosen: Chosen, device: torch.device
) -> _Uploaded:
    heads = (chosen.geometry.num_q_heads, chosen.geometry.num_kv_heads, chosen.geometry.window_left)
    key: _Key = (id(kv_lens), *heads, chosen.config, device.index, _stream(device))
    if _is_capturing():
        # The graph would replay with a plan whose memory belongs to this batch alone.
        raise UnsupportedFeatureError(
            "a CUDA graph is being captured and the call has no plan; make a DevicePlan before "
            "the capture and pass it as plan="
        )
    with _lock:
        found = _plans.setdefault(q_indptr, {}).get(key)
    if found is not None:
        return found
    pin = device.type == "cuda"
    planned = plan_batch(
        q_indptr, kv_lens, chosen.geometry, chosen.config, num_sms=chosen.num_sms, pin=pin
    )
    # torch keeps the page-locked source until the copy has run.
    words = planned.words.to(device, non_blocking=True)
    made = _Uploaded(words, planned.capacity, planned.tokens, kv_lens)
    with _lock:
        _plans.setdefault(q_indptr, {})[key] = made
    return made


def _require_rows(q: torch.Tensor, page_starts: torch.Tensor, uploaded: _Uploaded) -> None:
    if q.shape[0] != uploaded.tokens:
        raise ShapeError(f"q has T = {q.shape[0]} rows but the batch has {uploaded.tokens} tokens")
    if page_starts.numel() != uploaded.kv_lens.numel():
        raise ShapeError(
            f"page_starts has {page_starts.numel()} requests but kv_lens {uploaded.kv_lens.numel()}"
        )


def _workspace(chosen: Chosen, partial_rows: int, device: torch.device) -> torch.Tensor:
    size = native.load("host").workspace_size(
        chosen.sm_slots, partial_rows, chosen.geometry.head_dim
    )
    return torch.empty(size, dtype=torch.uint8, device=device)


@functools.lru_cache(maxsize=4096)
def _shape(capacity: Capacity) -> tvm_ffi.Shape:
    return tvm_ffi.Shape(capacity)


def _current(device: torch.device) -> AbstractContextManager[None]:
    return torch.cuda.device(device)


def _is_capturing() -> bool:
    return torch.cuda.is_current_stream_capturing()


def _stream(device: torch.device) -> int:
    return int(torch.cuda.current_stream(device).cuda_stream)


def _side_stream(device: torch.device) -> int:
    return int(_own_stream(device).cuda_stream)


@functools.lru_cache(maxsize=64)
def _own_stream(device: torch.device) -> torch.cuda.Stream:
    # torch leaves Stream untyped.
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
