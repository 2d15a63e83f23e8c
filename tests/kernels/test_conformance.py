"""The conformance kernel on the emulated SM against formulas."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from support.conformance import SMS, Sections

from benchmarks.gpu.correctness import conformance
from benchmarks.gpu.correctness.conformance_run import (
    Inputs,
    Library,
    floats,
    unpack_sums,
)
from benchmarks.gpu.correctness.conformance_tiles import DTYPES, magnitudes, operands_of

ROOT = Path(__file__).resolve().parents[2]
PTX = ROOT / "kernels" / "cuda" / "include" / "pod" / "ptx"
_WRAPPER = re.compile(r"^(?:POD_DEVICE|inline|Error) [\w ]*?\b(\w+)\(|^Error (\w+)\(", re.MULTILINE)
_HOST_ONLY = {"error_text", "allow_smem", "kernel_info", "fork_join"}
_HOST_ONLY |= {"find_encode_tiled", "encode_boxes", "sm_count", "may_overlap"}
WGMMA_ORDER = ("wgmma_wait", "wgmma_commit", "wgmma_fence", "fence_proxy_async")


def words_of(inputs: Inputs, *, threads: int) -> torch.Tensor:
    return inputs.words[: 4 * threads].view(threads, 4)


def test_every_wrapper_has_a_section(library: Library) -> None:
    names = set()
    for header in PTX.glob("*.cuh"):
        text = header.read_text()
        gpu_half = text[text.index("#ifdef __CUDACC__") : text.index("#else")]
        names |= {name for found in _WRAPPER.findall(gpu_half) for name in found if name}
    assert len(names) > 20
    assert names - _HOST_ONLY == {name.split(":")[0] for name in library.layout.sections}


@pytest.mark.parametrize("dtype", DTYPES)
def test_mma_multiplies_the_documented_fragments(
    dtype: str, inputs: Inputs, dumped: Sections
) -> None:
    a, b, c = (side[dtype].double() for side in (inputs.a, inputs.b, inputs.c))
    got, want = unpack_sums(dumped[f"mma_m16n8k16:{dtype}"]).double(), c + a @ b
    same = (got == want) | (got.isnan() & want.isnan())
    half = len(same) // 2
    assert bool(same[:half].all())
    close = (got - want).abs() <= 2.0**-21 * (c.abs() + a.abs() @ b.abs())
    assert bool(close[half:].all())


def test_wgmma_multiplies_whole_tiles(inputs: Inputs, dumped: Sections) -> None:
    tiles = inputs.tiles
    sections = [name for name in dumped if name.startswith(conformance.PRODUCTS)]
    narrow = {"wgmma_ss:{}_rows64_n128", "wgmma_ss_transposed:{}_rows64_n16"}
    narrow |= {"wgmma_rs:{}_rows64_n96"}
    named = {name.format(dtype) for name in narrow for dtype in DTYPES}
    assert named < set(sections) and len(sections) > 2 * len(named)
    for section in sections:
        a, b, c = operands_of(tiles, section)
        want = c + a @ b
        got = floats(dumped[section]).view_as(want).double()
        same = (got == want) | (got.isnan() & want.isnan())
        half = len(same) // 2
        assert bool(same[:half].all()), section
        close = (got - want).abs() <= 2.0**-20 * magnitudes(tiles, section)
        assert bool(close[half:].all()), section


def test_wgmma_groups_and_fences_order_the_products(inputs: Inputs, dumped: Sections) -> None:
    tiles = inputs.tiles
    a, b, c = tiles.a["bf16"][0], tiles.b["bf16"][0], tiles.c[0, :, :64]
    sums = {name: floats(dumped[name]).view(64, 64) for name in WGMMA_ORDER}
    product = a @ b[:, :64]
    assert torch.equal(sums["wgmma_wait"], product)
    assert torch.equal(sums["wgmma_commit"], c + product)
    scaled = c
    for _ in range(4):
        scaled = scaled * 0.5 + 1 + product
    assert torch.equal(sums["wgmma_fence"], scaled)
    panels = sum(a @ b[:, 64 * i : 64 * i + 64] for i in range(4))
    assert torch.equal(sums["fence_proxy_async"], c + panels)


def test_wgmma_descriptors_have_their_fields(inputs: Inputs, dumped: Sections) -> None:
    number = torch.arange(128)
    for section, swizzle in {"wgmma_descriptor": 1, "wgmma_descriptor:rows64": 2}.items():
        low, high = (dumped[section].view(-1, 2).long() & 0xFFFFFFFF).unbind(1)
        assert torch.equal(low & 0x3FFF, number * 2000 // 16)
        assert torch.equal(low >> 16, number * 1040 // 16)
        assert torch.equal(high & 0x3FFFFFFF, (0x3FFF0 - number * 16) // 16)
        assert bool((high >> 30 == swizzle).all()), "as many bytes as a row"
    assert torch.equal(dumped["hold"], inputs.words[: 8 * 128])


def test_ldmatrix_gives_each_lane_its_elements(inputs: Inputs, dumped: Sections) -> None:
    lane = torch.arange(32)
    tile = words_of(inputs, threads=32)[(lane * 5 + 3) % 32].contiguous()
    matrices = tile.view(torch.int16).view(4, 8, 8).int() & 0xFFFF
    for name, source in {
        "ldmatrix_x4": matrices,
        "ldmatrix_x4_trans": matrices.transpose(1, 2),
    }.items():
        low, high = (source[:, lane // 4, 2 * (lane % 4) + i] for i in (0, 1))
        assert torch.equal(dumped[name].view(4, 32), low | high << 16), name


def test_stmatrix_puts_each_column_where_its_lane_says(inputs: Inputs, dumped: Sections) -> None:
    fragments = inputs.words[:128].view(4, 32).contiguous().view(torch.int16).view(4, 8, 8)
    rows = fragments.transpose(1, 2).reshape(32, 8).contiguous().view(torch.int32)
    for name, count in {"stmatrix_x2_trans": 16, "stmatrix_x4_trans": 32}.items():
        stored = torch.empty_like(rows[:count])
        stored[(torch.arange(count) * 5 + 3) % count] = rows[:count]
        assert torch.equal(dumped[name].view(count, 4), stored), name


def test_sixteen_bytes_go_where_they_are_sent(inputs: Inputs, dumped: Sections) -> None:
    words, other = words_of(inputs, threads=128), (torch.arange(128) * 5 + 3) % 128
    stored = torch.empty_like(words)
    stored[other] = words
    assert torch.equal(dumped["st_shared_16"].view(128, 4), stored)
    assert torch.equal(dumped["ld_shared_16"].view(128, 4), words)


def test_copies_move_bytes_or_write_zeros(inputs: Inputs, dumped: Sections) -> None:
    first = inputs.words[:512]
    assert torch.equal(dumped["cp_async_16"], first)
    assert torch.equal(dumped["cp_async_wait"], first)
    assert torch.equal(dumped["cp_async_commit"], inputs.words[512:1024])
    assert torch.equal(dumped["cp_async_16:always"], inputs.words[512:1024])
    assert not dumped["cp_async_16:zero"].any()


def test_shuffles_and_indices(inputs: Inputs, dumped: Sections) -> None:
    lane, thread = torch.arange(32), torch.arange(128, dtype=torch.int32)
    sent = inputs.words[:32]
    masks = [sent[lane ^ mask] for mask in (1, 2, 4, 8, 16)]
    assert torch.equal(dumped["shfl_xor"], torch.cat(masks))
    assert torch.equal(dumped["shfl"], sent[(lane * 7 + 3) % 32])
    for width in (4, 8, 16):
        source = lane // width * width + (lane * 3 + 1) % width
        assert torch.equal(dumped[f"shfl_segment:{width}"], sent[source])
    assert torch.equal(dumped["warp_uniform"], inputs.words[thread.long() // 32])
    assert torch.equal(dumped["thread_index"], thread)
    assert torch.equal(dumped["cta_index"], torch.arange(512, dtype=torch.int32))
    assert torch.equal(dumped["forget"], thread * 3 + 1)
    addresses = torch.stack([4 * thread, torch.full_like(thread, 12)], dim=1)
    assert torch.equal(dumped["smem_address"].view(128, 2), addresses)


def test_votes_see_every_lane(inputs: Inputs, dumped: Sections) -> None:
    some = bool((inputs.words[:32] & 0x3F == 0).any())
    want = torch.tensor([0, 1, int(some), 1, 1], dtype=torch.int32)
    assert torch.equal(dumped["any"], want.repeat_interleave(32))


def test_barriers_pass_every_number_on(dumped: Sections) -> None:
    warp = exchanged(32, 16)
    assert torch.equal(dumped["sync_warp"], warp.repeat(4))
    assert torch.equal(dumped["sync_cta"], exchanged(128, 16))
    assert torch.equal(dumped["bar_sync"], torch.cat([exchanged(64, 16), exchanged(64, 32)]))


def test_arrivals_pass_every_number_on(dumped: Sections) -> None:
    halves = [torch.arange(64), torch.arange(64, 128)]
    for r in range(1, 17):
        source = (torch.arange(64) + r * 5 + 1) % 64
        for reader in (1, 0):
            halves[reader] = (halves[reader] * 3 + halves[1 - reader][source]) % 2**32
    assert torch.equal(dumped["bar_arrive"], torch.cat(halves).to(torch.int32))


def test_values_stay_in_registers_that_move(inputs: Inputs, dumped: Sections) -> None:
    assert torch.equal(dumped["lower_registers"], inputs.words)
    assert torch.equal(dumped["raise_registers"], inputs.words)


def exchanged(threads: int, rounds: int) -> torch.Tensor:
    sums = torch.arange(threads)
    for r in range(1, rounds + 1):
        sums = (sums * 3 + sums[(torch.arange(threads) + r * 5 + 1) % threads]) % 2**32
    return torch.where(sums >= 2**31, sums - 2**32, sums).to(torch.int32)


def test_counters_start_from_zero_and_count_each_thread_once(dumped: Sections) -> None:
    threads = 512 * 64
    assert int(dumped["clear"][0]) == 0
    assert sorted(dumped["atomic_add:old"].tolist()) == list(range(threads))
    assert int(dumped["atomic_add:sum"][0]) == threads * (threads - 1) // 2
    assert set(dumped["smid"].tolist()) == set(range(SMS))
    assert int(dumped["nsmid"][0]) == SMS


def test_a_dependent_launch_sees_what_came_late(inputs: Inputs, dumped: Sections) -> None:
    ctas = len(dumped["cta_count"])
    assert dumped["cta_count"].tolist() == [ctas] * ctas
    assert torch.equal(dumped["let_dependents_start"], inputs.words[:ctas])
    assert torch.equal(dumped["wait_for_launch_before"], inputs.words[:ctas])
    assert dumped["launch_dependent"].tolist() == list(range(ctas, 0, -1))
