"""Request lengths and arrivals: a published distribution built in, or a trace file.

Built in: quantiles of the Azure LLM inference trace 2023, conversation (19,366 requests over
58 minutes, CC-BY 4.0, github.com/Azure/AzurePublicDataset; described in Patel et al., Splitwise,
ISCA 2024). Prompt and answer lengths there are nearly independent (Spearman 0.07) and the gaps
between arrivals nearly exponential (coefficient of variation 1.09), so both are drawn so.
"""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path

import numpy as np

from pod_integrate.replay.requests import BLOCK_TOKENS, Request, read

_PERCENT = (0, 1, 5, 10, 20, 30, 40, 50, 60, 70, 80, 90, 95, 99, 100)
_PROMPT = (2, 29, 181, 207, 387, 403, 703, 1020, 1071, 1130, 1315, 2734, 4083, 4142, 14050)
_ANSWER = (7, 16, 41, 54, 77, 91, 103, 129, 177, 384, 400, 424, 451, 601, 1000)
_MAX_ROWS = 200_000
BUILT_IN = "Azure LLM inference trace 2023 (conversation), built-in quantiles"


@dataclasses.dataclass(frozen=True, slots=True)
class Fit:
    """How a trace is fitted to a machine.

    rate        requests per second on average, Poisson for length-only sources
    scale       factor on prompt and answer lengths
    max_prompt, max_answer   upper limits after scaling, tokens
    """

    rate: float
    scale: float = 1.0
    max_prompt: int = 8192
    max_answer: int = 1024


def built_in(count: int, fit: Fit, *, seed: int = 0) -> list[Request]:
    """Draw `count` requests from the built-in distribution; the same seed gives the same list."""
    rng = np.random.default_rng(seed)
    prompts = np.interp(rng.uniform(0, 100, count), _PERCENT, _PROMPT)
    answers = np.interp(rng.uniform(0, 100, count), _PERCENT, _ANSWER)
    times = _poisson(rng, count, fit.rate)
    return [
        _fit(Request(float(t), round(p), round(a)), fit)
        for t, p, a in zip(times, prompts, answers, strict=True)
    ]


def from_file(path: Path, count: int, fit: Fit, *, seed: int = 0) -> list[Request]:
    """Read the first `count` requests of a trace and fit them to `fit`.

    Azure CSV (TIMESTAMP, ContextTokens, GeneratedTokens) and Mooncake JSONL (timestamp,
    input_length, output_length, hash_ids) keep the form of their arrivals, stretched to the rate;
    arXiv CSV (num_prefill_tokens, num_decode_tokens) has lengths only: arrivals are Poisson.
    Raises TraceError naming the line that does not fit.
    """
    requests = list(itertools.islice(read(path), min(count, _MAX_ROWS)))
    return [_fit(r, fit) for r in _arrivals(requests, fit.rate, seed)]


def _arrivals(requests: list[Request], rate: float, seed: int) -> list[Request]:
    times = np.array([r.at for r in requests])
    span = float(times.max() - times.min())
    if span > 0:
        times = (times - times.min()) * (len(requests) / rate / span)
    else:
        times = _poisson(np.random.default_rng(seed), len(requests), rate)
    order = np.argsort(times, kind="stable")
    return [dataclasses.replace(requests[i], at=float(times[i])) for i in order]


def _poisson(rng: np.random.Generator, count: int, rate: float) -> np.ndarray:
    gaps = rng.exponential(1.0 / rate, count)
    gaps[:1] = 0.0
    return np.asarray(np.cumsum(gaps))


def _fit(request: Request, fit: Fit) -> Request:
    prompt = min(max(1, round(request.prompt_tokens * fit.scale)), fit.max_prompt)
    answer = min(max(1, round(request.answer_tokens * fit.scale)), fit.max_answer)
    return dataclasses.replace(request, prompt_tokens=prompt, answer_tokens=answer)


def prompt_ids(request: Request, index: int, *, vocab: int, scale: float, seed: int) -> list[int]:
    """Token ids of a prompt: equal block ids give equal text, the rest is random per request."""
    block = max(1, round(BLOCK_TOKENS * scale))
    ids: list[int] = []
    for name in request.blocks:
        if len(ids) >= request.prompt_tokens:
            break
        ids.extend(np.random.default_rng((seed, 1, name)).integers(0, vocab, block).tolist())
    missing = request.prompt_tokens - len(ids)
    if missing > 0:
        ids.extend(np.random.default_rng((seed, 0, index)).integers(0, vocab, missing).tolist())
    return ids[: request.prompt_tokens]
