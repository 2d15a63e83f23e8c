"""Figures of answers: rates and times of one pass, medians of several, and tokens compared."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

RUNNING, PROMPTS = "running", "prompts"
_NOISE_QUANTILE = 0.99
_TTFT = {RUNNING: (50,), PROMPTS: (50, 99)}


class Streamed(NamedTuple):
    """Tokens of one request, and the times in seconds at which it was sent and they came."""

    tokens: list[int]
    sent: float
    arrived: list[tuple[float, int]]


def rates(requests: list[dict[str, Any]], seconds: float) -> dict[str, float]:
    """Tokens per second of requests that were all answered after `seconds`."""
    new = sum(request["new"] for request in requests)
    return {
        "seconds": seconds,
        "output_tokens_per_second": new / seconds,
        "tokens_per_second": (new + sum(len(r["ids"]) for r in requests)) / seconds,
    }


def summary(
    requests: list[dict[str, Any]], answers: list[Streamed], seconds: float
) -> dict[str, float]:
    """Rates, and percentiles of times to the first and between the following tokens.

    Times to the first token also apart for the kinds of requests that there are.
    """
    first = [answer.arrived[0][0] - answer.sent for answer in answers]
    found = rates(requests, seconds)
    found |= {f"ttft_ms_p{p}": percentile(first, p) * 1e3 for p in (50, 99)}
    for kind, wanted in _TTFT.items():
        own = [t for t, request in zip(first, requests, strict=True) if request["kind"] == kind]
        found |= {f"ttft_ms_{kind}_p{p}": percentile(own, p) * 1e3 for p in wanted if own}
    between = [gap for answer in answers for gap in _gaps(answer)]
    return found | {f"itl_ms_p{p}": percentile(between, p) * 1e3 for p in (50, 99)}


def _gaps(answer: Streamed) -> Iterable[float]:
    for (before, had), (now, has) in zip(answer.arrived, answer.arrived[1:], strict=False):
        # Tokens of one chunk share the time since the chunk before.
        yield from [(now - before) / (has - had)] * (has - had) if has > had else []


def percentile(values: list[float], p: int) -> float:
    """Of any number of values, by linear interpolation; nan of none."""
    if len(values) < 2:
        return values[0] if values else math.nan
    return statistics.quantiles(values, n=100, method="inclusive")[p - 1]


def quantile(values: Sequence[float], share: float) -> float:
    """The value that stands nearest to a share of them, in order of size."""
    return sorted(values)[round(share * (len(values) - 1))]


def noise(errors: Sequence[float]) -> float:
    """How far rounding moves the distance of two logits, by its errors of many of them."""
    return quantile(errors, _NOISE_QUANTILE)


def near_ties(gaps: Sequence[float], rounding: float) -> float:
    """Share of first differences between candidates that are at most twice the noise apart.

    Each of the two attentions rounds.
    """
    return sum(gap <= 2 * rounding for gap in gaps) / len(gaps)


def parting(want: Sequence[int], got: Sequence[int]) -> int:
    """Tokens before the first that differs; all where none does."""
    pairs = enumerate(zip(want, got, strict=True))
    return next((i for i, (x, y) in pairs if x != y), len(want))


def of_passes(passes: list[dict[str, float]]) -> dict[str, Any]:
    """Median of each figure over all passes but the first, which is kept apart.

    The first pass still warms up what the short warm-up requests did not reach. `spread` has
    least and greatest of each figure over the counted passes.
    """
    counted = passes[1:]
    columns = {name: [one[name] for one in counted] for name in passes[0]}
    return {
        **{name: statistics.median(values) for name, values in columns.items()},
        "passes_counted": len(counted),
        "first_pass": passes[0],
        "spread": {name: [min(values), max(values)] for name, values in columns.items()},
    }


def compare(want: list[list[int]], got: list[list[int]]) -> dict[str, float]:
    """Share of equal answers, equal first tokens, and tokens before an answer's difference."""
    same = sum(parting(a, b) for a, b in zip(want, got, strict=True))
    equal = sum(a == b for a, b in zip(want, got, strict=True))
    first = sum(a[0] == b[0] for a, b in zip(want, got, strict=True))
    return {
        "answers_equal": equal / len(want),
        "first_tokens_equal": first / len(want),
        "tokens_equal": same / sum(map(len, want)),
    }
