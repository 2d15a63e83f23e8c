"""The search space: an Optuna trial becomes a PodConfig and back.

Parameter names equal PodConfig fields. A name that ends in `_log2` holds the binary logarithm of
the field; every parameter is an int or a fixed category, because int ranges may be widened in a
later release while stored trials stay readable.

  ratio                0: proportional (0:0); +-n: log2 of prefill_ctas / decode_ctas, shifted by
                       one, so that 1 is 1:1, 2 is 2:1, -2 is 1:2
  decode_split_tokens_log2   one more than the largest means 0: never split
  tiles                on a GPU: both tiles, ctas_per_sm and virtual_decode as a variant's name has
                       them; free combinations of these would hardly ever fit an SM
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution

from pod_integrate.devices.cuda.variants import Variant
from pod_integrate.errors import ConfigError
from pod_integrate.terms.config import PodConfig, TileConfig
from pod_integrate.terms.keys import DeviceKey

_SPLIT_LOW, _SPLIT_NEVER = 5, 14
# Tiles mean the same at any dtype and head dim.
_ANY_VARIANT = "bf16-d128-"
_RATIO = 4
_GPU_STRATEGIES = ("fused", "serial", "streams")
# Not streams: it waits for every core, so one that another process holds stalls the whole call,
# and it gains nothing over fused on free cores.
_CPU_STRATEGIES = ("fused", "serial")
# Large tiles with few CTAs to small tiles with many; what does not fit an architecture or head dim
# is refused without a build. New ones go to the end: stored trials keep their meaning.
GPU_TILES = (
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
)


def distributions(device: DeviceKey) -> dict[str, BaseDistribution]:
    """Parameters worth trying on a device, by name."""
    return _gpu_space() if device.capability.startswith("sm") else _cpu_space()


def _cpu_space() -> dict[str, BaseDistribution]:
    return {
        "prefill.q_rows_log2": IntDistribution(4, 7),
        "prefill.kv_rows_log2": IntDistribution(4, 8),
        "decode.kv_rows_log2": IntDistribution(4, 9),
        "ctas_per_sm": IntDistribution(1, 2),
        "ratio": IntDistribution(-_RATIO, _RATIO),
        "max_prefill_waves": IntDistribution(0, 4),
        "decode_split_tokens_log2": IntDistribution(_SPLIT_LOW, _SPLIT_NEVER),
        "virtual_decode_log2": IntDistribution(0, 3),
        "strategy": CategoricalDistribution(_CPU_STRATEGIES),
        "prefill.stages": IntDistribution(1, 2),
        "decode.stages": IntDistribution(1, 2),
    }


def _gpu_space() -> dict[str, BaseDistribution]:
    return {
        "tiles": CategoricalDistribution(GPU_TILES),
        "ratio": IntDistribution(-_RATIO, _RATIO),
        "max_prefill_waves": IntDistribution(0, 4),
        "decode_split_tokens_log2": IntDistribution(8, _SPLIT_NEVER),
        "strategy": CategoricalDistribution(_GPU_STRATEGIES),
    }


def decode(params: Mapping[str, Any], base: PodConfig) -> PodConfig:
    """PodConfig of Optuna parameters; what they leave open comes from `base`."""
    ratio = int(params["ratio"])
    split = int(params["decode_split_tokens_log2"])
    tiles = _tiles(params, base)
    return PodConfig(
        prefill=tiles.prefill,
        decode=tiles.decode,
        ctas_per_sm=tiles.ctas_per_sm,
        prefill_ctas=0 if ratio == 0 else 1 << max(0, ratio - 1),
        decode_ctas=0 if ratio == 0 else 1 << max(0, -ratio - 1),
        max_prefill_waves=int(params["max_prefill_waves"]),
        decode_split_tokens=0 if split == _SPLIT_NEVER else 1 << split,
        virtual_decode=tiles.virtual_decode,
        strategy=params["strategy"],
    )


def tiles_of(name: str) -> Variant:
    """What GPU_TILES has under a name; its dtype and head dim mean nothing."""
    return Variant.parse(f"{_ANY_VARIANT}{name}")


def encode(config: PodConfig, device: DeviceKey) -> dict[str, Any]:
    """Optuna parameters of a config; raises ConfigError when it lies outside of the space."""
    is_gpu = device.capability.startswith("sm")
    values: dict[str, Any] = {
        "ratio": _encode_ratio(config),
        "max_prefill_waves": config.max_prefill_waves,
        "decode_split_tokens_log2": (
            _log2(config.decode_split_tokens) if config.decode_split_tokens else _SPLIT_NEVER
        ),
        "strategy": config.strategy,
        **(_encode_gpu_tiles(config) if is_gpu else _encode_cpu_tiles(config)),
    }
    known = distributions(device)
    for name, distribution in known.items():
        if not _inside(distribution, values[name]):
            raise ConfigError(
                f"{name} = {values[name]} of {config.short()} is outside of {distribution}"
            )
    return {name: values[name] for name in known}


def _tiles(params: Mapping[str, Any], base: PodConfig) -> PodConfig:
    """A config of which only the tiles and what goes with them count."""
    if "tiles" in params:
        return tiles_of(params["tiles"]).config()
    return PodConfig(
        prefill=_tile(params, "prefill", base.prefill),
        decode=_tile(params, "decode", base.decode),
        ctas_per_sm=int(params["ctas_per_sm"]),
        virtual_decode=1 << int(params["virtual_decode_log2"]),
    )


def _encode_gpu_tiles(config: PodConfig) -> dict[str, Any]:
    variant = Variant(
        dtype="bf16",
        head_dim=128,
        prefill=config.prefill,
        decode=config.decode,
        ctas_per_sm=config.ctas_per_sm,
        virtual_decode=config.virtual_decode,
    )
    return {"tiles": variant.name.removeprefix(_ANY_VARIANT)}


def _encode_cpu_tiles(config: PodConfig) -> dict[str, Any]:
    values: dict[str, Any] = {
        "ctas_per_sm": config.ctas_per_sm,
        "virtual_decode_log2": _log2(config.virtual_decode),
    }
    for side, tile in (("prefill", config.prefill), ("decode", config.decode)):
        values[f"{side}.q_rows_log2"] = _log2(tile.q_rows)
        values[f"{side}.kv_rows_log2"] = _log2(tile.kv_rows)
        values[f"{side}.stages"] = tile.stages
    return values


def _tile(params: Mapping[str, Any], side: str, base: TileConfig) -> TileConfig:
    def value(name: str) -> int:
        log2 = params.get(f"{side}.{name}_log2")
        plain = params.get(f"{side}.{name}", getattr(base, name))
        return int(plain) if log2 is None else 1 << int(log2)

    return TileConfig(
        q_rows=value("q_rows"),
        kv_rows=value("kv_rows"),
        stages=value("stages"),
        warps=value("warps"),
    )


def _inside(distribution: BaseDistribution, value: Any) -> bool:
    if isinstance(distribution, CategoricalDistribution):
        return value in distribution.choices
    return bool(distribution._contains(distribution.to_internal_repr(value)))


def _encode_ratio(config: PodConfig) -> int:
    if config.prefill_ctas == 0:
        return 0
    if min(config.prefill_ctas, config.decode_ctas) > 1:
        raise ConfigError(f"CTA ratio of {config.short()} is not 1:n or n:1")
    towards = _log2(config.prefill_ctas) - _log2(config.decode_ctas)
    return towards + 1 if towards >= 0 else towards - 1


def _log2(value: int) -> int:
    if value < 1 or value & (value - 1):
        raise ConfigError(f"{value} is not a power of two")
    return value.bit_length() - 1
