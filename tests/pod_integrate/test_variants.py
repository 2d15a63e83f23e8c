"""A variant is the compile-time half of a config; its name says all of it and reads back."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import pytest

from pod_integrate.devices.cuda import limits
from pod_integrate.devices.cuda.variants import Variant, defaults, shipped
from pod_integrate.errors import ConfigError, DtypeError
from pod_integrate.terms.config import PodConfig, TileConfig
from pod_integrate.terms.keys import Geometry

GEOMETRY = Geometry.uniform((32, 8, 128), "bf16")
CONFIG = PodConfig(
    prefill=TileConfig(q_rows=128, kv_rows=64, stages=1, warps=4),
    decode=TileConfig(q_rows=16, kv_rows=64, stages=2, warps=4),
    ctas_per_sm=2,
)
NAME = "bf16-d128-p128x64s1w4-d16x64s2w4-c2-v1"


def test_name_says_every_field_and_reads_back() -> None:
    variant = Variant.of(CONFIG, GEOMETRY)
    assert variant.name == NAME
    assert Variant.parse(NAME) == variant


@pytest.mark.parametrize("arch", limits.ARCHITECTURES.values(), ids=lambda arch: arch.name)
def test_every_shipped_name_reads_back_and_is_a_file_name(arch: limits.Architecture) -> None:
    for variant in shipped(arch):
        assert Variant.parse(variant.name) == variant
        assert re.fullmatch(r"[a-z0-9-]{1,80}", variant.name)


def test_a_cache_of_its_own_dtype_is_in_the_name_and_any_other_is_not() -> None:
    variant = Variant.of(CONFIG, dataclasses.replace(GEOMETRY, kv_dtype="e4m3"))
    assert variant.name == NAME.replace("bf16-", "bf16-kve4m3-")
    assert Variant.parse(variant.name) == variant and variant.kv_bytes == 1
    assert Variant.parse(NAME).kv_dtype == "bf16" and Variant.parse(NAME).kv_bytes == 2


def test_fields_that_are_run_time_data_do_not_change_the_variant() -> None:
    other = dataclasses.replace(
        CONFIG, prefill_ctas=1, decode_ctas=3, max_prefill_waves=0, strategy="streams"
    )
    assert Variant.of(other, GEOMETRY) == Variant.of(CONFIG, GEOMETRY)


@pytest.mark.parametrize(
    "field", ["dtype", "kv_dtype", "head_dim", "prefill", "decode", "ctas_per_sm"]
)
def test_fields_that_are_compiled_in_change_name_and_defines(field: str) -> None:
    base = Variant.of(CONFIG, GEOMETRY)
    values: dict[str, Any] = {
        "dtype": "fp16",
        "kv_dtype": "e4m3",
        "head_dim": 64,
        "prefill": base.decode,
        "decode": base.prefill,
        "ctas_per_sm": 3,
    }
    other = dataclasses.replace(base, **{field: values[field]})
    assert other.name != base.name
    assert other.defines("mma") != base.defines("mma")


def test_config_of_a_variant_is_of_that_variant() -> None:
    variant = Variant.parse(NAME)
    assert Variant.of(variant.config(), GEOMETRY) == variant


def test_defines_are_one_flag_per_field() -> None:
    assert Variant.parse(NAME).defines("wgmma") == [
        *("-DPOD_DTYPE=bf16", "-DPOD_KV_DTYPE=bf16", "-DPOD_HEAD_DIM=128"),
        *("-DPOD_PREFILL_Q_ROWS=128", "-DPOD_PREFILL_KV_ROWS=64"),
        *("-DPOD_PREFILL_STAGES=1", "-DPOD_PREFILL_WARPS=4"),
        *("-DPOD_DECODE_Q_ROWS=16", "-DPOD_DECODE_KV_ROWS=64"),
        *("-DPOD_DECODE_STAGES=2", "-DPOD_DECODE_WARPS=4"),
        *("-DPOD_CTAS_PER_SM=2", "-DPOD_VIRTUAL_DECODE=1", "-DPOD_PREFILL_ENGINE=kWgmma"),
    ]


@pytest.mark.parametrize(
    ("arch", "name", "engine"),
    [
        ("sm_90a", "bf16-d128-p128x64s2w4-d16x192s1w4-c2-v1", "wgmma"),
        ("sm_90a", "fp16-d64-p128x64s3w4-d16x64s1w4-c2-v1", "wgmma"),
        ("sm_90a", "bf16-kve4m3-d128-p128x64s2w4-d16x256s1w4-c2-v1", "wgmma"),
        ("sm_80", "bf16-d128-p128x64s2w4-d16x192s1w4-c2-v1", "mma"),
        ("sm_100", "bf16-d128-p128x64s2w4-d16x192s1w4-c2-v1", "mma"),
        ("sm_90a", "bf16-d96-p128x64s2w4-d16x64s1w4-c2-v1", "wgmma"),
        ("sm_90a", "bf16-kve4m3-d96-p128x64s2w4-d16x64s1w4-c2-v1", "mma"),
        ("sm_90a", "bf16-d128-p128x64s1w4-d16x64s1w4-c2-v1", "mma"),
        ("sm_90a", "bf16-d128-p64x64s2w4-d16x64s1w4-c2-v1", "mma"),
        ("sm_90a", "bf16-d128-p128x64s2w8-d16x64s1w4-c2-v1", "mma"),
        ("sm_90a", "bf16-d128-p128x128s2w8-d16x64s1w4-c1-v1", "pair"),
        ("sm_90a", "fp16-d64-p128x96s2w8-d16x128s1w4-c1-v1", "pair"),
        ("sm_100", "bf16-d128-p128x128s2w8-d16x64s1w4-c1-v1", "mma"),
        ("sm_90a", "bf16-d96-p128x128s2w8-d16x64s1w4-c1-v1", "pair"),
        ("sm_90a", "bf16-kve4m3-d128-p128x128s2w8-d16x64s1w4-c1-v1", "pair"),
        ("sm_90a", "bf16-kve4m3-d96-p128x128s2w8-d16x64s1w4-c1-v1", "mma"),
        ("sm_90a", "bf16-d128-p128x64s2w8-d16x64s1w4-c1-v1", "pair"),
        ("sm_90a", "bf16-d256-p128x64s2w8-d16x64s1w4-c1-v1", "pair"),
        ("sm_90a", "bf16-kve4m3-d256-p128x64s2w8-d16x64s1w4-c1-v1", "mma"),
        ("sm_90a", "bf16-d128-p128x160s2w8-d16x64s1w4-c1-v1", "mma"),
        ("sm_90a", "bf16-d128-p128x128s2w8-d16x64s1w2-c1-v2", "mma"),
    ],
)
def test_wgmma_where_the_architecture_has_it_and_the_tile_suits(
    arch: str, name: str, engine: str
) -> None:
    assert Variant.parse(name).prefill_engine(limits.ARCHITECTURES[arch]) == engine


@pytest.mark.parametrize(
    "name",
    [
        *("", "bf16", NAME + "-x", NAME.replace("bf16", "fp32"), "../" + NAME),
        *(NAME.replace("bf16-", "bf16-kvbf16-"), NAME.replace("bf16-", "bf16-kvfp16-")),
        *(NAME.replace("c2", "c02"), NAME.replace("128x64", "120x64"), NAME.replace("c2", "c")),
    ],
)
def test_malformed_name_is_refused(name: str) -> None:
    with pytest.raises(ConfigError):
        Variant.parse(name)


@pytest.mark.parametrize("dtypes", [("fp32", "fp32"), ("bf16", "fp16"), ("bf16", "fp32")])
def test_dtype_without_a_gpu_kernel_is_refused(dtypes: tuple[str, str]) -> None:
    geometry = dataclasses.replace(GEOMETRY, dtype=dtypes[0], kv_dtype=dtypes[1])  # type: ignore[arg-type]
    with pytest.raises(DtypeError, match="takes bf16 or fp16"):
        Variant.of(CONFIG, geometry)


@pytest.mark.parametrize("arch", limits.ARCHITECTURES.values(), ids=lambda arch: arch.name)
def test_shipped_variants_fit_and_hold_every_default_once(arch: limits.Architecture) -> None:
    variants = shipped(arch)
    assert len(set(variants)) == len(variants) <= 34
    assert set(defaults(arch)) <= set(variants)
    assert {(v.head_dim, v.dtype) for v in defaults(arch)} == {
        (dim, dtype) for dim in limits.HEAD_DIMS for dtype in ("bf16", "fp16")
    }
    for variant in variants:
        limits.require_fits(variant.config(), arch, variant.head_dim, variant.kv_bytes)


@pytest.mark.parametrize("arch", limits.ARCHITECTURES.values(), ids=lambda arch: arch.name)
def test_default_of_bytes_fits_at_every_head_dim_and_is_shipped_at_two(
    arch: limits.Architecture,
) -> None:
    for head_dim in limits.HEAD_DIMS:
        limits.require_fits(limits.default_tiles(arch, head_dim, 1), arch, head_dim, 1)
    of_bytes = [v for v in shipped(arch) if v.kv_bytes == 1]
    assert {(v.dtype, v.head_dim) for v in of_bytes} == {("bf16", 128), ("bf16", 64)}


def test_papers_settings_are_shipped_where_they_fit() -> None:
    for name in ("sm_80", "sm_90a", "sm_100"):
        settings = {
            (v.ctas_per_sm, v.virtual_decode)
            for v in shipped(limits.ARCHITECTURES[name])
            if v.head_dim == 128
        }
        # And, on Hopper, CTAs that run both ops.
        assert settings - {(1, 1)} == {(2, 1), (2, 4), (3, 1), (4, 1)}
        assert ((1, 1) in settings) == (name == "sm_90a")


def test_accumulators_of_decode_on_wgmma_are_whole_blocks_of_a_head() -> None:
    arch = limits.ARCHITECTURES["sm_90a"]
    config = Variant.parse("bf16-d96-p128x64s2w4-d16x256s1w4-c2-v1").config()
    # 128 columns of V and 256 keys, 16 query rows, over 128 threads.
    assert limits.accumulators(config, arch, 96)[1] == (128 + 256) * 16 // 128
