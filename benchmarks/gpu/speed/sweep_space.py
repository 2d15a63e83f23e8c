"""Configs that the sweep and the numbers try: a few compiled variants times run-time settings."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

from pod_integrate.devices.cuda import variants
from pod_integrate.devices.cuda.limits import Architecture, default_tiles, require_fits
from pod_integrate.devices.cuda.variants import Variant, with_tiles
from pod_integrate.errors import ConfigInfeasibleError
from pod_integrate.terms.config import PodConfig, TileConfig
from pod_integrate.terms.keys import Geometry

_HEAD_DIM = 128
RATIOS = ((0, 0), (1, 1), (1, 2), (1, 4), (2, 1))
WAVES = (1, 2, 4, 0)
SPLITS = (0, 512, 1024, 2048, 4096)
# Settings that only help together: long decode items where at least half of the CTAs are decodes.
_TOGETHER: tuple[dict[str, Any], ...] = (
    {"prefill_ctas": 1, "decode_ctas": 2, "max_prefill_waves": 0, "decode_split_tokens": 4096},
    {"prefill_ctas": 1, "decode_ctas": 1, "decode_split_tokens": 0},
)
# prefill (q_rows, kv_rows, stages, warps), decode likewise, CTAs per SM, decode items per CTA.
_TILES = (
    ((128, 64, 2, 4), (16, 128, 1, 4), 2, 1),
    ((128, 64, 2, 4), (16, 64, 2, 4), 2, 1),
    ((128, 64, 1, 4), (16, 128, 1, 4), 2, 1),
    ((128, 64, 1, 4), (16, 192, 1, 4), 2, 1),
    ((128, 64, 2, 4), (16, 192, 1, 4), 2, 1),
    ((64, 64, 1, 4), (16, 128, 1, 4), 3, 1),
    ((64, 64, 1, 4), (16, 64, 2, 4), 3, 1),
    ((128, 64, 1, 4), (16, 64, 2, 2), 2, 2),
    ((128, 64, 1, 8), (16, 64, 2, 4), 2, 2),
    ((128, 32, 2, 4), (16, 64, 2, 4), 2, 1),
    ((64, 64, 1, 4), (16, 64, 1, 4), 3, 1),
    ((64, 64, 2, 4), (16, 64, 2, 4), 2, 1),
)


def sweep_variants(arch: Architecture) -> list[Variant]:
    """bf16, head dim 128: the shipped ones and the tiles above, as far as they fit."""
    found = [v for v in variants.shipped(arch) if v.dtype == "bf16" and v.head_dim == _HEAD_DIM]
    for prefill, decode, ctas, virtual in _TILES:
        config = PodConfig(
            prefill=_tile(*prefill),
            decode=_tile(*decode),
            ctas_per_sm=ctas,
            virtual_decode=virtual,
        )
        if _fits(config, arch):
            variant = Variant.of(config, _geometry())
            if variant not in found:
                found.append(variant)
    return found


def few(arch: Architecture, head_dim: int) -> list[PodConfig]:
    """Configs that every case is timed with: the default first, then one change each."""
    base = default_tiles(arch, head_dim)
    changes: tuple[dict[str, Any], ...] = (
        {},
        {"prefill_ctas": 1, "decode_ctas": 1},
        {"decode_split_tokens": 0},
        {"decode_split_tokens": 1024},
        {"decode_split_tokens": 4096},
        {"max_prefill_waves": 0},
        {"max_prefill_waves": 2},
        *_TOGETHER,
    )
    configs = [dataclasses.replace(base, **change) for change in changes]
    if head_dim == _HEAD_DIM:
        for variant in sweep_variants(arch):
            tiles = with_tiles(base, variant)
            configs += [tiles, *(dataclasses.replace(tiles, **change) for change in _TOGETHER)]
    return list(dict.fromkeys(configs))


def settings() -> Iterator[dict[str, Any]]:
    """Every combination of the run-time settings."""
    for prefill, decode in RATIOS:
        for waves in WAVES:
            for split in SPLITS:
                yield {
                    "prefill_ctas": prefill,
                    "decode_ctas": decode,
                    "max_prefill_waves": waves,
                    "decode_split_tokens": split,
                }


def _tile(q_rows: int, kv_rows: int, stages: int, warps: int) -> TileConfig:
    return TileConfig(q_rows=q_rows, kv_rows=kv_rows, stages=stages, warps=warps)


def _fits(config: PodConfig, arch: Architecture) -> bool:
    try:
        require_fits(config, arch, _HEAD_DIM)
    except ConfigInfeasibleError:
        return False
    return True


def _geometry() -> Geometry:
    return Geometry.uniform((8, 1, _HEAD_DIM), "bf16")
