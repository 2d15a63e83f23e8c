"""An NVIDIA GPU of this machine."""

from __future__ import annotations

import functools
import logging
from collections.abc import Sequence
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
        self._libraries(geometry, [config, *self._others(geometry, config).values()])

    def _others(self, geometry: Geometry, config: PodConfig) -> dict[Kind, PodConfig]:
        """As batch_tiles, without what is not built where nothing can build it."""
        found = others(config, geometry, self.key)
        return {k: c for k, c in found.items() if nvcc.is_here() or self._is_built(geometry, c)}

    def _is_built(self, geometry: Geometry, config: PodConfig) -> bool:
        variant = Variant.of(config, geometry)
        if nvcc.find_library(variant, limits.architecture(self.key.capability)) is not None:
            return True
        logger.warning(
            "batches that it suits better run with the tiles of all others: %s is not built and "
            "there is no nvcc; build it with `pod-attn build` where there is one", variant.name,
        )  # fmt: skip
        return False

    def _attention(self, geometry: Geometry, config: PodConfig | None) -> Attention:
        chosen = self.default_config(geometry) if config is None else config
        found = self._others(geometry, chosen)
        path, *paths = self._libraries(geometry, [chosen, *found.values()])
        opened = {
            kind: self._opened(library, geometry, other, {})
            for library, (kind, other) in zip(paths, found.items(), strict=True)
        }
        return self._opened(path, geometry, chosen, opened)

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

    def _libraries(self, geometry: Geometry, configs: Sequence[PodConfig]) -> list[Path]:
        arch = limits.architecture(self.key.capability)
        for config in configs:
            self.require_feasible(config, geometry)
        # Half a minute of a core each.
        with ThreadPoolExecutor(len(configs)) as pool:
            return list(pool.map(lambda c: nvcc.build(Variant.of(c, geometry), arch), configs))

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
