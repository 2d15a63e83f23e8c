"""Barriers in shared memory and boxes of the conformance kernel against formulas."""

from __future__ import annotations

import torch
from support.conformance import Sections

from benchmarks.gpu.correctness.conformance_run import Inputs, floats

THREADS, ROUNDS = 128, 16


def signed(words: torch.Tensor) -> torch.Tensor:
    """int32 of the same lower 32 bits."""
    low = words % 2**32
    return torch.where(low >= 2**31, low - 2**32, low).to(torch.int32)


def pool_of(inputs: Inputs, *, heads_first: bool) -> torch.Tensor:
    """The pool that boxes come from, [pages, slots, heads, columns] int16."""
    elements = inputs.tiles.b["bf16"].to(torch.bfloat16).view(torch.int16)
    if heads_first:
        return elements.reshape(16, 2, 16, 128).transpose(1, 2)
    return elements.reshape(16, 16, 2, 128)


def landed(rows: torch.Tensor) -> torch.Tensor:
    """Words of a box [rows, 64] as it lies: chunk c of row r at place c ^ r % 8."""
    count = len(rows)
    chunks = rows.reshape(count, 8, 8)
    place = torch.arange(8)[None] ^ (torch.arange(count) % 8)[:, None]
    swizzled = torch.gather(chunks, 1, place[..., None].expand(count, 8, 8))
    return swizzled.contiguous().view(torch.int32).flatten()


def test_boxes_are_brought_whole_and_swizzled(inputs: Inputs, dumped: Sections) -> None:
    pool = pool_of(inputs, heads_first=False)
    columns = (slice(0, 64), slice(64, 128))
    boxes = [pool[3 * i % 16, :, i // 2 % 2, columns[i % 2]] for i in range(8)]
    assert torch.equal(dumped["copy_box"], torch.cat([landed(box) for box in boxes]))
    hinted = [landed(pool[4, :, 1, :64]), landed(pool[5, :, 0, 64:])]
    assert torch.equal(dumped["copy_box:hint"], torch.cat(hinted))
    assert torch.equal(dumped["mbarrier_publish"], landed(pool[9, :, 0, :64]))
    assert torch.equal(dumped["prefetch_map"], landed(pool[15, :, 1, 64:]))


def test_boxes_are_part_of_a_page_whose_heads_lie_first(inputs: Inputs, dumped: Sections) -> None:
    pool = pool_of(inputs, heads_first=True)
    parts = [landed(pool[7, 8:, 1, 64:]), landed(pool[2, 3:11, 0, :64])]
    assert torch.equal(dumped["copy_box:part"], torch.cat(parts))


def test_products_read_boxes(inputs: Inputs, dumped: Sections) -> None:
    tiles = inputs.tiles
    want = tiles.c[0, :, :64] + tiles.a["bf16"][0] @ tiles.b["bf16"][0, :, :64]
    assert torch.equal(floats(dumped["copy_box:product"]).view(64, 64), want)


def test_each_phase_waits_for_its_bytes(inputs: Inputs, dumped: Sections) -> None:
    pool = pool_of(inputs, heads_first=False)
    sums = torch.zeros(THREADS, dtype=torch.int64)
    for page in range(ROUNDS):
        words = landed(pool[page, :, 0, 64:]).long()
        sums = (sums * 3 + words[torch.arange(THREADS) * 4 + page % 4]) % 2**32
    assert torch.equal(dumped["mbarrier_expect"], signed(sums))


def test_arrivals_and_waits_pass_every_number_on(inputs: Inputs, dumped: Sections) -> None:
    assert torch.equal(dumped["mbarrier_arrive"], dumped["bar_arrive"]), "the same exchange"
    warps = list(inputs.words[:THREADS].long().split(32))
    for warp in range(1, 4):
        sent = warps[warp - 1][(torch.arange(32) * 5 + 3) % 32]
        warps[warp] = (warps[warp] * 3 + sent) % 2**32
    assert torch.equal(dumped["mbarrier_wait"], signed(torch.cat(warps)))
    assert dumped["mbarrier_init"].tolist() == [1, 2, 3, 5, 8, 13, 21, 34]
