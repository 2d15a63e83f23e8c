"""PodConfig and TileConfig reject malformed values whatever the device."""

from __future__ import annotations

from typing import Any

import pytest

from pod_integrate.errors import ConfigError
from pod_integrate.terms.config import PodConfig, TileConfig

TILE = TileConfig(q_rows=64, kv_rows=32)
CONFIG = PodConfig(prefill=TILE, decode=TILE, prefill_ctas=1, decode_ctas=3, strategy="streams")


def test_dict_form_reads_back() -> None:
    assert PodConfig.from_dict(CONFIG.to_dict()) == CONFIG


def test_short_form_is_one_token_per_choice() -> None:
    assert CONFIG.short() == "streams p64x32/1/1 d64x32/1/1 2cta 1:3 w2 s0 v1"


@pytest.mark.parametrize(
    "fields",
    [
        {"q_rows": 0},
        {"q_rows": 24},
        {"kv_rows": 8},
        {"kv_rows": 8192},
        {"stages": 0},
        {"stages": 9},
        {"warps": 0},
    ],
    ids=str,
)
def test_malformed_tile_is_rejected(fields: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match=next(iter(fields))):
        TileConfig(**({"q_rows": 16, "kv_rows": 16} | fields))


@pytest.mark.parametrize(
    "fields",
    [
        {"ctas_per_sm": 0},
        {"prefill_ctas": 1},
        {"prefill_ctas": 65, "decode_ctas": 1},
        {"max_prefill_waves": -1},
        {"decode_split_tokens": 24},
        {"virtual_decode": 0},
        {"strategy": "magic"},
    ],
    ids=str,
)
def test_malformed_config_is_rejected(fields: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(fields)).removesuffix("_ctas")):
        PodConfig(prefill=TILE, decode=TILE, **fields)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"magic": 1}, "unknown fields"),
        ({"prefill": {"q_rows": 16, "kv_rows": 16, "magic": 1}}, "config.prefill has unknown"),
        ({"prefill": {"q_rows": 16}}, "kv_rows"),
        ({"prefill": 3}, "config"),
        ({"decode": {"q_rows": "16", "kv_rows": 16}}, "config"),
        ({"ctas_per_sm": 1.5}, "config"),
        ({"ctas_per_sm": 99}, "ctas_per_sm must be 1..8"),
        ({"strategy": "magic"}, "config"),
    ],
    ids=str,
)
def test_malformed_dict_is_rejected(change: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        PodConfig.from_dict(CONFIG.to_dict() | change)


@pytest.mark.parametrize("data", [None, [], "fused", {}])
def test_anything_but_a_config_dict_is_rejected(data: object) -> None:
    with pytest.raises(ConfigError):
        PodConfig.from_dict(data)
