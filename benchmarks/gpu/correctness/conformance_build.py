"""Compiles kernels/conformance for a GPU (nvcc) and for the emulated SM (a C++ compiler)."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from pathlib import Path

from pod_integrate.builds import cache, native, nvcc
from pod_integrate.devices.cuda.limits import Architecture

_NVCC_FLAGS = (
    "-std=c++17 -O3 -shared -cudart static -Xcompiler -fPIC,-fvisibility=hidden "
    "-Werror all-warnings"
).split()
_HOST_FLAGS = (
    "-std=c++17 -O2 -fPIC -shared -pthread -fvisibility=hidden -fno-gnu-unique -Wall -Wextra "
    "-Wno-unknown-pragmas"
).split()


# Tells the sources that the target has wgmma and setmaxnreg.
_WGMMA_FLAG = "-DPOD_CONFORMANCE_WGMMA"
WGMMA_ARCH = "sm_90a"
# And that it converts e4m3.
_WIDENS_FLAG = "-DPOD_CONFORMANCE_WIDENS"
_WIDENS_FROM = (8, 9)


def build_gpu(arch: Architecture) -> Path:
    """The library for `arch`; raises BuildError with nvcc's output, or when there is no nvcc."""
    target = arch.name.removeprefix("sm_")
    flags = [*_NVCC_FLAGS, "-gencode", f"arch=compute_{target},code=sm_{target}"]
    if arch.name == WGMMA_ARCH:
        flags.append(_WGMMA_FLAG)
    if arch.capability >= _WIDENS_FROM:
        flags.append(_WIDENS_FLAG)
    path = _place(f"libpod_conformance_{arch.name}.so", flags)
    return cache.build_once(
        path, lambda to: _compile([str(nvcc.find_nvcc()), *flags, str(_source())], to)
    )


def build_emulator() -> Path:
    """The library for the emulated SM; raises BuildError with the compiler's output."""
    # The portable half conversions of the emulator need F16C to be quick, not to be right.
    wide = ["-march=x86-64-v3"] if platform.machine() == "x86_64" else []
    root = native.sources_dir()
    engine = [str(source) for source in sorted((root / "emulator" / "src").glob("*.cpp"))]
    flags = [*_HOST_FLAGS, *wide, _WGMMA_FLAG, _WIDENS_FLAG, f"-I{root / 'emulator' / 'include'}"]
    command = [cache.host_compiler(), *flags, "-x", "c++", str(_source()), *engine]
    return cache.build_once(
        _place("libpod_conformance_emulator.so", flags), lambda to: _compile(command, to)
    )


def _source() -> Path:
    return native.sources_dir() / "conformance" / "conformance.cu"


def _place(name: str, flags: Sequence[str]) -> Path:
    root = native.sources_dir()
    parts = [
        cache.digest([root / folder], (".cu", ".cuh", ".h", ".cpp"), flags)[:5]
        for folder in ("conformance", "cuda", "emulator")
    ]
    return cache.directory() / f"conformance-{''.join(parts)}" / name


def _compile(command: Sequence[str], output: Path) -> None:
    include = f"-I{native.sources_dir() / 'cuda' / 'include'}"
    cache.compile_whole([*command, include], output)
