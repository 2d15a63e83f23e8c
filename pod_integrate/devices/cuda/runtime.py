"""Streams of a device that runs the CUDA kernel: the GPU's own, or a stand-in for them."""

from __future__ import annotations

import abc
import contextlib
import ctypes
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import torch

_NOTHING: AbstractContextManager[None] = contextlib.nullcontext()
# Triton and inductor ask the same: an integer, without the Stream that torch.cuda makes each time.
_raw_stream: Callable[[int], int] | None = getattr(torch._C, "_cuda_getCurrentRawStream", None)


class Runtime(abc.ABC):
    """What a launch asks of the CUDA runtime.

    place   where tensors live
    pinned  whether copies from page-locked memory go on without the host
    """

    place: torch.device
    pinned: bool

    @abc.abstractmethod
    def current(self) -> AbstractContextManager[None]:
        """Make the device the current one."""

    @abc.abstractmethod
    def stream(self) -> int:
        """Handle of the current stream."""

    @abc.abstractmethod
    def side_stream(self) -> int:
        """Handle of a second stream, this device's own."""

    @abc.abstractmethod
    def is_capturing(self) -> bool:
        """Whether the current stream is being captured into a graph."""

    def background(self) -> AbstractContextManager[None]:
        """A stream of its own for one thread, of the least priority there is; waited for.

        Nothing that the thread does in it breaks a capture of another one.
        """
        return _NOTHING


class CudaRuntime(Runtime):
    """torch's streams of one GPU."""

    pinned = True

    def __init__(self, place: torch.device) -> None:
        self.place = place
        self._side: torch.cuda.Stream | None = None
        self._quiet: torch.cuda.Stream | None = None

    def current(self) -> AbstractContextManager[None]:
        # Entering a device asks the driver twice, though it nearly always is the current one.
        here = torch.cuda.current_device() == self.place.index
        return _NOTHING if here else torch.cuda.device(self.place)

    def stream(self) -> int:
        if _raw_stream is not None:
            return _raw_stream(self.place.index)
        return int(torch.cuda.current_stream(self.place).cuda_stream)

    def side_stream(self) -> int:
        if self._side is None:
            # torch leaves Stream untyped.
            self._side = torch.cuda.Stream(self.place)
        return int(self._side.cuda_stream)

    def is_capturing(self) -> bool:
        return torch.cuda.is_current_stream_capturing()

    @contextlib.contextmanager
    def background(self) -> Iterator[None]:
        if self._quiet is None:
            # Streams of torch have the least priority unless told otherwise.
            self._quiet = torch.cuda.Stream(self.place)
        with _captures_left_alone(), torch.cuda.device(self.place), torch.cuda.stream(self._quiet):
            yield
            self._quiet.synchronize()


# CU_STREAM_CAPTURE_MODE_RELAXED: calls that allocate are allowed while another thread captures.
_RELAXED = 2


@contextlib.contextmanager
def _captures_left_alone() -> Iterator[None]:
    """A capture of another thread in its global mode survives what this thread asks CUDA for."""
    # The driver's own function, since torch has none; what it exchanges belongs to the thread.
    exchange = ctypes.CDLL("libcuda.so.1").cuThreadExchangeStreamCaptureMode
    mode = ctypes.c_int(_RELAXED)
    exchange(ctypes.byref(mode))
    try:
        yield
    finally:
        exchange(ctypes.byref(mode))
