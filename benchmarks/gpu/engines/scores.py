"""Greedy answers with log-probabilities, and how far two engines' answers are apart.

Tokens of a model with random weights flip at near ties wherever rounding differs, and what follows
a flip means nothing. Before it both engines have read the same tokens: there, log-probabilities
say how far their arithmetic is apart.
"""

from __future__ import annotations

import asyncio
import statistics
from collections.abc import Sequence
from typing import Any, NamedTuple

from benchmarks.gpu.engines.figures import compare, near_ties, noise, parting


class Scored(NamedTuple):
    """One answer: tokens, their log-probabilities, and how far the best two were apart each."""

    tokens: list[int]
    logprobs: list[float]
    margins: list[float]


async def ask_scored(engine: Any, request: dict[str, Any]) -> Scored:
    """Greedy answer of `request["new"]` tokens from an engine of SGLang."""
    found = await engine.async_generate(
        input_ids=request["ids"],
        sampling_params={"temperature": 0, "max_new_tokens": request["new"], "ignore_eos": True},
        return_logprob=True,
        top_logprobs_num=2,
        lora_path=request.get("adapter"),
    )
    meta = found["meta_info"]
    return Scored(
        list(found["output_ids"]),
        [float(one[0]) for one in meta["output_token_logprobs"]],
        [float(best[0]) - float(second[0]) for best, second in meta["output_top_logprobs"]],
    )


async def ask_all_scored(engine: Any, requests: Sequence[dict[str, Any]]) -> list[Scored]:
    """Answers to requests that are sent at once, in their order."""
    return list(await asyncio.gather(*(ask_scored(engine, one) for one in requests)))


def apart(want: Sequence[Scored], got: Sequence[Scored]) -> dict[str, float]:
    """How far two engines' answers to the same requests are apart.

    answers_equal, first_tokens_equal, tokens_equal  shares, as `figures.compare`
    logprob_mean, logprob_max   absolute difference where both had read the same tokens
    noise                       99th percentile of the difference of margins there
    differences, near_ties      answers that part, and the share of them whose first difference
                                `want` has at most twice the noise apart; no near_ties without any
    """
    found = compare([one.tokens for one in want], [one.tokens for one in got])
    logprobs: list[float] = []
    margins: list[float] = []
    gaps: list[float] = []
    for a, b in zip(want, got, strict=True):
        same = parting(a.tokens, b.tokens)
        logprobs += [abs(x - y) for x, y in _pairs(a.logprobs, b.logprobs, same)]
        margins += [abs(x - y) for x, y in _pairs(a.margins, b.margins, same)]
        gaps += a.margins[same : same + 1]
    found |= {"differences": len(gaps)}
    if logprobs:
        found |= {"logprob_mean": statistics.mean(logprobs), "logprob_max": max(logprobs)}
        found |= {"noise": noise(margins)}
        if gaps:
            found["near_ties"] = near_ties(gaps, found["noise"])
    return found


def _pairs(a: list[float], b: list[float], count: int) -> list[tuple[float, float]]:
    return list(zip(a[:count], b[:count], strict=True))
