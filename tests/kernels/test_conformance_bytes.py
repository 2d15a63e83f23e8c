"""What orders and widens bytes, on the emulated SM, against PyTorch's own e4m3."""

from __future__ import annotations

import pytest
import torch
from support.conformance import Sections


def bytes_of(dumped: Sections) -> torch.Tensor:
    """[words, 4]: every byte at every place."""
    words = dumped["order_bytes"].view(-1, 4)[:, 0].contiguous()
    return words.view(torch.uint8).view(-1, 4)


def test_bytes_go_where_the_order_says(dumped: Sections) -> None:
    x = bytes_of(dumped)
    assert all(len(column.unique()) == 256 for column in x.T)
    orders = (0x3210, 0x1404, 0x3424, 0x3120)
    got = dumped["order_bytes"].view(torch.uint8).view(-1, 4, 4)
    padded = torch.nn.functional.pad(x, (0, 1))
    for place, order in enumerate(orders):
        digits = [order >> 4 * i & 15 for i in range(4)]
        assert torch.equal(got[:, place], padded[:, digits]), hex(order)


@pytest.mark.parametrize("section", ["widen2", "mul2:widened"])
def test_every_e4m3_is_widened_exactly(section: str, dumped: Sections) -> None:
    got = dumped[section].view(torch.float16).view(-1, 4).float()
    want = bytes_of(dumped).view(torch.float8_e4m3fn).float()
    if section != "widen2":
        # Without the instruction the pattern of NaN is the number after the largest.
        nan = torch.where(bytes_of(dumped) > 127, -480.0, 480.0)
        want = torch.where(want.isnan(), nan, want)
    same = (got == want) & (got.signbit() == want.signbit())
    assert bool((same | (got.isnan() & want.isnan())).all())
