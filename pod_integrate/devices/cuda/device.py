"""An NVIDIA GPU of this machine."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path

import torch

from pod_integrate.builds import native, nvcc
from pod_integrate.devices.base import Device, Limits
from pod_integrate.devices.call import Attention
from pod_integrate.devices.clock import Clock, EventClock
from pod_integrate.devices.cpu.processor import printable
from pod_integrate.devices.cuda import kernel_library, limits
from pod_integrate.devices.cuda.attention import Chosen, CudaAttention
from pod_integrate.devices.cuda.batch_tiles import Kind, others
from pod_integrate.devices.cuda.kernel_library import KERNELS
from pod_integrate.devices.cuda.runtime import CudaRuntime, Runtime
from pod_integrate.devices.cuda.side_by_side import may_run_beside
from pod_integrate.devices.cuda.target import CudaTarget
from pod_integrate.devices.cuda.timer import gpu_seconds
from pod_integrate.devices.cuda.variants import DTYPES, Variant
from pod_integrate.devices.timer import Timer
from pod_integrate.errors import BuildError
from pod_integrate.terms.config import PodConfig
from pod_integrate.terms.geometry import TORCH_DTYPES
from pod_integrate.terms.keys import DeviceKey, Geometry

logger = logging.getLogger(__name__)

LIMITS = Limits(
    dtypes=tuple(TORCH_DTYPES[name] for name in DTYPES),
    head_dims=limits.HEAD_DIMS,
    list_entries=2**31 - 1,
    # The kernel counts places of rows in 32-bit numbers of 16 bytes.
    cache_bytes=16 * (2**32 - 1),
)


class CudaDevice(Device):
    """One GPU; `place` has its index."""

    limits = LIMITS
    runs_triton = True
    has_graphs = True
    buffer_bytes = 1 << 30

    def __init__(self, place: torch.device) -> None:
        super().__init__()
        self.place = place
        self._runtime: Runtime = CudaRuntime(place)

    @functools.cached_property
    def target(self) -> CudaTarget:
        properties = torch.cuda.get_device_properties(self.place)
        capability = f"sm{properties.major}{properties.minor}"
        limits.architecture(capability)
        name = printable(properties.name) or "gpu"
        return CudaTarget(DeviceKey(name, capability, properties.multi_processor_count))

    @property
    def compute_capability(self) -> tuple[int, int] | None:
        return torch.cuda.get_device_capability(self.place)

    @property
    def kernel_build(self) -> str:
        return nvcc.build_id()

    def load(self) -> None:
        native.load("host")

    def build(self, geometry: Geometry, config: PodConfig) -> None:
        # One after the other: who prepares configs beside a server counts its compilers.
        self._library(geometry, config)
        for kind, other in others(config, geometry, self.key).items():
            _unless_missing(kind, functools.partial(self._library, geometry, other))

    def _attention(self, geometry: Geometry, config: PodConfig | None) -> Attention:
        chosen = self.default_config(geometry) if config is None else config
        wanted = others(chosen, geometry, self.key)
        # Somebody waits, and each is half a minute of a core.
        with ThreadPoolExecutor(1 + len(wanted)) as pool:
            first = pool.submit(self._library, geometry, chosen)
            rest = {k: pool.submit(self._library, geometry, c) for k, c in wanted.items()}
            path = first.result()
        opened = {}
        for kind, other in wanted.items():
            library = _unless_missing(kind, rest[kind].result)
            if library is not None:
                opened[kind] = self._opened(library, geometry, other, {})
        return self._opened(path, geometry, chosen, opened)

    def _library(self, geometry: Geometry, config: PodConfig) -> Path:
        self.require_feasible(config, geometry)
        return nvcc.build(Variant.of(config, geometry), limits.architecture(self.key.capability))

    def _opened(
        self, path: Path, geometry: Geometry, config: PodConfig, opened: dict[Kind, Attention]
    ) -> Attention:
        library = kernel_library.load(path)
        with self._runtime.current():
            # CUDA loads a kernel when it is first asked for, never during a capture.
            resident = {k: library.info(k, self.place.index).ctas_per_sm for k in KERNELS}
        logger.info("%s from %s on %s, CTAs per SM %s", path.stem, path.parent, self.key, resident)
        beside = may_run_beside(config, self.key)
        chosen = Chosen(library, config, geometry, self.key.units, beside, opened)
        return CudaAttention(chosen, self._runtime)

    def clock(self) -> Clock:
        return EventClock()

    def timer(self) -> Timer:
        return gpu_seconds

    @property
    def can_compile(self) -> bool:
        return nvcc.is_here()

    def landing(self) -> torch.Tensor:
        return torch.zeros(1, pin_memory=True)

    def background(self) -> AbstractContextManager[None]:
        return self._runtime.background()

    def spare_bytes(self) -> int:
        return int(torch.cuda.mem_get_info(self.place)[0])

    def upload(self, values: Sequence[int], dtype: torch.dtype = torch.int64) -> torch.Tensor:
        # torch keeps page-locked memory until the copy has run; a pageable source would be waited
        # for.
        pinned = torch.tensor(values, dtype=dtype).pin_memory(self.place)
        return pinned.to(self.place, non_blocking=True)


def _unless_missing(kind: Kind, build: Callable[[], Path]) -> Path | None:
    """What `build` returns; None, and a warning, where it cannot: a config runs without it."""
    try:
        return build()
    except BuildError as error:
        what = {"heavy": "heavy in prefill", "few": "whose decodes have few rows"}[kind]
        logger.warning("batches %s run with the tiles of all others: %s", what, error)
        return None
