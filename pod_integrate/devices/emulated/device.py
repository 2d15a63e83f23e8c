"""The CUDA kernel on emulated SMs as a Device: the launch path of a GPU, tensors on the CPU.

For tests, and to try a benchmark out without a GPU. `registry.standing_in` puts it in the CPU's
place, so that whole engines run on it. Where every read and write must be guarded, or one schedule
after the other is tried, `emulator.attend` runs a single call.
"""

from __future__ import annotations

import contextlib
from contextlib import AbstractContextManager

import torch

from pod_integrate.builds import native
from pod_integrate.devices.call import Attention, Call
from pod_integrate.devices.cuda import device as cuda
from pod_integrate.devices.cuda import kernel_library
from pod_integrate.devices.cuda.attention import Chosen, CudaAttention
from pod_integrate.devices.cuda.runtime import Runtime
from pod_integrate.devices.cuda.target import CudaTarget
from pod_integrate.devices.cuda.variants import Variant
from pod_integrate.devices.emulated.emulator import Schedule, configured
from pod_integrate.devices.emulated.emulator_build import build
from pod_integrate.devices.host import HostDevice
from pod_integrate.terms.config import PodConfig
from pod_integrate.terms.keys import DeviceKey, Geometry


class EmulatedRuntime(Runtime):
    """Streams that a test sets; a launch has ended when it returns.

    number, capturing  what the current stream is
    side_streams       how often a second one was asked for
    """

    place = torch.device("cpu")
    pinned = False

    def __init__(self) -> None:
        self.number, self.capturing = 0, False
        self.side_streams = 0

    def current(self) -> AbstractContextManager[None]:
        return contextlib.nullcontext()

    def stream(self) -> int:
        return self.number

    def side_stream(self) -> int:
        self.side_streams += 1
        return 0

    def is_capturing(self) -> bool:
        return self.capturing


class EmulatedDevice(HostDevice):
    """A Hopper GPU of a few SMs.

    schedule  how its SMs run a launch
    default   what runs without a config; default the one of a GPU with this key, which takes long
              to compile
    """

    limits = cuda.LIMITS
    has_graphs = True
    buffer_bytes = 0

    def __init__(
        self,
        schedule: Schedule | None = None,
        *,
        default: PodConfig | None = None,
    ) -> None:
        super().__init__()
        self.schedule, self.runtime = schedule or Schedule(), EmulatedRuntime()
        self._default = default

    @property
    def target(self) -> CudaTarget:
        return CudaTarget(DeviceKey("emulated", "sm90", self.schedule.num_sms))

    @property
    def kernel_build(self) -> str:
        return f"emulated-{native.build_id('host')}"

    def default_config(self, geometry: Geometry) -> PodConfig:
        return self._default or super().default_config(geometry)

    def load(self) -> None:
        native.load("host")

    def build(self, geometry: Geometry, config: PodConfig) -> None:
        self.require_feasible(config, geometry)
        build(Variant.of(config, geometry))

    def _attention(self, geometry: Geometry, config: PodConfig | None) -> Attention:
        chosen = self.default_config(geometry) if config is None else config
        self.require_feasible(chosen, geometry)
        library = kernel_library.load(build(Variant.of(chosen, geometry)))
        return _EmulatedAttention(
            Chosen(library, chosen, geometry, self.schedule.num_sms), self.runtime, self.schedule
        )


class _EmulatedAttention(CudaAttention):
    def __init__(self, chosen: Chosen, runtime: Runtime, schedule: Schedule) -> None:
        super().__init__(chosen, runtime)
        self._schedule = schedule

    def _launch(self, call: Call, *, is_open: bool) -> None:
        with configured(self.library, self.config.ctas_per_sm, self._schedule):
            super()._launch(call, is_open=is_open)
