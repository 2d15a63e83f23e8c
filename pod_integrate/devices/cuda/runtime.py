"""Streams of a device that runs the CUDA kernel: the GPU's own, or a stand-in for them."""

from __future__ import annotations

import abc
import contextlib
from collections.abc import Callable
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


class CudaRuntime(Runtime):
    """torch's streams of one GPU."""

    pinned = True

    def __init__(self, place: torch.device) -> None:
        self.place = place
        self._side: torch.cuda.Stream | None = None

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
