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
from typing import Any, NamedTuple

from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution

from pod_integrate.devices.base import Choices, OneOf, Range
from pod_integrate.devices.cuda.choices import tiles_name, tiles_of
from pod_integrate.errors import ConfigError, ConfigInfeasibleError
from pod_integrate.terms.config import PodConfig, TileConfig
from pod_integrate.terms.keys import Bucket
from pod_integrate.terms.table import require_bearable
from tuner.search.axes import Rule

_SPLIT_NEVER = 14
# Parameters that do nothing in steps without prefill, and in those without decodes: one side alone
# has no ratio, and every strategy launches it alike.
_IDLE = {
    "decode": ("ratio", "strategy", "max_prefill_waves", "prefill."),
    "prefill": ("ratio", "strategy", "decode_split_tokens_log2", "decode."),
}


class Within(NamedTuple):
    """A part of the space.

    tiles  names of tiles as devices/cuda/choices.py has them; None: any
    """

    tiles: frozenset[str] | None = None

    def allows(self, config: PodConfig) -> bool:
        """Whether a config lies in it."""
        return self.tiles is None or tiles_name(config) in self.tiles


ANY = Within()


def distributions(choices: Choices) -> dict[str, BaseDistribution]:
    """Parameters worth trying, by name."""
    return {
        name: (
            IntDistribution(choice.low, choice.high)
            if isinstance(choice, Range)
            else CategoricalDistribution(choice.names)
        )
        for name, choice in choices.parameters.items()
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


def encode(config: PodConfig, choices: Choices) -> dict[str, Any]:
    """Optuna parameters of a config; raises ConfigError when it lies outside of the space."""
    known = distributions(choices)
    values: dict[str, Any] = {
        "ratio": _encode_ratio(config),
        "max_prefill_waves": config.max_prefill_waves,
        "decode_split_tokens_log2": _encode_split(config),
        "strategy": config.strategy,
        **({"tiles": tiles_name(config)} if "tiles" in known else _encode_tiles(config)),
    }
    for name, distribution in known.items():
        if not _inside(distribution, values[name]):
            raise ConfigError(
                f"{name} = {values[name]} of {config.short()} is outside of {distribution}"
            )
    return {name: values[name] for name in known}


def fixed(tiles: str, choices: Choices) -> dict[str, Any] | None:
    """The parameters that stand for tiles of this name; None where the space has no such tiles."""
    known = distributions(choices)
    try:
        values = {"tiles": tiles} if "tiles" in known else _encode_tiles(tiles_of(tiles))
    except ConfigError:
        return None
    mine = {name: value for name, value in values.items() if name in known}
    inside = all(_inside(known[name], value) for name, value in mine.items())
    return mine if inside else None


def rules(sides: str, default: PodConfig, choices: Choices) -> list[Rule]:
    """The parameters that do nothing in steps of such `sides`, and the default's values of them.

    Where both ops have work the ratio does nothing but in a fused launch of CTAs that have one.
    """
    hybrid = [
        Rule("ratio", 0, (name, values)) for name, values in _without_ratio(choices) if values
    ] if sides == "hybrid" else []  # fmt: skip
    try:
        values = encode(default, choices)
    except ConfigError:
        return hybrid
    names = _IDLE.get(sides, ())
    idle = [Rule(name, value) for name, value in values.items() if name.startswith(names)]
    return idle + [rule._replace(value=values[rule.name]) for rule in hybrid]


def _without_ratio(choices: Choices) -> list[tuple[str, frozenset[str]]]:
    """Parameters, and those of their values with which launches have no CTA ratio."""
    known = {
        name: frozenset(choice.names)
        for name, choice in choices.parameters.items()
        if isinstance(choice, OneOf)
    }
    strategies, tiles = (known.get(name, frozenset()) for name in ("strategy", "tiles"))
    return [("strategy", strategies - {"fused"}), ("tiles", tiles & choices.ratioless)]


def plain(config: PodConfig, rules: list[Rule], choices: Choices) -> PodConfig:
    """The config with the rules' values where its own do nothing; one of another space as it is."""
    try:
        params = encode(config, choices)
    except ConfigError:
        return config
    own = {rule.name: rule.value for rule in rules if rule.holds(params)}
    return decode(params | own, config)


def unbearable(bucket: Bucket, config: PodConfig) -> str:
    """Why no table may hold `config` for a bucket, empty when one may."""
    try:
        require_bearable(bucket, config)
    except ConfigInfeasibleError as error:
        return str(error)
    return ""


def _tiles(params: Mapping[str, Any], base: PodConfig) -> PodConfig:
    """A config of which only the tiles and what goes with them count."""
    if "tiles" in params:
        return tiles_of(params["tiles"])
    return PodConfig(
        prefill=_tile(params, "prefill", base.prefill),
        decode=_tile(params, "decode", base.decode),
        ctas_per_sm=int(params["ctas_per_sm"]),
        virtual_decode=1 << int(params["virtual_decode_log2"]),
    )


def _encode_tiles(config: PodConfig) -> dict[str, Any]:
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


def _encode_split(config: PodConfig) -> int:
    return _log2(config.decode_split_tokens) if config.decode_split_tokens else _SPLIT_NEVER


def _log2(value: int) -> int:
    if value < 1 or value & (value - 1):
        raise ConfigError(f"{value} is not a power of two")
    return value.bit_length() - 1
