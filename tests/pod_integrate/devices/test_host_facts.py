"""What Python says of plans and tiles is what the planner's library says, in both directions."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import hypothesis
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pod_integrate.devices.cuda import host_facts, limits, planning
from pod_integrate.devices.cuda.choices import PAIRS, tiles_of
from pod_integrate.devices.cuda.variants import shipped
from pod_integrate.devices.emulated.cta_records import RECORD_WORDS
from pod_integrate.model.items import plan_types
from pod_integrate.terms import config as terms
from pod_integrate.terms.config import PodConfig, TileConfig

ROOT = Path(__file__).resolve().parents[3]
POD = ROOT / "kernels" / "cuda" / "include" / "pod"
ARGUMENTS, CONFIG = POD / "arguments.h", POD / "config.h"


@pytest.mark.parametrize(
    ("struct", "part"), [("PlanHeader", "header"), ("Item", "item"), ("MergeBlock", "merge")]
)
def test_every_field_of_a_plan_is_told_and_read_where_it_lies(struct: str, part: str) -> None:
    source = ARGUMENTS.read_text()
    found = re.search(rf"struct .*\b{struct} {{(.*?)\n}};", source, re.S)
    assert found is not None
    body = re.sub(r"//.*", "", found[1])
    names = [name for line in re.findall(r"int ([^;]+);", body) for name in line.split(",")]
    fields = getattr(host_facts.facts(), part)
    assert list(fields) == [re.sub(r"\[\d+\]", "", name).strip() for name in names]
    dtype = getattr(plan_types(), part)
    assert dtype.itemsize == 4 * host_facts.words_of(fields)
    for name, (first, count) in fields.items():
        read, offset = dtype.fields[name][:2]
        assert (read.itemsize, offset) == (4 * count, 4 * first), name


def test_constants_of_python_are_the_librarys() -> None:
    facts = host_facts.facts()
    assert facts.header["stamp"] == (planning.STAMP_WORD, 1)
    assert host_facts.words_of(facts.header) == planning.HEADER_WORDS
    offsets = [first for name, (first, _) in facts.header.items() if name.endswith("_offset")]
    assert offsets == list(range(*planning.OFFSET_WORDS.indices(planning.HEADER_WORDS)))
    assert facts.least_split == terms.LEAST_SPLIT
    assert tuple(facts.head_dims) == limits.HEAD_DIMS
    assert facts.record_words == RECORD_WORDS
    assert facts.decode_rows == limits.DECODE_ROWS


def test_ctas_for_both_ops_have_the_room_that_the_kernel_asserts() -> None:
    # That its static variables fit there says a static_assert.
    found = re.search(r"constexpr int kPairStaticBytes = (\d+);", CONFIG.read_text())
    assert found is not None and int(found[1]) == limits._PAIR_STATIC_BYTES


@pytest.mark.parametrize("arch", limits.ARCHITECTURES.values(), ids=lambda arch: arch.name)
def test_shipped_variants_need_the_shared_memory_that_the_library_says(
    arch: limits.Architecture,
) -> None:
    for variant in shipped(arch):
        require_same(variant.config(), arch, variant.head_dim, variant.kv_bytes)


@pytest.mark.parametrize("tiles", PAIRS)
@pytest.mark.parametrize("head_dim", [64, 128])
def test_ctas_for_both_ops_need_the_shared_memory_that_the_library_says(
    tiles: str, head_dim: int
) -> None:
    arch, config = limits.ARCHITECTURES["sm_90a"], tiles_of(tiles)
    assert limits.prefill_engine(config, arch, head_dim) == "pair"
    require_same(config, arch, head_dim, 2)
    prefill, decode = limits.cta_smem_bytes(config, arch, head_dim)
    assert limits.fused_smem_bytes(config, arch, head_dim) > max(prefill, decode)


# More bytes than prefill's with two decode items, and fewer.
@pytest.mark.parametrize("decode", ["d16x192s2w4", "d16x128s2w4", "d16x256s1w4", "d16x64s1w4"])
@pytest.mark.parametrize("keys", [64, 96, 128])
@pytest.mark.parametrize("head_dim", [64, 128])
def test_such_ctas_over_8_bits_need_the_shared_memory_that_the_library_says(
    decode: str, keys: int, head_dim: int
) -> None:
    arch, config = limits.ARCHITECTURES["sm_90a"], tiles_of(f"p128x{keys}s2w8-{decode}-c1-v1")
    assert limits.prefill_engine(config, arch, head_dim, 1) == "pair"
    require_same(config, arch, head_dim, 1)
    prefill, item = limits.cta_smem_bytes(config, arch, head_dim, 1)
    room = limits.fused_smem_bytes(config, arch, head_dim, 1)
    assert room == prefill or prefill < room <= 2 * (item + 1024)


def require_same(
    config: PodConfig, arch: limits.Architecture, head_dim: int, kv_bytes: int
) -> None:
    engine = limits.prefill_engine(config, arch, head_dim, kv_bytes)
    alone = limits.cta_smem_bytes(config, arch, head_dim, kv_bytes)
    fused = limits.fused_smem_bytes(config, arch, head_dim, kv_bytes)
    assert (*alone, fused) == host_facts.cta_smem_bytes(config, head_dim, engine, kv_bytes)


TILES = st.builds(
    TileConfig,
    q_rows=st.sampled_from([8, 16, 32, 64, 128]),
    kv_rows=st.integers(1, 16).map(lambda n: 16 * n),
    stages=st.integers(1, 4),
    warps=st.sampled_from([1, 2, 4, 8]),
)


@given(
    prefill=TILES,
    decode=TILES,
    virtual=st.integers(1, 8),
    head_dim=st.sampled_from(limits.HEAD_DIMS),
    arch=st.sampled_from(sorted(limits.ARCHITECTURES)),
    kv_bytes=st.sampled_from([1, 2]),
)
@hypothesis.settings(max_examples=100, deadline=None)
def test_any_tile_needs_the_shared_memory_that_the_library_says(
    prefill: TileConfig, decode: TileConfig, virtual: int, head_dim: int, arch: str, kv_bytes: int
) -> None:
    config = PodConfig(
        prefill=prefill,
        decode=dataclasses.replace(decode, q_rows=16),
        ctas_per_sm=1,
        virtual_decode=virtual,
    )
    require_same(config, limits.ARCHITECTURES[arch], head_dim, kv_bytes)
