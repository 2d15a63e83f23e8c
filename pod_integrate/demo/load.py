"""Sends requests to a server's HTTP API at their times and measures what its users feel."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import time
from collections.abc import Sequence

import httpx
import numpy as np

from pod_integrate.demo.workload import prompt_ids
from pod_integrate.replay.requests import Request


@dataclasses.dataclass
class LoadStats:
    """Live counters of one load run; seconds throughout.

    ttft  time to first token of each request that got one
    tbt   gaps between tokens; a chunk of n tokens counts as n gaps of a n-th each
    """

    sent: int = 0
    done: int = 0
    failed: int = 0
    prompt_tokens: int = 0
    answer_tokens: int = 0
    ttft: list[float] = dataclasses.field(default_factory=list)
    tbt: list[float] = dataclasses.field(default_factory=list)
    last_error: str = ""
    started: float = dataclasses.field(default_factory=time.monotonic)
    finished: float | None = None

    def percentile(self, name: str, percent: float) -> float | None:
        """Percentile of `ttft` or `tbt` in seconds, None while there is no sample."""
        samples = getattr(self, name)
        return float(np.percentile(samples, percent)) if samples else None


async def run_load(
    url: str,
    requests: Sequence[Request],
    stats: LoadStats,
    *,
    vocab: int,
    scale: float,
    concurrency: int,
    seed: int = 0,
    timeout: float = 300.0,
) -> LoadStats:
    """Send `requests` to SGLang's `/generate` at `url`, at most `concurrency` at a time.

    Prompts are random token ids below `vocab`; answers are forced to their full length (greedy,
    end-of-text ignored). Failures are counted in `stats`, with the last message, and never stop
    the run. Returns `stats`, which callers may read while it fills.
    """
    gate = asyncio.Semaphore(concurrency)
    stats.started = time.monotonic()
    limits = httpx.Limits(max_connections=concurrency)
    async with httpx.AsyncClient(
        base_url=url, timeout=timeout, limits=limits, trust_env=False
    ) as client:

        async def one(index: int, request: Request) -> None:
            await asyncio.sleep(max(0.0, stats.started + request.at - time.monotonic()))
            async with gate:
                stats.sent += 1
                try:
                    ids = prompt_ids(request, index, vocab=vocab, scale=scale, seed=seed)
                    await _stream(client, ids, request.answer_tokens, stats)
                    stats.done += 1
                except (httpx.HTTPError, ValueError, KeyError) as error:
                    stats.failed += 1
                    stats.last_error = f"{type(error).__name__}: {error}"

        await asyncio.gather(*(one(i, r) for i, r in enumerate(requests)))
    stats.finished = time.monotonic()
    return stats


async def _stream(client: httpx.AsyncClient, ids: list[int], answer: int, stats: LoadStats) -> None:
    body = {
        "input_ids": ids,
        "stream": True,
        "sampling_params": {"max_new_tokens": answer, "ignore_eos": True, "temperature": 0},
    }
    sent = last = time.monotonic()
    tokens = 0
    async with client.stream("POST", "/generate", json=body) as response:
        if response.status_code != 200:
            text = (await response.aread()).decode(errors="replace")[:200]
            raise ValueError(f"HTTP {response.status_code}: {text}")
        async for line in response.aiter_lines():
            if not line.startswith("data:") or line.endswith("[DONE]"):
                continue
            now = time.monotonic()
            total = int(json.loads(line[5:])["meta_info"]["completion_tokens"])
            if total <= tokens:
                continue
            if tokens == 0:
                stats.ttft.append(now - sent)
                stats.prompt_tokens += len(ids)
            else:
                stats.tbt.extend([(now - last) / (total - tokens)] * (total - tokens))
            stats.answer_tokens += total - tokens
            tokens, last = total, now
    if tokens == 0:
        raise ValueError("the stream ended without a token")
