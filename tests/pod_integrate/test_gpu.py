"""What fits an NVIDIA GPU: the arithmetic, its messages, and defaults that always fit."""

from __future__ import annotations

import dataclasses
import functools
import subprocess
from pathlib import Path
from typing import Any

import pytest
from support import configs

from pod_integrate.builds import cache, native
from pod_integrate.devices.cuda import limits, variants
from pod_integrate.devices.registry import target_of
from pod_integrate.errors import (
    ConfigInfeasibleError,
    DtypeError,
    KernelUnavailableError,
    ShapeError,
)
from pod_integrate.terms.config import PodConfig, TileConfig
from pod_integrate.terms.keys import DeviceKey, Geometry

GEOMETRY = Geometry.uniform((32, 8, 128), "bf16")
H100 = DeviceKey("nvidia-h100-80gb-hbm3", "sm90", 132)
BASE = target_of(H100).default_config(GEOMETRY)
changed = functools.partial(configs.changed, BASE)
PRINT_SMEM = """
#include <cstdio>
#include "pod/smem.h"
struct Case { int head_dim, kv_bytes; pod::PodConfig config; };
constexpr Case cases[] = {VARIANTS};
int main() {
  for (const Case& c : cases) {
    const auto prefill = pod::prefill_smem(c.config.prefill, c.head_dim, c.kv_bytes,
                                           pod::PrefillEngine::kMma);
    std::printf("%d %d %d\\n", prefill.bytes,
                pod::decode_cta_bytes(c.config, c.head_dim, c.kv_bytes,
                                      pod::PrefillEngine::kMma),
                pod::cta_warps(c.config));
  }
}
"""
CAPABILITIES = ("sm80", "sm86", "sm87", "sm89", "sm90", "sm100", "sm103", "sm120", "sm121")


@pytest.mark.parametrize("capability", CAPABILITIES)
@pytest.mark.parametrize("dim", limits.HEAD_DIMS)
def test_default_config_leaves_room_for_its_ctas(capability: str, dim: int) -> None:
    device = DeviceKey("some-gpu", capability, 100)
    geometry = dataclasses.replace(GEOMETRY, head_dim=dim)
    config = target_of(device).default_config(geometry)
    target_of(device).require_feasible(config, geometry)
    arch = limits.architecture(capability)
    if (arch.name, dim) == ("sm_90a", 256):
        # Its CTA runs one op at a time.
        assert config.ctas_per_sm == 1
        need = limits.fused_smem_bytes(config, arch, dim)
    else:
        assert config.ctas_per_sm == 2
        need = max(limits.smem_bytes(config, dim))
    need += limits.RESERVED_BYTES + limits.STATIC_BYTES
    assert config.ctas_per_sm * need <= arch.smem_per_sm << 10


@pytest.mark.parametrize(
    ("capability", "name"),
    [("sm80", "sm_80"), ("sm87", "sm_86"), ("sm90", "sm_90a"), ("sm103", "sm_100")],
)
def test_later_minor_version_runs_the_code_of_an_earlier_one(capability: str, name: str) -> None:
    assert limits.architecture(capability).name == name


@pytest.mark.parametrize("capability", ["sm70", "sm75", "sm110", "avx512", "sm", "90"])
def test_gpu_without_a_target_is_refused(capability: str) -> None:
    with pytest.raises(KernelUnavailableError, match="sm_80, sm_86"):
        limits.architecture(capability)


def test_shared_memory_and_warps_are_what_the_kernel_asks_for(tmp_path: Path) -> None:
    shipped = {v for arch in limits.ARCHITECTURES.values() for v in variants.shipped(arch)}
    rows, want = [], []
    for v in sorted(shipped, key=lambda v: v.name):
        tiles = (
            f"{{{t.q_rows}, {t.kv_rows}, {t.stages}, {t.warps}}}" for t in (v.prefill, v.decode)
        )
        config = f"{{{', '.join(tiles)}, {v.ctas_per_sm}, {v.virtual_decode}}}"
        rows.append(f"{{{v.head_dim}, {v.kv_bytes}, {config}}},")
        bytes_of = limits.smem_bytes(v.config(), v.head_dim, v.kv_bytes)
        want.append([*bytes_of, limits.cta_warps(v.config())])
    source = tmp_path / "print.cpp"
    source.write_text(PRINT_SMEM.replace("VARIANTS", "\n".join(rows)))
    include = native.sources_dir() / "cuda" / "include"
    command = [cache.host_compiler(), "-std=c++17", f"-I{include}", str(source)]
    subprocess.run([*command, "-o", str(tmp_path / "print")], check=True)
    said = subprocess.run([tmp_path / "print"], check=True, capture_output=True, text=True).stdout
    assert [[int(n) for n in line.split()] for line in said.splitlines()] == want


def test_shared_memory_message_holds_the_arithmetic_and_the_remedy() -> None:
    with pytest.raises(ConfigInfeasibleError) as caught:
        target_of(H100).require_feasible(
            changed(prefill={"q_rows": 128, "kv_rows": 128, "stages": 2}), GEOMETRY
        )
    assert str(caught.value) == (
        "prefill tile needs 160 KiB of shared memory and 128 B of static variables; sm_90a leaves "
        "113 KiB per CTA at ctas_per_sm=2. Lower prefill.stages (2) or prefill.kv_rows (128)"
    )


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"decode": {"q_rows": 32}}, "decode.q_rows is 32.*Set decode.q_rows to 16"),
        ({"prefill": {"q_rows": 256}}, "Set prefill.q_rows to 64 or 128"),
        ({"prefill": {"q_rows": 32}}, "prefill.q_rows is 32 with 4 prefill.warps"),
        ({"prefill": {"kv_rows": 48}}, "multiple of 32. Set prefill.kv_rows to 64"),
        ({"decode": {"kv_rows": 32}}, "multiple of 64. Set decode.kv_rows to 64"),
        ({"virtual_decode": 16, "decode": {"warps": 1}}, "virtual_decode is 16.*at most 8"),
        ({"virtual_decode": 8}, r"needs 32 warps.*\(8 x 4\); the limit is 16"),
        ({"decode": {"kv_rows": 128, "stages": 4}}, r"decode tile needs 265.5 KiB"),
        (
            {"virtual_decode": 4, "decode": {"warps": 1, "kv_rows": 64, "stages": 2}},
            r"4 decode tiles need 272 KiB.*or virtual_decode \(4\)",
        ),
        ({"ctas_per_sm": 4}, "leaves 56 KiB per CTA at ctas_per_sm=4. Lower decode.kv_rows"),
    ],
    ids=str,
)
def test_infeasible_config_names_field_limit_and_remedy(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigInfeasibleError, match=words):
        target_of(H100).require_feasible(changed(**fields), GEOMETRY)


def test_registers_that_accumulators_need_are_counted() -> None:
    wide = PodConfig(
        prefill=TileConfig(q_rows=128, kv_rows=32, warps=4),
        decode=TileConfig(q_rows=16, kv_rows=32, warps=2),
        ctas_per_sm=1,
    )
    with pytest.raises(ConfigInfeasibleError, match="288 accumulator registers.*leave 255"):
        limits.require_fits(wide, limits.ARCHITECTURES["sm_90a"], 256)


@pytest.mark.parametrize(
    ("arch", "kv_bytes", "decode"),
    # 16 columns of 192 keys and 128 values over 128 threads; else a warp's 48 keys and all values.
    [("sm_90a", 2, 40), ("sm_90a", 1, 88), ("sm_80", 2, 88)],
)
def test_decode_on_wgmma_is_counted_by_its_own_accumulators(
    arch: str, kv_bytes: int, decode: int
) -> None:
    config = changed(prefill={"stages": 2}, decode={"kv_rows": 192, "stages": 1})
    counted = limits.accumulators(config, limits.ARCHITECTURES[arch], 128, kv_bytes)
    assert counted == (192, decode)


def test_more_warps_than_an_sm_holds_are_refused() -> None:
    config = PodConfig(
        prefill=TileConfig(q_rows=128, kv_rows=64, warps=8),
        decode=TileConfig(q_rows=16, kv_rows=16, warps=1),
        ctas_per_sm=8,
    )
    with pytest.raises(ConfigInfeasibleError, match="sm_86 holds 48 per SM, 8 CTAs need 64"):
        limits.require_fits(config, limits.ARCHITECTURES["sm_86"], 64)


def test_geometry_that_only_the_cpu_serves_is_refused() -> None:
    with pytest.raises(ShapeError, match="got 80"):
        target_of(H100).default_config(dataclasses.replace(GEOMETRY, head_dim=80))
    single = dataclasses.replace(GEOMETRY, dtype="fp32", kv_dtype="fp32")
    for call in (
        lambda: target_of(H100).default_config(single),
        lambda: target_of(H100).require_feasible(BASE, single),
    ):
        with pytest.raises(DtypeError, match="fp32"):
            call()


def test_unknown_kind_of_device_is_refused() -> None:
    with pytest.raises(KernelUnavailableError, match="CPUs .*NVIDIA GPUs"):
        target_of(DeviceKey("some-tpu", "v5", 4)).default_config(GEOMETRY)
