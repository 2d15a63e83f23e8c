"""Variant: what one compiled CUDA library fixes; everything else of a PodConfig is run-time data.

A variant's name is its identity: it names the library file, the build report and the table rows.
"""

from __future__ import annotations

import dataclasses
import re
from typing import Literal, Self, get_args

from pod_integrate.devices.cuda import limits
from pod_integrate.errors import ConfigError, ConfigInfeasibleError, DtypeError
from pod_integrate.terms.config import PodConfig, TileConfig
from pod_integrate.terms.keys import ELEMENT_BYTES, Geometry, KvDtype

GpuDtype = Literal["bf16", "fp16"]
DTYPES: tuple[GpuDtype, ...] = get_args(GpuDtype)
# Of K and V beside any of these; else K and V are as q.
QUANTISED: KvDtype = "e4m3"
_TILE = r"(\d+)x(\d+)s(\d+)w(\d+)"
_NAME = re.compile(
    rf"({'|'.join(DTYPES)})(?:-kv({QUANTISED}))?-d(\d+)-p{_TILE}-d{_TILE}-c(\d+)-v(\d+)"
)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """Compile-time half of a PodConfig for one dtype and head dim.

    Fields mean what they mean in PodConfig. Printed as
    `bf16-d128-p128x64s1w4-d16x64s2w4-c2-v1`: dtype, head dim, prefill and decode tile
    (q_rows x kv_rows, stages, warps), ctas_per_sm, virtual_decode. Where K and V are not of the
    dtype of q their own follows it: `bf16-kve4m3-d128-...`.
    """

    dtype: GpuDtype
    kv_dtype: KvDtype
    head_dim: int
    prefill: TileConfig
    decode: TileConfig
    ctas_per_sm: int
    virtual_decode: int

    @classmethod
    def of(cls, config: PodConfig, geometry: Geometry) -> Self:
        """The variant that runs `config` on `geometry`; raises DtypeError without a GPU dtype."""
        if geometry.dtype not in DTYPES or geometry.kv_dtype not in (geometry.dtype, QUANTISED):
            raise DtypeError(
                f"q is {geometry.dtype} and the KV cache {geometry.kv_dtype}; the GPU kernel takes "
                f"{' or '.join(DTYPES)} for both, or {QUANTISED} for the cache. Cast q and the "
                "caches to one of them"
            )
        return cls(
            dtype=geometry.dtype,
            kv_dtype=geometry.kv_dtype,
            head_dim=geometry.head_dim,
            prefill=config.prefill,
            decode=config.decode,
            ctas_per_sm=config.ctas_per_sm,
            virtual_decode=config.virtual_decode,
        )

    @classmethod
    def parse(cls, name: str) -> Self:
        """Inverse of `name`; raises ConfigError with the expected form."""
        found = _NAME.fullmatch(name)
        if found is None:
            raise ConfigError(
                f"variant {name[:96]!r} is malformed; expected e.g. "
                "'bf16-d128-p128x64s1w4-d16x64s2w4-c2-v1'"
            )
        dtype, kv_dtype, *numbers = found.groups()
        values = [int(number) for number in numbers]
        variant = cls(
            dtype=dtype,  # type: ignore[arg-type]
            kv_dtype=kv_dtype or dtype,  # type: ignore[arg-type]
            head_dim=values[0],
            prefill=_tile(values[1:5]),
            decode=_tile(values[5:9]),
            ctas_per_sm=values[9],
            virtual_decode=values[10],
        )
        if variant.name != name:
            raise ConfigError(f"variant {name!r} is not canonical; write {variant.name!r}")
        return variant

    @property
    def name(self) -> str:
        """Printable, safe in file names, one per variant."""
        kept = "" if self.kv_dtype == self.dtype else f"-kv{self.kv_dtype}"
        return (
            f"{self.dtype}{kept}-d{self.head_dim}-p{_short(self.prefill)}-d{_short(self.decode)}"
            f"-c{self.ctas_per_sm}-v{self.virtual_decode}"
        )

    @property
    def kv_bytes(self) -> int:
        """Of an element of K or V."""
        return ELEMENT_BYTES[self.kv_dtype]

    def config(self) -> PodConfig:
        """A PodConfig of this variant, run-time fields at their defaults."""
        return PodConfig(
            prefill=self.prefill,
            decode=self.decode,
            ctas_per_sm=self.ctas_per_sm,
            virtual_decode=self.virtual_decode,
        )

    def prefill_engine(self, arch: limits.Architecture) -> limits.PrefillEngine:
        """What multiplies in this variant's prefill items there; see limits.prefill_engine."""
        return limits.prefill_engine(self.config(), arch, self.head_dim, self.kv_bytes)

    def decode_engine(self, arch: limits.Architecture) -> limits.PrefillEngine:
        """The same in its decode items; see limits.decode_engine."""
        return limits.decode_engine(self.config(), arch, self.head_dim, self.kv_bytes)

    def defines(self, prefill_engine: limits.PrefillEngine) -> list[str]:
        """Compiler flags that csrc/variant.cu is compiled with."""
        values: dict[str, object] = {
            "DTYPE": self.dtype,
            "KV_DTYPE": self.kv_dtype,
            "HEAD_DIM": self.head_dim,
        }
        for side, tile in (("PREFILL", self.prefill), ("DECODE", self.decode)):
            for field, value in dataclasses.asdict(tile).items():
                values[f"{side}_{field.upper()}"] = value
        values |= {"CTAS_PER_SM": self.ctas_per_sm, "VIRTUAL_DECODE": self.virtual_decode}
        values["PREFILL_ENGINE"] = f"k{prefill_engine.capitalize()}"
        return [f"-DPOD_{name}={value}" for name, value in values.items()]


def with_tiles(config: PodConfig, tiles: PodConfig | Variant) -> PodConfig:
    """`config` with tiles, ctas_per_sm and virtual_decode taken from `tiles`."""
    return dataclasses.replace(
        config,
        prefill=tiles.prefill,
        decode=tiles.decode,
        ctas_per_sm=tiles.ctas_per_sm,
        virtual_decode=tiles.virtual_decode,
    )


def defaults(arch: limits.Architecture) -> list[Variant]:
    """Variants of an architecture's default configs: every head dim in every dtype."""
    return [
        _variant(limits.default_tiles(arch, dim), dtype, dim)
        for dim in limits.HEAD_DIMS
        for dtype in DTYPES
    ]


def of_pairs(arch: limits.Architecture) -> list[Variant]:
    """Variants of CTAs that run both ops, with which defaults may run batches heavy in prefill.

    At head dim 256 these are the default; over 8 bits small prefills of head dim 128 have them.
    """
    if "pair" not in arch.engines:
        return []
    found = [_variant(limits.pair_tiles(dim), t, dim) for dim in (128, 96, 64) for t in DTYPES]
    of_bytes = limits.pair_tiles(128, ELEMENT_BYTES[QUANTISED])
    return [*found, _variant(of_bytes, "bf16", 128, QUANTISED)]


def of_few_rows(arch: limits.Architecture) -> list[Variant]:
    """Variants of defaults and pairs with decode tiles of few rows, where a GPU has such tiles."""
    wide = [
        v
        for v in (*defaults(arch), *of_pairs(arch))
        if v.decode_engine(arch) == "wgmma" and limits.pair_decodes(v.head_dim, v.kv_bytes)
    ]
    tiles = (dataclasses.replace(v.decode, q_rows=limits.FEW_ROWS) for v in wide)
    return [dataclasses.replace(v, decode=tile) for v, tile in zip(wide, tiles, strict=True)]


def shipped(arch: limits.Architecture) -> list[Variant]:
    """What `pod-attn build --all` compiles: defaults of all head dims, and the paper's settings.

    And defaults for caches of 8 bits, where models have them; and on Hopper the tiles of CTAs that
    run both ops, what batches heavy in prefill get, and those of few rows, what most decodes get.
    The paper's: 2 CTAs/SM, the default's prefill tile beside four one-warp decode items, 4
    CTAs/SM of 64x32, and 3 CTAs/SM between them; as far as they fit the architecture. Source:
    POD-Attention, arXiv:2410.18038, section 4.
    """
    wanted = defaults(arch)
    for head_dim in (128, 64):
        two = dataclasses.replace(_VIRTUAL, prefill=limits.default_tiles(arch, head_dim).prefill)
        for config in (two, *_PAPER[head_dim]):
            variant = _variant(config, "bf16", head_dim)
            if variant not in wanted and _fits(variant, arch):
                wanted.append(variant)
    kv_bytes = ELEMENT_BYTES[QUANTISED]
    wanted += [
        _variant(limits.default_tiles(arch, dim, kv_bytes), "bf16", dim, QUANTISED)
        for dim in (128, 64)
    ]
    return wanted + of_pairs(arch) + of_few_rows(arch)


def _fits(variant: Variant, arch: limits.Architecture) -> bool:
    try:
        limits.require_fits(variant.config(), arch, variant.head_dim, variant.kv_bytes)
    except ConfigInfeasibleError:
        return False
    return True


def _variant(
    config: PodConfig, dtype: GpuDtype, head_dim: int, kv_dtype: KvDtype | None = None
) -> Variant:
    return Variant(
        dtype=dtype,
        kv_dtype=dtype if kv_dtype is None else kv_dtype,
        head_dim=head_dim,
        prefill=config.prefill,
        decode=config.decode,
        ctas_per_sm=config.ctas_per_sm,
        virtual_decode=config.virtual_decode,
    )


def _tile(values: list[int]) -> TileConfig:
    q_rows, kv_rows, stages, warps = values
    return TileConfig(q_rows=q_rows, kv_rows=kv_rows, stages=stages, warps=warps)


def _short(tile: TileConfig) -> str:
    return f"{tile.q_rows}x{tile.kv_rows}s{tile.stages}w{tile.warps}"


_VIRTUAL = PodConfig(
    prefill=TileConfig(q_rows=128, kv_rows=64, stages=1, warps=4),
    decode=TileConfig(q_rows=16, kv_rows=32, stages=1, warps=1),
    ctas_per_sm=2,
    virtual_decode=4,
)
_THREE_CTAS = PodConfig(
    prefill=TileConfig(q_rows=64, kv_rows=64, stages=1, warps=4),
    decode=TileConfig(q_rows=16, kv_rows=64, stages=1, warps=4),
    ctas_per_sm=3,
)
# The paper packs two one-warp decode items here. An A100 has no room for that next to a CTA's
# static variables, so one item gets both warps.
_FOUR_CTAS = PodConfig(
    prefill=TileConfig(q_rows=64, kv_rows=32, stages=1, warps=2),
    decode=TileConfig(q_rows=16, kv_rows=32, stages=2, warps=2),
    ctas_per_sm=4,
)
_PAPER = {128: (_THREE_CTAS, _FOUR_CTAS), 64: (_FOUR_CTAS,)}
