"""Two servers' answers and logprobs compared: by tokens, near ties and perplexity."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Iterable, Mapping
from typing import Any

Answers = Mapping[int, list[int]]
Logprobs = Mapping[int, list[float]]
_NOISE_QUANTILE = 0.99


def perplexity(logprobs: Logprobs) -> float | None:
    """exp of the mean negative logprob over all tokens; None of none."""
    values = list(itertools.chain.from_iterable(logprobs.values()))
    return math.exp(-statistics.fmean(values)) if values else None


def ratio(ours: Logprobs, stock: Logprobs) -> dict[str, Any] | None:
    """Perplexity of `ours` over that of `stock`, over texts that both have scored whole.

    tokens, texts     how many both have scored
    worst_text        the ratio of the text where it is furthest from 1
    mean_difference   between two logprobs of one token, in the mean, of its magnitude
    """
    both = sorted(set(ours) & set(stock))
    if not both:
        return None
    each = [_mean(ours[key], stock[key]) for key in both]
    tokens = sum(len(stock[key]) for key in both)
    whole = sum(mean * len(stock[key]) for mean, key in zip(each, both, strict=True)) / tokens
    return {
        "ratio": math.exp(whole),
        "tokens": tokens,
        "texts": len(both),
        "worst_text": math.exp(max(each, key=abs)),
        "mean_difference": statistics.fmean(differences(ours, stock)),
    }


def _mean(ours: list[float], stock: list[float]) -> float:
    return statistics.fmean(b - a for a, b in zip(ours, stock, strict=True))


def differences(a: Logprobs, b: Logprobs) -> list[float]:
    """Magnitudes of what two logprobs of one token differ by."""
    return [
        abs(x - y) for key in sorted(set(a) & set(b)) for x, y in zip(a[key], b[key], strict=True)
    ]


def noise(one: Logprobs, other: Logprobs) -> float | None:
    """What 99 of 100 logprobs of a backend stay within when another of its kernels says them."""
    found = sorted(differences(one, other))
    return found[int(_NOISE_QUANTILE * (len(found) - 1))] if found else None


def answers(
    want: Answers, got: Answers, margins: Mapping[int, list[float]], tie: float | None
) -> dict[str, Any]:
    """How many answers are equal token by token; of each other one, how near a tie it parted at.

    margins  logprob of the best token minus that of the second best, of `want`, per position
    tie      a margin up to which a difference is a near tie; None: not told
    """
    both = sorted(set(want) & set(got))
    parted = [(key, first_difference(want[key], got[key])) for key in both if want[key] != got[key]]
    told = [margins[key][at] for key, at in parted if key in margins and at < len(margins[key])]
    found: dict[str, Any] = {
        "compared": len(both),
        "equal": len(both) - len(parted),
        "first_tokens_equal": sum(want[key][:1] == got[key][:1] for key in both),
        "tokens": sum(len(want[key]) for key in both),
        "margins_where_parted": sorted(told, reverse=True),
    }
    if tie is not None:
        found["near_ties"] = sum(margin <= tie for margin in told)
    return found


def first_difference(want: Iterable[int], got: Iterable[int]) -> int:
    """Position at which two answers part; ValueError when they are equal."""
    for at, (a, b) in enumerate(itertools.zip_longest(want, got)):
        if a != b:
            return at
    raise ValueError("the answers are equal")
