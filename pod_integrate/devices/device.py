"""What runs the op here: GPU or instruction set and threads, and the DeviceKey made of them."""

from __future__ import annotations

import functools
import os
import platform
import re
from pathlib import Path

import torch

from pod_integrate import settings
from pod_integrate.builds import native, nvcc
from pod_integrate.devices.cuda import limits
from pod_integrate.errors import KernelUnavailableError, SettingsError
from pod_integrate.terms.keys import DeviceKey

# Best first; the index is what the native library takes.
ISAS = ("avx512", "avx2", "portable")
_AVX2 = {"avx2", "fma", "f16c"}
_AVX512 = _AVX2 | {"avx512f", "avx512bw", "avx512dq", "avx512vl"}


def device_key(device: torch.device, threads: int | None = None) -> DeviceKey:
    """Key of `device` as the op would use it now; `threads` overrides num_threads().

    Raises KernelUnavailableError for a device without a kernel, SettingsError on a malformed
    POD_ATTN_ISA or POD_ATTN_THREADS.
    """
    if device.type == "cuda":
        _require_gpu(device)
        return _cuda_key(torch.cuda.current_device() if device.index is None else device.index)
    if device.type != "cpu":
        raise kernel_unavailable(device)
    return DeviceKey(_cpu_name(), isa(), num_threads() if threads is None else threads)


def kernel_build(device: torch.device) -> str:
    """Identity of the kernel that runs on `device`; results are filed under it."""
    return nvcc.build_id() if device.type == "cuda" else native.build_id("cpu")


def num_threads() -> int:
    """Threads the CPU kernel uses: POD_ATTN_THREADS, else torch.get_num_threads()."""
    forced = os.environ.get("POD_ATTN_THREADS")
    return _forced_threads(forced) if forced else torch.get_num_threads()


def isa() -> str:
    """Instruction set of the CPU kernel: the best this machine has, or POD_ATTN_ISA."""
    return _isa(os.environ.get("POD_ATTN_ISA") or None)


def kernel_unavailable(device: torch.device) -> KernelUnavailableError:
    """The error for a kind of device that has no kernel."""
    return KernelUnavailableError(
        f"no kernel runs on {device}: there is one for NVIDIA GPUs and one for CPUs. Move the "
        "tensors to one of them, or serve with SGLANG_PLATFORM=pod_cpu"
    )


def _require_gpu(device: torch.device) -> None:
    # HIP devices call themselves "cuda" in torch.
    if torch.version.hip is not None:
        raise kernel_unavailable(torch.device("hip"))
    if not torch.cuda.is_available():
        raise KernelUnavailableError(
            f"no kernel runs on {device}: torch {torch.__version__} finds no NVIDIA GPU here. "
            "Install the driver or a CUDA build of torch, or move the tensors to the CPU"
        )


@functools.lru_cache(maxsize=64)
def _cuda_key(index: int) -> DeviceKey:
    properties = torch.cuda.get_device_properties(index)
    capability = f"sm{properties.major}{properties.minor}"
    limits.architecture(capability)
    return DeviceKey(
        _printable(properties.name) or "gpu", capability, properties.multi_processor_count
    )


@functools.lru_cache(maxsize=8)
def _forced_threads(value: str) -> int:
    # The whole environment is parsed so that one place knows the limits; `value` keys the cache.
    threads = settings.load().threads
    assert threads is not None, value
    return threads


@functools.lru_cache(maxsize=8)
def _isa(forced: str | None) -> str:
    best = _best_isa()
    if forced is None:
        return best
    wanted = settings.load().isa
    assert wanted is not None
    if ISAS.index(wanted) < ISAS.index(best):
        raise SettingsError(
            f"POD_ATTN_ISA={wanted}: this CPU offers {best} at most; unset it or choose a lower one"
        )
    return wanted


def _best_isa() -> str:
    flags = set(_cpuinfo().get("flags", "").split())
    if platform.machine() == "x86_64" and flags >= _AVX512:
        return "avx512"
    if platform.machine() == "x86_64" and flags >= _AVX2:
        return "avx2"
    return "portable"


@functools.lru_cache(maxsize=1)
def _cpu_name() -> str:
    name = _cpuinfo().get("model name") or platform.processor() or platform.machine() or "cpu"
    return _printable(name) or "cpu"


def _printable(name: str) -> str:
    name = re.sub(r"\((?:r|tm)\)", "", name.lower())
    return re.sub(r"[^a-z0-9_.+]+", "-", name).strip("-._+")[:80].rstrip("-")


@functools.lru_cache(maxsize=1)
def _cpuinfo() -> dict[str, str]:
    """First processor's fields; empty where the system has no /proc/cpuinfo."""
    path = Path("/proc/cpuinfo")
    if not path.exists():
        return {}
    first = path.read_text().split("\n\n", 1)[0]
    pairs = (line.split(":", 1) for line in first.splitlines() if ":" in line)
    return {key.strip(): value.strip() for key, value in pairs}
