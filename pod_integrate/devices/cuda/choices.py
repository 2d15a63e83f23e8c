"""What is worth trying on a GPU."""

from __future__ import annotations

import dataclasses

from pod_integrate.devices.base import Choices, OneOf, Range, Target
from pod_integrate.devices.cuda.architectures import architecture
from pod_integrate.devices.cuda.decode_rows import FEW_ROWS
from pod_integrate.devices.cuda.engines import pair_decodes
from pod_integrate.devices.cuda.variants import Variant, shipped, with_tiles
from pod_integrate.errors import ConfigError
from pod_integrate.terms.config import PodConfig
from pod_integrate.terms.keys import ELEMENT_BYTES, Geometry

# Tiles mean the same at any dtype and head dim.
_ANY_VARIANT = "bf16-d128-"
_TILES_FIRST = 6
# Decode tiles of 8 query rows, where a GPU decodes on wgmma: for groups of up to 8 heads, half of
# whose tile of 16 is empty.
_OF_8 = (
    "p128x64s2w4-d8x192s1w4-c2-v1",
    "p128x64s2w4-d8x128s1w4-c2-v1",
)
PAIRS_OF_8 = (
    "p128x128s2w8-d8x64s1w4-c1-v1",
    "p128x96s2w8-d8x64s2w4-c1-v1",
    "p128x128s2w8-d8x128s2w4-c1-v1",
)
# CTAs that hold an SM and run both ops at once, where a GPU has them: docs/hopper.md.
PAIRS = (
    "p128x128s2w8-d16x64s1w4-c1-v1",
    "p128x96s2w8-d16x64s2w4-c1-v1",
    "p128x128s2w8-d16x128s2w4-c1-v1",
    *PAIRS_OF_8,
)
# The same at head dim 256, where such CTAs run one op at a time and the CTA ratio counts.
PAIRS_IN_TURN = (
    "p128x64s2w8-d16x64s1w4-c1-v1",
    "p128x64s2w8-d8x64s1w4-c1-v1",
)
# What head dims below 128 have room for: CTAs that run both ops and, at 96, the default's; at 128
# over 8 bits it is the default's, too.
PAIRS_BELOW_128 = (
    "p128x128s2w8-d16x128s1w4-c1-v1",
    "p128x128s2w8-d8x128s1w4-c1-v1",
)
_BELOW_128 = (
    "p128x64s2w4-d16x256s1w4-c2-v1",
    "p128x64s2w4-d8x256s1w4-c2-v1",
    *PAIRS_BELOW_128,
)
# Large tiles with few CTAs to small tiles with many; what does not fit an architecture or head dim
# is refused without a build. New ones go to the end: stored trials keep their meaning.
TILES = (
    "p128x64s2w4-d16x192s1w4-c2-v1",
    "p128x64s2w4-d16x128s1w4-c2-v1",
    "p64x64s1w4-d16x128s1w4-c3-v1",
    "p128x64s1w4-d16x64s2w4-c2-v1",
    "p128x64s2w4-d16x64s2w4-c2-v1",
    "p128x64s1w4-d16x128s1w4-c2-v1",
    "p128x64s1w4-d16x64s1w4-c2-v1",
    "p128x64s1w4-d16x32s1w1-c2-v4",
    "p128x64s1w4-d16x32s2w2-c2-v2",
    "p128x32s2w4-d16x64s2w4-c2-v1",
    "p128x32s2w4-d16x32s1w1-c2-v4",
    "p64x64s2w4-d16x64s3w4-c2-v1",
    "p64x64s1w4-d16x64s1w4-c2-v1",
    "p64x64s1w4-d16x64s1w4-c3-v1",
    "p64x64s1w4-d16x64s2w4-c3-v1",
    "p64x32s1w2-d16x32s2w2-c4-v1",
    "p64x32s1w2-d16x32s1w1-c4-v2",
    "p64x32s1w4-d16x32s2w2-c2-v1",
    "p32x32s1w2-d16x32s1w2-c2-v1",
    *PAIRS,
    *_OF_8,
    *PAIRS_IN_TURN,
    *_BELOW_128,
)
_PARAMETERS: dict[str, Range | OneOf] = {
    "tiles": OneOf(TILES),
    "ratio": Range(-4, 4),
    "max_prefill_waves": Range(0, 4),
    "decode_split_tokens_log2": Range(8, 14),
    "strategy": OneOf(("fused", "serial", "streams")),
}


def tiles_of(name: str) -> PodConfig:
    """A config of which only what TILES has under a name counts."""
    return Variant.parse(f"{_ANY_VARIANT}{name}").config()


def tiles_name(config: PodConfig) -> str:
    """Inverse of tiles_of; a config whose tiles are not in TILES has a name too."""
    variant = Variant(
        dtype="bf16",
        kv_dtype="bf16",
        head_dim=128,
        prefill=config.prefill,
        decode=config.decode,
        ctas_per_sm=config.ctas_per_sm,
        virtual_decode=config.virtual_decode,
    )
    return variant.name.removeprefix(_ANY_VARIANT)


def choices(target: Target, geometry: Geometry) -> Choices:
    """Tiles that a variant may have, with everything that needs no build."""
    default = target.default_config(geometry)
    tiles = [with_tiles(default, tiles_of(name)) for name in TILES]
    # The largest; the sampler gets to the others.
    fitting = [config for config in tiles if _fits(target, config, geometry)][:_TILES_FIRST]
    return Choices(
        _PARAMETERS,
        (
            *(("other tiles", config) for config in fitting),
            ("serial", dataclasses.replace(default, strategy="serial")),
            ("streams", dataclasses.replace(default, strategy="streams")),
        ),
        shipped=_shipped(target, geometry),
        ratioless=_ratioless(geometry),
        covered=_covered() if geometry.head_dim <= 128 else frozenset(),
    )


def _ratioless(geometry: Geometry) -> frozenset[str]:
    """Tiles of CTAs that run both ops at once: of those that run them in turn the ratio counts.

    A GPU without an engine for the former runs them like other tiles, and is tried with one ratio.
    """
    if ELEMENT_BYTES[geometry.kv_dtype] == 1:
        return frozenset()
    both = PAIRS + PAIRS_BELOW_128
    at_once = pair_decodes(geometry.head_dim, 2)
    return frozenset(both + PAIRS_IN_TURN if at_once else both)


def _covered() -> frozenset[str]:
    """Tiles that those of 16 rows become where a batch's decodes have few (batch_tiles.py).

    Over a cache of 8 bits nothing has them.
    """
    return frozenset(name for name in TILES if tiles_of(name).decode.q_rows == FEW_ROWS)


def _shipped(target: Target, geometry: Geometry) -> frozenset[str]:
    """Tiles of the variants that every build has for a geometry; see variants.shipped."""
    return frozenset(
        tiles_name(variant.config())
        for variant in shipped(architecture(target.key.capability))
        if (variant.dtype, variant.kv_dtype, variant.head_dim)
        == (geometry.dtype, geometry.kv_dtype, geometry.head_dim)
    )


def _fits(target: Target, config: PodConfig, geometry: Geometry) -> bool:
    try:
        target.require_feasible(config, geometry)
    except ConfigError:
        return False
    return True
