"""What the CTAs of a launch say that they did."""

from __future__ import annotations

from typing import NamedTuple

import torch

RECORD_WORDS = 5  # int64, of a CtaRecord of arguments.h


class CtaRecord(NamedTuple):
    """What one CTA did: `items` items of an op (0 prefill, 1 decode) from `first_item` on.

    ticket  that it drew from its SM's counter; -1 where a launch runs one op
    """

    smid: int
    op: int
    first_item: int
    items: int
    ticket: int
    begin_ns: int
    end_ns: int


def decode_records(records: torch.Tensor) -> list[CtaRecord]:
    """What a launch wrote into int64 words, RECORD_WORDS to a CTA; on the CPU, contiguous."""
    times = records.view(-1, RECORD_WORDS)[:, 3:].tolist()
    numbers = records.view(torch.int32).view(-1, 2 * RECORD_WORDS)[:, :5].tolist()
    return [CtaRecord(*five, *two) for five, two in zip(numbers, times, strict=True)]
