"""Tensors of the emulated GPU: reading or writing past their end stops the call with a report."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager

import torch

_POISON = 0xFF


class GuardedMemory:
    """Blocks that end, rounded up to 16 bytes, at an unreadable page; freed together."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._library = library
        self._blocks: list[tuple[int, int]] = []
        library.pod_emulator_guarded.restype = ctypes.c_void_p
        library.pod_emulator_guarded.argtypes = [ctypes.c_int64]
        library.pod_emulator_release.argtypes = [ctypes.c_void_p, ctypes.c_int64]

    def poisoned(self, count: int, dtype: torch.dtype) -> torch.Tensor:
        """`count` elements, all bits set: NaN in every floating type."""
        size = max(1, count) * dtype.itemsize
        address = self._library.pod_emulator_guarded(size)
        if address is None:
            raise MemoryError(f"no guarded memory of {size} bytes left")
        self._blocks.append((address, size))
        ctypes.memset(address, _POISON, size)
        block = (ctypes.c_uint8 * size).from_address(address)
        return torch.frombuffer(block, dtype=dtype)[:count]

    def copy(self, tensor: torch.Tensor) -> torch.Tensor:
        """The tensor with its strides; what lies between its elements comes along."""
        pairs = zip(tensor.shape, tensor.stride(), strict=True)
        span = 1 + sum((n - 1) * stride for n, stride in pairs) if tensor.numel() else 0
        flat = self.poisoned(span, tensor.dtype)
        flat.copy_(tensor.as_strided((span,), (1,)))
        return flat.as_strided(tensor.shape, tensor.stride())

    def release(self) -> None:
        """Unmap every block; its tensors must not be used any more."""
        for address, size in self._blocks:
            self._library.pod_emulator_release(address, size)


@contextmanager
def guarded_memory(library: ctypes.CDLL) -> Iterator[GuardedMemory]:
    """Guarded memory of an emulated variant's library, until the block ends."""
    memory = GuardedMemory(library)
    try:
        yield memory
    finally:
        memory.release()
