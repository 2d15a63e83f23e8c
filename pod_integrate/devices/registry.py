"""Which Device holds a tensor, which Target a key names: the one place that tells kinds apart."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch

from pod_integrate.devices.base import Device, Limits, Target
from pod_integrate.devices.cpu.device import CpuDevice, this_cpu
from pod_integrate.devices.cpu.processor import ISAS
from pod_integrate.devices.cpu.target import CpuTarget
from pod_integrate.devices.cuda.device import CudaDevice
from pod_integrate.devices.cuda.limits import ARCHITECTURES
from pod_integrate.devices.cuda.target import CudaTarget
from pod_integrate.errors import KernelUnavailableError
from pod_integrate.terms.keys import DeviceKey

# Kinds of torch devices that have a kernel, whether this machine has one or not.
_LIMITS = {"cpu": CpuDevice.limits, "cuda": CudaDevice.limits}
KINDS = tuple(_LIMITS)
# GPUs, and what stands in for another device.
_devices: dict[torch.device, Device] = {}


def device_of(place: torch.device | torch.Tensor) -> Device:
    """The device that tensors of a place are attended on.

    Raises KernelUnavailableError for one without a kernel, SettingsError on a malformed
    POD_ATTN_ISA.
    """
    where = place.device if isinstance(place, torch.Tensor) else place
    found = _devices.get(where)
    return _find(where) if found is None else found


def device_named(name: str) -> Device:
    """`cpu`, `cuda` (the current one), `cuda:1`, or `auto`: a GPU where torch finds one."""
    if name == "auto":
        name = "cuda" if has_gpu() else "cpu"
    return device_of(torch.device(name))


def has_gpu() -> bool:
    """Whether torch finds a GPU here."""
    return torch.cuda.is_available()


def limits_of(kind: str) -> Limits:
    """What the kernel of one of KINDS takes."""
    return _LIMITS[kind]


def has_kernel(place: torch.device) -> bool:
    """Whether a kernel is made for this kind of device; the device itself may be missing."""
    return place.type in KINDS


def target_of(key: DeviceKey) -> Target:
    """The target of a key, wherever it is; KernelUnavailableError for one without a kernel."""
    if key.capability in ISAS:
        return CpuTarget(key)
    if key.capability.startswith("sm"):
        return CudaTarget(key)
    raise KernelUnavailableError(
        f"no kernel for {key}: pod-attention runs on CPUs ({', '.join(ISAS)}) and NVIDIA GPUs "
        f"({', '.join(ARCHITECTURES)})"
    )


def kernel_unavailable(place: torch.device | str) -> KernelUnavailableError:
    """The error for a kind of device that has no kernel."""
    return KernelUnavailableError(
        f"no kernel runs on {place}: there is one for NVIDIA GPUs and one for CPUs. Move the "
        "tensors to one of them, or serve with SGLANG_PLATFORM=pod_cpu"
    )


@contextlib.contextmanager
def standing_in(device: Device) -> Iterator[Device]:
    """Tensors of `device.place` are attended on `device` until the block ends."""
    before = _devices.get(device.place)
    _devices[device.place] = device
    try:
        yield device
    finally:
        del _devices[device.place]
        if before is not None:
            _devices[device.place] = before


def _find(place: torch.device) -> Device:
    if place.type == "cpu":
        return this_cpu()
    if place.type != "cuda":
        raise kernel_unavailable(place)
    _require_gpu(place)
    index = torch.cuda.current_device() if place.index is None else place.index
    where = torch.device("cuda", index)
    if where not in _devices:
        _devices[where] = CudaDevice(where)
    return _devices[where]


def _require_gpu(place: torch.device) -> None:
    # HIP devices call themselves "cuda" in torch.
    hip: Any = torch.version.hip
    if hip is not None:
        raise kernel_unavailable("hip")
    if not has_gpu():
        raise KernelUnavailableError(
            f"no kernel runs on {place}: torch {torch.__version__} finds no NVIDIA GPU here. "
            "Install the driver or a CUDA build of torch, or move the tensors to the CPU"
        )
