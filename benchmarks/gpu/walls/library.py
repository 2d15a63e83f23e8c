"""kernels/walls compiled by nvcc, and one launch of it."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Sequence
from pathlib import Path

import torch

from benchmarks.gpu.walls.requests import Corun, Record, Request, Stream
from pod_integrate.builds import cache, native, nvcc
from pod_integrate.devices.cuda.kernel_library import opened
from pod_integrate.errors import KernelUnavailableError

ARCH = "sm_90a"
MOST_WARPS = 16
_TARGET = ARCH.removeprefix("sm_")
_FLAGS = (
    "-std=c++17 -O3 -lineinfo -shared -cudart static -Xcompiler -fPIC,-fvisibility=hidden "
    f"--resource-usage -Werror all-warnings -gencode arch=compute_{_TARGET},code={ARCH}"
).split()


def path() -> Path:
    """Where this machine keeps the library; the text that ptxas wrote lies beside it."""
    root = native.sources_dir()
    parts = [
        cache.digest([root / folder], (".cu", ".cuh", ".h"), _FLAGS)[:5]
        for folder in ("walls", "cuda")
    ]
    return cache.directory() / f"walls-{''.join(parts)}" / f"libpod_walls_{ARCH}.so"


def build() -> Path:
    """Compile unless it is there; raises BuildError with nvcc's output, or without nvcc."""
    return cache.build_once(path(), _compile)


def compiler_said(library: Path) -> str:
    """What nvcc and ptxas printed when they made the library."""
    return library.with_suffix(".txt").read_text()


def _compile(output: Path) -> None:
    root = native.sources_dir()
    new = output.with_suffix(".new")
    command = [
        *(str(nvcc.find_nvcc()), *_FLAGS, "-ccbin", cache.host_compiler()),
        *("-I", str(root / "cuda" / "include"), str(root / "walls" / "walls.cu"), "-o", str(new)),
    ]
    output.with_suffix(".txt").write_text(cache.said_by(command))
    os.replace(new, output)


class Library:
    """The opened library."""

    def __init__(self, library: Path) -> None:
        texts = ("pod_walls_kernels", "pod_error")
        self._library = opened(library, *texts)
        for name in texts:
            getattr(self._library, name).restype = ctypes.c_char_p
        self.kernels: Sequence[str] = self._library.pod_walls_kernels().decode().split()
        sizes = (ctypes.c_int * 4)()
        self._library.pod_walls_sizes(sizes)
        # A structure that differs from the sources' would be read past its end.
        assert list(sizes) == [ctypes.sizeof(s) for s in (Request, Stream, Corun, Record)]

    def run(self, kernel: str, request: Request, records: torch.Tensor) -> None:
        """Launch on the current stream; raises KernelUnavailableError.

        records  [ctas, MOST_WARPS, 5] int64 on the device, zeroed here
        """
        request.ctas = records.shape[0]
        records.zero_()
        request.records = records.data_ptr()
        request.stream = torch.cuda.current_stream(records.device).cuda_stream
        error = self.launch(kernel, request)
        if error:
            raise KernelUnavailableError(f"{kernel}: {error}")

    def launch(self, kernel: str, request: Request) -> str:
        """Launch what the request points to; what is wrong, or nothing."""
        request.kernel = self.kernels.index(kernel)
        failed = self._library.pod_walls_run(ctypes.byref(request))
        return self._library.pod_error().decode() if failed else ""
