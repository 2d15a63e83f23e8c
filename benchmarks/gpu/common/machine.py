"""What a result was measured on."""

from __future__ import annotations

import datetime
import platform
import subprocess
import sys
from typing import Any

import torch

from pod_integrate.builds import native, nvcc
from pod_integrate.devices.registry import has_gpu
from pod_integrate.errors import PodAttentionError

_SMI_SECONDS = 20
_CLOCKS = (
    "clocks.sm,clocks.mem,clocks.max.sm,clocks_event_reasons.active,power.draw,temperature.gpu"
)


def report() -> dict[str, Any]:
    """Device, driver, versions, builds and clocks; what cannot be read is said in its place."""
    document: dict[str, Any] = {
        "utc": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "python": sys.version.split()[0],
        "torch": torch.__version__,
        "torch_cuda": torch.version.cuda,
        "system": platform.platform(),
        "host_build": native.build_id("host"),
        "kernel_build": nvcc.library_id(),
        "nvcc": _nvcc(),
        "driver": smi("driver_version,name,memory.total"),
        "clocks": clocks(),
    }
    if has_gpu():
        document["device"] = _device()
    return document


def clocks() -> str:
    """SM and memory clock, limits and temperature now, in the order of nvidia-smi's query."""
    return smi(_CLOCKS)


def smi(fields: str) -> str:
    """One nvidia-smi query as CSV, or why there is none."""
    command = ["nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader"]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_SMI_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"nvidia-smi: {error}"
    return (done.stdout or done.stderr).strip()


def _nvcc() -> str:
    try:
        path = nvcc.find_nvcc()
        return f"{path} {'.'.join(map(str, nvcc.nvcc_version(path)))}"
    except PodAttentionError as error:
        return str(error)


def _device() -> dict[str, Any]:
    properties = torch.cuda.get_device_properties(torch.cuda.current_device())
    names = ("name", "major", "minor", "multi_processor_count", "total_memory", "L2_cache_size")
    return {name: getattr(properties, name, None) for name in names}
