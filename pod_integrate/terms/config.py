"""PodConfig: every choice that one attention launch leaves open, under one set of names.

The same names are used by the kernels, by Optuna, in traces, tables and on the dashboard.
On a CPU an "SM" is a core and a "CTA" is a work item that one core runs to its end.
"""

from __future__ import annotations

import dataclasses
import functools
import struct
from collections.abc import Sequence
from typing import Any, Literal, get_args

import msgspec

from pod_integrate.errors import ConfigError

Strategy = Literal["fused", "serial", "streams"]
STRATEGIES: tuple[str, ...] = get_args(Strategy)
# Keys of the shortest decode item that the CUDA planner makes to fill a GPU: its kLeastSplit.
LEAST_SPLIT = 256


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class TileConfig:
    """One CTA's share of one op.

    q_rows   query rows after GQA packing, a multiple of 16; of decode on Hopper's wgmma also 8
    kv_rows  KV rows per stage, a multiple of 16
    stages   KV stages in flight, >= 1; on a CPU 1 means no prefetch of the next tile
    warps    warps per CTA, >= 1; on a CPU always 1
    """

    q_rows: int
    kv_rows: int
    stages: int = 1
    warps: int = 1

    def __post_init__(self) -> None:
        for name, least in (("q_rows", 8), ("kv_rows", 16)):
            value = getattr(self, name)
            whole = value >= 16 and value % 16 == 0 and value <= 4096
            _require(
                value == least or whole,
                f"tile.{name} must be {'8 or ' * (least == 8)}a multiple of 16 in 16..4096, got "
                f"{value}",
            )
        _require(1 <= self.stages <= 8, f"tile.stages must be 1..8, got {self.stages}")
        _require(1 <= self.warps <= 16, f"tile.warps must be 1..16, got {self.warps}")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class PodConfig:
    """How one hybrid batch is attended.

    prefill, decode      tiles of the two ops
    ctas_per_sm          CTAs resident on one SM; on a CPU 2 means that a core prefetches its
                         next decode item while it computes a prefill item, 1 that it does not
    prefill_ctas :       CTA ratio; 0:0 is proportional to the work at hand (on a GPU 1:1 or 1:2
      decode_ctas        while there are few prefill CTAs per SM; where it was measured to pay as
                         `streams` while they leave part of a wave, or with a default's tiles in
                         CTAs that run both ops where prefill outweighs decode), 1:1 the paper's
                         50:50. Of no meaning where an SM's CTA runs both ops all along
                         (docs/hopper.md); where it runs them in turn, at head dim 256 or over a
                         cache of 8 bits, that of CTAs that begin with prefill, 0:0 as 1:1,
                         or as many as prefill has long items
    max_prefill_waves    KV of a prefill is split until its items fill this many waves of
                         SMs x ctas_per_sm at most; 0 never splits. On a GPU 1 is what the planner
                         thinks to pay: items of one length at most, whole where a merge costs more
    decode_split_tokens  most KV tokens of a decode item (split-KV); 0 never splits. On a GPU items
                         get shorter, down to 256, where a batch would leave CTA slots idle, and
                         beside little or no prefill longer where each slot then has its share
    virtual_decode       decode items that one CTA takes at once, >= 1
    strategy             fused (one launch), serial (prefill, then decode) or streams (side by
                         side on disjoint resources)
    Raises ConfigError on malformed values. Source: POD-Attention, arXiv:2410.18038, section 4.
    """

    prefill: TileConfig
    decode: TileConfig
    ctas_per_sm: int = 2
    prefill_ctas: int = 0
    decode_ctas: int = 0
    max_prefill_waves: int = 2
    decode_split_tokens: int = 0
    virtual_decode: int = 1
    strategy: Strategy = "fused"

    def __post_init__(self) -> None:
        _require(1 <= self.ctas_per_sm <= 8, f"ctas_per_sm must be 1..8, got {self.ctas_per_sm}")
        ratio = (self.prefill_ctas, self.decode_ctas)
        _require(
            ratio == (0, 0) or (1 <= min(ratio) and max(ratio) <= 64),
            f"prefill_ctas:decode_ctas must be 0:0 or within 1..64, got {ratio[0]}:{ratio[1]}",
        )
        _require(
            0 <= self.max_prefill_waves <= 64,
            f"max_prefill_waves must be 0..64, got {self.max_prefill_waves}",
        )
        split = self.decode_split_tokens
        _require(
            split == 0 or (split >= 16 and split % 16 == 0 and split <= 1 << 20),
            f"decode_split_tokens must be 0 or a multiple of 16 up to 2**20, got {split}",
        )
        _require(
            1 <= self.virtual_decode <= 64,
            f"virtual_decode must be 1..64, got {self.virtual_decode}",
        )
        _require(
            self.strategy in STRATEGIES,
            f"strategy must be one of {STRATEGIES}, got {self.strategy!r}",
        )

    def batch_invariant(self) -> PodConfig:
        """This config without what lets one request's answer depend on the rest of its batch.

        A request attended with it gets the same out and lse, bit for bit, alone and in any batch,
        in any place of it, with any number of threads or SMs. Prefill KV is not split, and decode
        KV into parts of one length: at most LEAST_SPLIT keys, which no planner makes shorter to
        fill a device. Costs time where few requests are long. It takes one config for every step:
        a table chooses by the batch.
        """
        split = min(self.decode_split_tokens, LEAST_SPLIT)
        return dataclasses.replace(self, max_prefill_waves=0, decode_split_tokens=split)

    @property
    def is_batch_invariant(self) -> bool:
        """Whether a request's answer has the same bits in any batch already, as above."""
        return self == self.batch_invariant()

    def to_dict(self) -> dict[str, Any]:
        """Plain nested dict, field names as above; `from_dict` is its inverse."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, data: object) -> PodConfig:
        """Read `to_dict` output back; raises ConfigError on unknown, missing or wrong fields."""
        if isinstance(data, dict):
            _reject_unknown(data, cls, "config")
            for tile in ("prefill", "decode"):
                if isinstance(data.get(tile), dict):
                    _reject_unknown(data[tile], TileConfig, f"config.{tile}")
        try:
            return msgspec.convert(data, cls, strict=True)
        except msgspec.ValidationError as error:
            raise ConfigError(f"config: {error}") from error

    def short(self) -> str:
        """One printable token, e.g. `fused p64x64/1/4 d16x64/1/4 2cta 0:0 w2 s512 v1`."""
        p, d = self.prefill, self.decode
        return (
            f"{self.strategy} p{p.q_rows}x{p.kv_rows}/{p.stages}/{p.warps} "
            f"d{d.q_rows}x{d.kv_rows}/{d.stages}/{d.warps} {self.ctas_per_sm}cta "
            f"{self.prefill_ctas}:{self.decode_ctas} w{self.max_prefill_waves} "
            f"s{self.decode_split_tokens} v{self.virtual_decode}"
        )


# Names of the numbers in a config's flat form: two tiles, what is no tile, last the strategy.
_TILE = tuple(field.name for field in dataclasses.fields(TileConfig))
_NUMBERS = tuple(field.name for field in dataclasses.fields(PodConfig))[2:-1]


def flatten_config(config: PodConfig) -> list[int]:
    """Its numbers in the order of their fields, a strategy by its index in STRATEGIES."""
    tiles = (config.prefill, config.decode)
    return [
        *(getattr(tile, name) for tile in tiles for name in _TILE),
        *(getattr(config, name) for name in _NUMBERS),
        STRATEGIES.index(config.strategy),
    ]


def unflatten_config(values: Sequence[int]) -> PodConfig:
    """Inverse of flatten_config."""
    n = len(_TILE)
    prefill, decode = (
        TileConfig(**dict(zip(_TILE, part, strict=True)))
        for part in (values[:n], values[n : 2 * n])
    )
    return PodConfig(
        prefill=prefill,
        decode=decode,
        **dict(zip(_NUMBERS, values[2 * n : -1], strict=True)),
        strategy=STRATEGIES[values[-1]],  # type: ignore[arg-type]
    )


@functools.lru_cache(maxsize=4096)
def pack_config(config: PodConfig) -> bytes:
    """As the native struct of the same fields, kernels/common's packed.h."""
    numbers = flatten_config(config)
    return struct.pack(f"{len(numbers)}i", *numbers)


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ConfigError(message)


def _reject_unknown(data: dict[Any, Any], cls: type[Any], where: str) -> None:
    known = {field.name for field in dataclasses.fields(cls)}
    unknown = sorted(str(key) for key in data if key not in known)
    if unknown:
        raise ConfigError(f"{where} has unknown fields {unknown}; known are {sorted(known)}")
