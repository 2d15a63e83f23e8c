"""Operands of the conformance kernel's wgmma: whole tiles, A [64, 64] B [64, 256] + C."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch

from pod_integrate.devices.cuda import variants
from pod_integrate.terms.geometry import TORCH_DTYPES

DTYPES: dict[str, torch.dtype] = {name: TORCH_DTYPES[name] for name in variants.DTYPES}
ROWS, DEPTH, COLUMNS = 64, 64, 256


class Tiles(NamedTuple):
    """Floats that the dtype holds exactly; the first half of the pairs of small integers.

    a  [n, 64, 64] by dtype
    b  [n, 64, 256] by dtype
    c  [n, 64, 256]
    """

    a: dict[str, torch.Tensor]
    b: dict[str, torch.Tensor]
    c: torch.Tensor


def operands(
    count: int, shapes: Sequence[tuple[int, int]], generator: torch.Generator
) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Of each shape half of `count` in whole numbers, whose sums are exact, and the rest normal."""
    half = count // 2
    exact = [torch.randint(-8, 9, (half, *shape), generator=generator).float() for shape in shapes]
    return exact, [torch.randn(count - half, *shape, generator=generator) for shape in shapes]


def make_tiles(count: int, generator: torch.Generator) -> Tiles:
    """Pairs whose sums are exact in any order, then ordinary ones; infinity and NaN in pair 1."""
    shapes = ((ROWS, DEPTH), (DEPTH, COLUMNS), (ROWS, COLUMNS))
    exact, normal = operands(count, shapes, generator)
    for pair in exact[0][1:]:
        pair[3, 5], pair[17, 40] = math.inf, math.nan
    sides = []
    for whole, ordinary in zip(exact[:2], normal[:2], strict=True):
        rounded = {name: ordinary.to(dtype).float() for name, dtype in DTYPES.items()}
        sides.append({name: torch.cat([whole, part]) for name, part in rounded.items()})
    a, b = sides
    return Tiles(a, b, torch.cat([exact[2], 8 * normal[2]]))


def pack_tiles(tiles: Tiles) -> list[torch.Tensor]:
    """What the kernel's arguments point to: A by dtype, B by dtype, C."""
    sides = [side[name].to(dtype) for side in (tiles.a, tiles.b) for name, dtype in DTYPES.items()]
    return [*sides, tiles.c]


def magnitudes(tiles: Tiles, section: str) -> torch.Tensor:
    """Sums of magnitudes [n, 64, columns], by which sums of a section may be off; in double.

    section  odd pairs of wgmma_ss start from nothing instead of C
    """
    a, b, c = operands_of(tiles, section)
    return c.abs() + a.abs() @ b.abs()


def operands_of(tiles: Tiles, section: str) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """A, B and C of a section in double, e.g. of `wgmma_rs:bf16_n128`, or `.._rows64_n96`.

    What follows the dtype but its columns is how the tiles lie.
    """
    wrapper, kind = section.split(":")
    dtype, *_, columns = kind.split("_")
    c = tiles.c[..., : int(columns[1:])].double()
    if wrapper == "wgmma_ss":
        c[1::2] = 0
    return tiles.a[dtype].double(), tiles.b[dtype][..., : c.shape[-1]].double(), c
