"""Inputs of the conformance kernel, and its run on one machine."""

from __future__ import annotations

import ctypes
import math
from pathlib import Path
from typing import NamedTuple

import torch

from benchmarks.gpu.common.machines import Cuda
from benchmarks.gpu.correctness import conformance_build
from benchmarks.gpu.correctness.conformance_tiles import (
    DTYPES,
    Tiles,
    make_tiles,
    operands,
    pack_tiles,
)
from pod_integrate.devices.cuda.kernel_library import opened
from pod_integrate.errors import KernelUnavailableError

_SIZES = ("values", "words", "products", "counters", "tiles")
_POISON = 0x5A5A5A5A
_MIN_NORMAL = 2.0**-126
EMULATED_SMS = 4


class Layout(NamedTuple):
    """What a library says of itself: sizes of its inputs, and words of each section of output.

    A section of no words is of a wrapper that the library's target lacks.
    """

    sizes: dict[str, int]
    sections: dict[str, int]


class Inputs(NamedTuple):
    """Bits as int32 tensors.

    values  [n] floats
    words   [n] never 0 and never ~0
    a, b, c [products, 16, 16], [products, 16, 8], [products, 16, 8] by dtype; floats that the
            dtype holds exactly. The first half of the products is of small integers and special
            values, so that the sum is exact in any order.
    tiles   operands of wgmma
    """

    values: torch.Tensor
    words: torch.Tensor
    a: dict[str, torch.Tensor]
    b: dict[str, torch.Tensor]
    c: dict[str, torch.Tensor]
    tiles: Tiles


class _Arguments(ctypes.Structure):
    _fields_ = [
        ("values", ctypes.c_void_p),
        ("words", ctypes.c_void_p),
        ("mma", ctypes.c_void_p * 2),
        ("a", ctypes.c_void_p * 2),
        ("b", ctypes.c_void_p * 2),
        ("c", ctypes.c_void_p),
        ("out", ctypes.c_void_p),
        ("counters", ctypes.c_void_p),
        ("stream", ctypes.c_void_p),
    ]


class Library:
    """An opened conformance library."""

    def __init__(self, path: Path) -> None:
        texts = ("pod_conformance_layout", "pod_error")
        self._library = opened(path, *texts)
        for name in texts:
            getattr(self._library, name).restype = ctypes.c_char_p
        lines = self._library.pod_conformance_layout().decode().splitlines()
        pairs = {name: int(words) for name, words in (line.split() for line in lines)}
        sizes = {name: pairs.pop(name) for name in _SIZES}
        self.layout = Layout(sizes, pairs)

    def configure_emulator(self, *, num_sms: int, order: int, copies: int, seed: int) -> None:
        """Schedule of an emulator's library; the numbers of pod_emulator_configure."""
        self._library.pod_emulator_configure(num_sms, 2, order, copies, 10, seed)

    def run(self, inputs: Inputs, device: torch.device, stream: int = 0) -> dict[str, torch.Tensor]:
        """Every section of output as int32 on the host; raises KernelUnavailableError.

        device  where the library's kernels run; the CPU for the emulator
        stream  handle of the CUDA stream that they run on, which the emulator has none of
        """
        held = [inputs.values, inputs.words, *(pack_products(inputs, name) for name in DTYPES)]
        held += pack_tiles(inputs.tiles)
        held = [tensor.contiguous().to(device) for tensor in held]
        total = sum(self.layout.sections.values())
        out = torch.full((total,), _POISON, dtype=torch.int32, device=device)
        counters = torch.full(
            (self.layout.sizes["counters"],), _POISON, dtype=torch.int32, device=device
        )
        pair = ctypes.c_void_p * 2
        values, words, *by_dtype, c = (tensor.data_ptr() for tensor in held)
        arguments = _Arguments(
            *(values, words, *(pair(*by_dtype[i : i + 2]) for i in (0, 2, 4)), c),
            *(out.data_ptr(), counters.data_ptr(), stream),
        )
        if self._library.pod_conformance(ctypes.byref(arguments)) != 0:
            text = self._library.pod_error().decode()
            raise KernelUnavailableError(f"the conformance kernel did not run on {device}: {text}")
        host = out.cpu()
        parts = torch.split(host, list(self.layout.sections.values()))
        return dict(zip(self.layout.sections, parts, strict=True))


def make_inputs(layout: Layout, seed: int) -> Inputs:
    """Seeded inputs of the sizes that a library asks for."""
    generator = torch.Generator().manual_seed(seed)
    words = torch.randint(1, 2**31 - 1, (layout.sizes["words"],), generator=generator)
    products = {name: _products(layout.sizes["products"], generator, name) for name in DTYPES}
    return Inputs(
        values=bits(_values(layout.sizes["values"], generator)),
        words=words.to(torch.int32),
        a={name: abc[0] for name, abc in products.items()},
        b={name: abc[1] for name, abc in products.items()},
        c={name: abc[2] for name, abc in products.items()},
        tiles=make_tiles(layout.sizes["tiles"], generator),
    )


def bits(values: torch.Tensor) -> torch.Tensor:
    """float32 as int32 of the same bits."""
    return values.contiguous().view(torch.int32)


def floats(words: torch.Tensor) -> torch.Tensor:
    """Inverse of bits."""
    return words.contiguous().view(torch.float32)


def _values(count: int, generator: torch.Generator) -> torch.Tensor:
    """Special values, ties and overflows of both 16-bit types, then ranges of ordinary ones."""
    special = [0.0, -0.0, math.inf, -math.inf, math.nan, 1.0, -1.0, 0.5, 2.0, 3.4028235e38]
    special += [_MIN_NORMAL, -_MIN_NORMAL, _MIN_NORMAL / 2, 2.0**-149, -126.0, -127.0, -149.0]
    special += [65504.0, 65519.996, 65520.0, 65536.0, 2.0**-14, 2.0**-24, 2.0**-25, 6.1e-5]
    special += [127.999, 128.0, 0.99999994, 1.0000001, 2.0**-130, -(2.0**-140), 1e-40]
    wide = _uniform(count // 4, -160.0, 130.0, generator)
    near = _uniform(count // 8, 0.25, 4.0, generator)
    scales = 2.0 ** _uniform(count // 4, -126.0, 127.0, generator)
    patterns = torch.randint(-(2**31), 2**31 - 1, (count // 8,), generator=generator)
    # Halfway between two bf16 values, then between two fp16 values, and one unit beside.
    upper = torch.randint(0x3000, 0x4700, (count // 16,), generator=generator) << 16
    offsets = torch.tensor([0x8000, 0x7FFF, 0x8001, 0x1000, 0x0FFF, 0x1001, 0x3000, 0x18000])
    ties = upper + offsets.repeat(-(-len(upper) // 8))[: len(upper)]
    parts = [torch.tensor(special), wide, near, scales, floats(patterns.to(torch.int32))]
    parts.append(floats(ties.to(torch.int32)))
    mixed = torch.cat(parts)
    rest = torch.randn(count - len(mixed), generator=generator)
    return torch.cat([mixed, rest])[torch.randperm(count, generator=generator)]


def _uniform(count: int, low: float, high: float, generator: torch.Generator) -> torch.Tensor:
    return torch.rand(count, generator=generator) * (high - low) + low


def _products(
    count: int, generator: torch.Generator, dtype: str
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    exact, random = operands(count, ((16, 16), (16, 8), (16, 8)), generator)
    # One row with an infinity, one with a NaN, one that starts from an infinite sum.
    exact[0][0, 3, 5], exact[0][0, 7, 1], exact[2][0, 9, 2] = math.inf, math.nan, -math.inf
    exact[1][0, 5] = 1.0
    random[2] *= 8.0
    a, b = (
        torch.cat([e, r.to(DTYPES[dtype]).float()])
        for e, r in zip(exact[:2], random[:2], strict=True)
    )
    return a, b, torch.cat([exact[2], random[2]])


def pack_products(inputs: Inputs, dtype: str) -> torch.Tensor:
    """Registers [products, 10, 32] by the fragment layout that ptx/mma.cuh states."""
    a, b = (side[dtype].to(DTYPES[dtype]).view(torch.int16).int() for side in (inputs.a, inputs.b))
    lane = torch.arange(32)
    g, t = lane // 4, lane % 4
    quarters = ((0, 0), (8, 0), (0, 8), (8, 8))
    halves = [[a[:, g + row, 2 * t + column + i] for i in (0, 1)] for row, column in quarters]
    halves += [[b[:, 2 * t + row + i, g] for i in (0, 1)] for row in (0, 8)]
    packed = [(low & 0xFFFF) | (high << 16) for low, high in halves]
    c = inputs.c[dtype]
    sums = [bits(c[:, g + row, 2 * t + i]) for row in (0, 8) for i in (0, 1)]
    return torch.stack([*packed, *sums], dim=1)


def unpack_sums(words: torch.Tensor) -> torch.Tensor:
    """Floats [products, 16, 8] of a dumped mma section."""
    registers = floats(words).view(-1, 4, 32)
    lane = torch.arange(32)
    g, t = lane // 4, lane % 4
    out = torch.empty(registers.shape[0], 16, 8)
    for i in range(4):
        out[:, g + 8 * (i // 2), 2 * t + i % 2] = registers[:, i]
    return out


def _on_gpu(_: Library, inputs: Inputs, __: int) -> tuple[dict[str, torch.Tensor], int]:
    """Output and SMs of the current GPU."""
    machine = Cuda()
    library = Library(conformance_build.build_gpu(machine.arch))
    stream = torch.cuda.current_stream(machine.device).cuda_stream
    return library.run(inputs, machine.device, stream), machine.sms


def _rescheduled(
    emulator: Library, inputs: Inputs, seed: int
) -> tuple[dict[str, torch.Tensor], int]:
    """Output and SMs of the emulator under another schedule."""
    emulator.configure_emulator(num_sms=EMULATED_SMS, order=2, copies=1, seed=seed)
    return emulator.run(inputs, torch.device("cpu")), EMULATED_SMS


# What an emulator is compared with.
OTHERS = {"cuda": _on_gpu, "emulator": _rescheduled}
