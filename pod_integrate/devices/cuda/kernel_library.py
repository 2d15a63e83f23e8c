"""A compiled variant, opened: the addresses that the host library launches through."""

from __future__ import annotations

import ctypes
import functools
from pathlib import Path
from typing import Literal, NamedTuple

from pod_integrate.errors import BuildError, KernelUnavailableError

Kernel = Literal["prefill", "decode", "fused", "merge"]
KERNELS: tuple[Kernel, ...] = ("prefill", "decode", "fused", "merge")


class KernelInfo(ctypes.Structure):
    """Registers and memory of one kernel as the driver reports them; see arguments.h."""

    _fields_ = [
        (name, ctypes.c_int)
        for name in ("registers", "static_smem", "dynamic_smem", "local_bytes", "ctas_per_sm")
    ]
    registers: int
    static_smem: int
    dynamic_smem: int
    local_bytes: int
    ctas_per_sm: int


class KernelLibrary(NamedTuple):
    """Functions of one variant's library; `launch` and `error` are addresses."""

    path: Path
    library: ctypes.CDLL
    launch: int
    error: int

    def info(self, kernel: Kernel, device: int = 0) -> KernelInfo:
        """What the driver says of a kernel on `device`, which the caller has made current.

        Raises KernelUnavailableError with the driver's words.
        """
        answer = KernelInfo()
        if self.library.pod_info(device, KERNELS.index(kernel), ctypes.byref(answer)) != 0:
            raise KernelUnavailableError(
                f"{self.path.name} does not run on cuda:{device}: {self.last_error()}"
            )
        return answer

    def stamp(self, plan: int, ring: int, width: int, index: int, stream: int) -> None:
        """Queue a stamp at `index` of the ring's row that the plan names; see stamp.cuh.

        plan, ring  addresses that the device can reach
        Raises KernelUnavailableError with the driver's words.
        """
        pointer = ctypes.c_void_p
        where = pointer(plan), pointer(ring)
        if self.library.pod_stamp(*where, width, index, pointer(stream)) != 0:
            raise KernelUnavailableError(f"{self.path.name} cannot stamp: {self.last_error()}")

    def last_error(self) -> str:
        """Text of this thread's last failed call."""
        self.library.pod_error.restype = ctypes.c_char_p
        return str((self.library.pod_error() or b"").decode())


def opened(path: Path, *names: str) -> ctypes.CDLL:
    """A library that was built; raises BuildError when it does not load or lacks a function."""
    try:
        library = ctypes.CDLL(str(path))
        for name in names:
            getattr(library, name)
    except (OSError, AttributeError) as problem:
        raise BuildError(f"{path} does not load: {problem}; delete it and build again") from problem
    return library


@functools.lru_cache(maxsize=256)
def load(path: Path) -> KernelLibrary:
    """Open a variant that was built; raises BuildError when it does not load."""
    library = opened(path, "pod_launch", "pod_error")
    launch, error = (_address(library, name) for name in ("pod_launch", "pod_error"))
    return KernelLibrary(path, library, launch, error)


def _address(library: ctypes.CDLL, name: str) -> int:
    address = ctypes.cast(getattr(library, name), ctypes.c_void_p).value
    assert address is not None
    return address
