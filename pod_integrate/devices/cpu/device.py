"""The CPU of this machine: its kernel computes before a call returns."""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any

from pod_integrate.builds import native
from pod_integrate.devices.base import Limits
from pod_integrate.devices.call import Attention, Call
from pod_integrate.devices.cpu.processor import ISAS, cpu_name, isa, num_threads
from pod_integrate.devices.cpu.target import CpuTarget
from pod_integrate.devices.host import HostDevice
from pod_integrate.errors import UnsupportedFeatureError
from pod_integrate.terms.config import PodConfig, pack_config
from pod_integrate.terms.geometry import DTYPES, HEAD_DIM_STEP, MAX_HEAD_DIM, MIN_HEAD_DIM
from pod_integrate.terms.keys import DeviceKey, Geometry


class CpuDevice(HostDevice):
    """The CPU with one instruction set; threads are asked for at each call.

    level  one of ISAS
    """

    limits = Limits(
        dtypes=tuple(DTYPES),
        head_dims=tuple(range(MIN_HEAD_DIM, MAX_HEAD_DIM + 1, HEAD_DIM_STEP)),
    )
    has_graphs = False
    buffer_bytes = 64 << 20

    def __init__(self, level: str) -> None:
        super().__init__()
        self.level = level

    @property
    def target(self) -> CpuTarget:
        return CpuTarget(self.key_of(num_threads()))

    def key_of(self, units: int | None = None) -> DeviceKey:
        threads = len(os.sched_getaffinity(0)) if units is None else units
        return DeviceKey(cpu_name(), self.level, threads)

    @property
    def kernel_build(self) -> str:
        return native.build_id("cpu")

    def load(self) -> None:
        native.load("cpu")

    def build(self, geometry: Geometry, config: PodConfig) -> None:
        self.require_feasible(config, geometry)
        native.build("cpu")

    def _attention(self, geometry: Geometry, config: PodConfig | None) -> CpuAttention:
        target = self.target
        chosen = target.default_config(geometry) if config is None else config
        target.require_feasible(chosen, geometry)
        return CpuAttention(geometry, chosen, self.level)

    def with_units(self, units: int) -> AbstractContextManager[None]:
        return _threads(units)


class CpuAttention(Attention):
    """The native library checks and computes."""

    def __init__(self, geometry: Geometry, config: PodConfig, level: str) -> None:
        super().__init__(geometry, config)
        self.native = native.load("cpu")
        self._config = pack_config(config)
        self._isa = ISAS.index(level)
        self._attend = self.native.attend

    def __call__(self, call: Call) -> None:
        self._attend(*self.arguments(call))

    def arguments(self, call: Call) -> tuple[Any, ...]:
        """Of the native `attend` and `attend_logged`."""
        if call.plan is not None:
            raise UnsupportedFeatureError(
                "plan is for CUDA graphs, but q is on the CPU; leave it out there"
            )
        batch = call.batch
        return (
            *(call.q, call.k_cache, call.v_cache, batch.q_indptr, batch.kv_lens),
            *(batch.page_indices, batch.page_starts, batch.page_size, call.scalars.pack()),
            *(call.sinks, call.out, call.lse, self._config, num_threads(), self._isa),
        )


@functools.lru_cache(maxsize=len(ISAS))
def _device(level: str) -> CpuDevice:
    return CpuDevice(level)


def this_cpu() -> CpuDevice:
    """The CPU with the instruction set that POD_ATTN_ISA names, else the best it has."""
    return _device(isa())


@contextlib.contextmanager
def _threads(count: int) -> Iterator[None]:
    before = os.environ.get("POD_ATTN_THREADS")
    os.environ["POD_ATTN_THREADS"] = str(count)
    try:
        yield
    finally:
        if before is None:
            del os.environ["POD_ATTN_THREADS"]
        else:
            os.environ["POD_ATTN_THREADS"] = before
