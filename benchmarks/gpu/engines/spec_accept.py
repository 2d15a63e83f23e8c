"""Tokens per verify step of two engines, and how sure their ratio is.

Which drafts are accepted depends on the text that is answered, and near ties give two engines, or
one engine in other batches, other texts. So a ratio has a standard error, of prompts, and one of
answers alone that are equal in both: there is nothing between them but rounding.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import NamedTuple


class Verified(NamedTuple):
    """One answer: its tokens, and the verify steps that they took."""

    tokens: list[int]
    steps: int


def verified(tokens: Sequence[list[int]], steps: Sequence[int]) -> list[Verified]:
    """Of a pass, by prompt."""
    return [Verified(*one) for one in zip(tokens, steps, strict=True)]


def accept_length(answers: Sequence[Verified]) -> float | None:
    """Tokens per verify step of all of them together; None where nothing was verified."""
    steps = sum(one.steps for one in answers)
    return sum(len(one.tokens) for one in answers) / steps if steps else None


def compared(
    ours: Sequence[Sequence[Verified]], theirs: Sequence[Sequence[Verified]]
) -> dict[str, float]:
    """Ratio of accepted lengths, ours over theirs; nothing where one of them verified nothing.

    ours, theirs  passes of the same prompts, as many of both

    accept_length_ratio        of all answers
    accept_length_error        its standard error: each prompt left out in turn (jackknife)
    accept_length_ratio_equal  of answers whose tokens are the same, where there are such
    """
    prompts = range(len(ours[0]))
    whole = _ratio(ours, theirs, prompts)
    if whole is None:
        return {}
    found = {"accept_length_ratio": whole}
    without = [_ratio(ours, theirs, [j for j in prompts if j != i]) for i in prompts]
    rates = [rate for rate in without if rate is not None]
    if len(rates) > 1:
        mean, share = statistics.fmean(rates), (len(rates) - 1) / len(rates)
        found["accept_length_error"] = math.sqrt(share * sum((rate - mean) ** 2 for rate in rates))
    pairs = [
        (a, b)
        for one, other in zip(ours, theirs, strict=True)
        for a, b in zip(one, other, strict=True)
        if a.tokens == b.tokens and a.steps and b.steps
    ]
    if pairs:
        found["accept_length_ratio_equal"] = sum(b.steps for _, b in pairs) / sum(
            a.steps for a, _ in pairs
        )
        found["accept_length_equal_answers"] = float(len(pairs))
    return found


def _ratio(
    ours: Sequence[Sequence[Verified]],
    theirs: Sequence[Sequence[Verified]],
    prompts: Sequence[int],
) -> float | None:
    lengths = [
        accept_length([one[prompt] for one in passes for prompt in prompts])
        for passes in (ours, theirs)
    ]
    return lengths[0] / lengths[1] if lengths[0] and lengths[1] else None
