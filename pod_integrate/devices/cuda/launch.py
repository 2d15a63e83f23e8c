"""The CUDA path of the op: variant, plan, workspace and streams of one call.

A batch is planned and uploaded once per geometry, config and stream (`uploads`), however many
layers share it, and what does not change between calls is looked up once: a layer pays each line.
Nothing waits for the device: memory comes from torch's caching allocator, so it is safe on any
stream and inside graph captures.
"""

from __future__ import annotations

import contextlib
import functools
import logging
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import NamedTuple

import torch
import tvm_ffi

from pod_integrate.builds import native, nvcc
from pod_integrate.devices.cuda import kernel_library, limits
from pod_integrate.devices.cuda.kernel_library import KERNELS, KernelLibrary
from pod_integrate.devices.cuda.planning import Capacity
from pod_integrate.devices.cuda.uploads import Plans, Room, Uploaded
from pod_integrate.devices.cuda.variants import Variant
from pod_integrate.devices.defaults import default_config, require_feasible
from pod_integrate.devices.device import device_key
from pod_integrate.errors import ShapeError, UnsupportedFeatureError
from pod_integrate.terms.config import STRATEGIES, PodConfig, unflatten_config
from pod_integrate.terms.geometry import make_geometry
from pod_integrate.terms.keys import Geometry

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


class _Route:
    """What calls of one config and geometry on one device share, looked up once per call."""

    def __init__(self, chosen: Chosen, device: torch.device) -> None:
        host = native.load("host")
        self.attend, self._workspace_size = host.attend, host.workspace_size
        self.addresses = (chosen.library.launch, chosen.library.error)
        self.sm_slots, self._head_dim = chosen.sm_slots, chosen.geometry.head_dim
        self.strategy = STRATEGIES.index(chosen.config.strategy)
        self.two_streams = chosen.config.strategy == "streams"
        self.plans = Plans(
            chosen.geometry, chosen.config, chosen.num_sms, device=device, room=self.room
        )

    def room(self, capacity: Capacity) -> Room:
        """Of a launch with these grid sizes."""
        size = self._workspace_size(self.sm_slots, capacity.partial_rows, self._head_dim)
        return Room(tvm_ffi.Shape(capacity), int(size))


_NOTHING: AbstractContextManager[None] = contextlib.nullcontext()
# Triton and inductor ask the same: an integer, without the Stream that torch.cuda makes each time.
_raw_stream: Callable[[int], int] | None = getattr(torch._C, "_cuda_getCurrentRawStream", None)


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

    records  int64 [CTAs, 5] on q's device, receives what each CTA did (CtaRecord of arguments.h)
    """
    device = q.device
    _, heads, dim = q.shape
    _, slots, kv_heads, _ = k_cache.shape
    with _current(device):
        route = _route(
            *(tuple(config), heads, kv_heads, dim, q.dtype, k_cache.dtype, slots),
            *(window_left, logit_cap, device),
        )
        stream = current_stream(device)
        if plan is None:
            _require_no_capture()
            uploaded = route.plans.get(q_indptr, kv_lens, stream)
            _require_rows(q, page_starts, uploaded)
            plan, room = uploaded.words, uploaded.room
        else:
            room = route.room(Capacity(*capacity))
        side = _side_stream(device) if route.two_streams else 0
        route.attend(
            *(*route.addresses, q, k_cache, v_cache, plan, page_indices, page_starts, page_size),
            *(scale, window_left, logit_cap, sinks, out, lse),
            torch.empty(room.workspace, dtype=torch.uint8, device=device),
            *(room.capacity, route.strategy, route.sm_slots, stream, side, records),
        )


@functools.lru_cache(maxsize=4096)
def _route(
    config: tuple[int, ...],
    num_q_heads: int,
    num_kv_heads: int,
    head_dim: int,
    dtype: torch.dtype,
    kv_dtype: torch.dtype,
    page_size: int,
    window_left: int,
    logit_cap: float,
    device: torch.device,
) -> _Route:
    # Plain numbers, because a Geometry takes longer to make and hash than all of them.
    geometry = make_geometry(
        *(num_q_heads, num_kv_heads, head_dim, dtype, kv_dtype, page_size, window_left, logit_cap)
    )
    return _Route(choose(config, geometry, device.index), device)


@functools.lru_cache(maxsize=4096)
def choose(config: tuple[int, ...], geometry: Geometry, device: int) -> Chosen:
    """The library and config of a call, built if need be; an empty config stands for the default.

    The caller has made `device` current. Raises ConfigInfeasibleError, DtypeError, ShapeError,
    KernelUnavailableError or BuildError.
    """
    key = device_key(torch.device("cuda", device))
    chosen = unflatten_config(config) if config else default_config(key, geometry)
    require_feasible(chosen, key, geometry)
    path = nvcc.build(Variant.of(chosen, geometry), limits.architecture(key.capability))
    library = kernel_library.load(path)
    # CUDA loads a kernel when it is first asked for, which it must not be during a capture.
    resident = {name: library.info(name, device).ctas_per_sm for name in KERNELS}
    logger.info("%s from %s on %s, CTAs per SM %s", path.stem, path.parent, key, resident)
    return Chosen(library, chosen, geometry, key.units)


def _require_no_capture() -> None:
    if _is_capturing():
        # The graph would replay with a plan whose memory belongs to this batch alone.
        raise UnsupportedFeatureError(
            "a CUDA graph is being captured and the call has no plan; make a DevicePlan before "
            "the capture and pass it as plan="
        )


def _require_rows(q: torch.Tensor, page_starts: torch.Tensor, uploaded: Uploaded) -> None:
    if q.shape[0] != uploaded.tokens:
        raise ShapeError(f"q has T = {q.shape[0]} rows but the batch has {uploaded.tokens} tokens")
    if page_starts.numel() != uploaded.requests:
        raise ShapeError(
            f"page_starts has {page_starts.numel()} requests but kv_lens {uploaded.requests}"
        )


def _current(device: torch.device) -> AbstractContextManager[None]:
    # Entering a device asks the driver twice, though it nearly always is the current one.
    return _NOTHING if torch.cuda.current_device() == device.index else torch.cuda.device(device)


def _is_capturing() -> bool:
    return torch.cuda.is_current_stream_capturing()


def current_stream(device: torch.device) -> int:
    """Handle of the current stream of a GPU."""
    if _raw_stream is not None:
        return _raw_stream(device.index)
    return int(torch.cuda.current_stream(device).cuda_stream)


def _side_stream(device: torch.device) -> int:
    return int(_own_stream(device).cuda_stream)


@functools.lru_cache(maxsize=64)
def _own_stream(device: torch.device) -> torch.cuda.Stream:
    # torch leaves Stream untyped.
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
