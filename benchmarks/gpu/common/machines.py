"""The two machines that the parts run on: a CUDA device, and the emulated SM to try them out."""

from __future__ import annotations

import abc
import dataclasses
from typing import Any

import torch

from pod_integrate.devices.base import Device
from pod_integrate.devices.cuda import limits
from pod_integrate.devices.cuda.limits import Architecture
from pod_integrate.devices.emulated import emulator
from pod_integrate.devices.emulated.device import EmulatedDevice
from pod_integrate.devices.registry import device_of, has_gpu
from pod_integrate.errors import KernelUnavailableError
from pod_integrate.measure.batches import Case
from pod_integrate.op import Result, hybrid_attention
from pod_integrate.terms.config import PodConfig


class Backend(abc.ABC):
    """Runs the op. `device` holds its tensors, `sms` and `arch` say what configs are made for.

    runs  the Device that attends them
    tiny  whether it takes minutes for a batch of ordinary size
    """

    name: str
    runs: Device
    tiny: bool
    device: torch.device
    sms: int
    arch: Architecture

    @classmethod
    def compiled_for(cls) -> Architecture | None:
        """What nvcc compiles for it; None: nothing."""
        return cls().arch

    @abc.abstractmethod
    def attend(self, case: Case, config: PodConfig, **features: Any) -> Result:
        """hybrid_attention(*case, config=config, **features)."""

    @abc.abstractmethod
    def synchronize(self) -> None:
        """Wait for the device."""


class Cuda(Backend):
    """The current CUDA device."""

    name = "cuda"
    tiny = False

    def __init__(self) -> None:
        if not has_gpu():
            raise KernelUnavailableError(
                "torch sees no CUDA GPU. Run this where there is one, or try the script with "
                "--backend emulator"
            )
        self.device = torch.device("cuda", torch.cuda.current_device())
        self.runs = device_of(self.device)
        key = self.runs.key
        self.sms, self.arch = key.units, limits.architecture(key.capability)

    def attend(self, case: Case, config: PodConfig, **features: Any) -> Result:
        return hybrid_attention(*case, config=config, **features)

    def synchronize(self) -> None:
        torch.cuda.synchronize(self.device)


class Emulator(Backend):
    """The emulated SM; shapes have to be tiny."""

    name = "emulator"
    tiny = True
    device = torch.device("cpu")
    sms = 2
    arch = limits.ARCHITECTURES["sm_90a"]

    def __init__(self) -> None:
        self.runs = EmulatedDevice(emulator.Schedule(num_sms=self.sms))

    @classmethod
    def compiled_for(cls) -> Architecture | None:
        """A compiler of the host makes its library."""
        return None

    def attend(self, case: Case, config: PodConfig, **features: Any) -> Result:
        return emulator.attend(*case, config=config, **features).attention

    def synchronize(self) -> None:
        """Emulated launches have ended when they return."""


_BACKENDS: dict[str, type[Backend]] = {"cuda": Cuda, "emulator": Emulator}


def backend(name: str) -> Backend:
    """`cuda` or `emulator`."""
    return _BACKENDS[name]()


def compiled_for(name: str) -> Architecture | None:
    """What nvcc compiles for `cuda` (the current device) or `emulator`; None: nothing."""
    return _BACKENDS[name].compiled_for()


def moved(case: Case, device: torch.device) -> Case:
    """The case on a device, strides and what lies between elements included."""
    q, k_cache, v_cache = (_moved(tensor, device) for tensor in case[:3])
    batch = dataclasses.replace(
        case.batch,
        page_indices=case.batch.page_indices.to(device),
        page_starts=case.batch.page_starts.to(device),
    )
    return Case(q, k_cache, v_cache, batch)


def _moved(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    if not tensor.numel():
        return tensor.to(device)
    span = 1 + sum((n - 1) * s for n, s in zip(tensor.shape, tensor.stride(), strict=True))
    flat = tensor.as_strided((span,), (1,)).to(device)
    return flat.as_strided(tensor.shape, tensor.stride())
