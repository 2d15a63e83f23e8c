"""Whether this host has an accelerator, usable or not: where it has, the CPU platform is off."""

from __future__ import annotations

import glob

# A host whose driver is broken, or whose GPUs are hidden from this process, is still a GPU host.
DEVICE_NODES = (
    "/dev/nvidia[0-9]*",
    "/dev/nvidiactl",
    "/dev/nvhost-gpu",
    "/usr/lib/wsl/lib/nvidia-smi",
    "/dev/kfd",
    "/dev/davinci[0-9]*",
    "/dev/accel/accel[0-9]*",
    "/dev/mthreads*",
    "/dev/neuron[0-9]*",
)
TORCH_MODULES = ("cuda", "xpu", "mps", "npu", "musa", "hpu", "mlu", "mtia")


def find_accelerator() -> str | None:
    """Name the first sign of an accelerator: a device node, or a torch backend that is available.

    None only when there is no sign at all.
    """
    for pattern in DEVICE_NODES:
        found = sorted(glob.glob(pattern))
        if found:
            return found[0]
    return _torch_accelerator()


def _torch_accelerator() -> str | None:
    import torch

    for name in TORCH_MODULES:
        is_available = getattr(getattr(torch, name, None), "is_available", None)
        if is_available is not None and is_available():
            return f"torch.{name}"
    current = torch.accelerator.current_accelerator(check_available=True)
    return f"torch device type {current.type}" if current is not None else None
