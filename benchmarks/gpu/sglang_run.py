"""One SGLang engine over one list of requests: `python -m benchmarks.gpu.sglang_run`.

A process of its own, because SGLang ends its parent when its scheduler dies. It imports SGLang,
which takes long, and then waits for a line on standard input: files of the job and of the result.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple


class Answer(NamedTuple):
    """Tokens of one request, and the times in seconds at which it was sent and they came."""

    tokens: list[int]
    sent: float
    arrived: list[tuple[float, int]]


async def ask(engine: Any, request: dict[str, Any], began: float) -> Answer:
    """Send a request at its time and read the stream to its end."""
    await asyncio.sleep(max(0.0, began + request["at"] - time.perf_counter()))
    sent = time.perf_counter()
    sampling = {"temperature": 0, "max_new_tokens": request["new"], "ignore_eos": True}
    stream = await engine.async_generate(
        input_ids=request["ids"], sampling_params=sampling, stream=True
    )
    tokens: list[int] = []
    arrived = []
    async for chunk in stream:
        # Cumulative: a chunk holds all tokens so far.
        tokens = list(chunk["output_ids"])
        arrived.append((time.perf_counter(), len(tokens)))
    if len(tokens) != request["new"]:
        raise RuntimeError(f"asked for {request['new']} tokens, got {len(tokens)}")
    return Answer(tokens, sent, arrived)


async def ask_all(engine: Any, requests: list[dict[str, Any]]) -> tuple[list[Answer], float]:
    """Answers in the order of the requests, and seconds until the last."""
    began = time.perf_counter()
    answers = await asyncio.gather(*(ask(engine, request, began) for request in requests))
    return list(answers), time.perf_counter() - began


def summary(
    requests: list[dict[str, Any]], answers: list[Answer], seconds: float
) -> dict[str, Any]:
    """Rates, and percentiles of times to the first and between the following tokens."""
    first = [answer.arrived[0][0] - answer.sent for answer in answers]
    between = []
    for answer in answers:
        for (before, had), (now, has) in zip(answer.arrived, answer.arrived[1:], strict=False):
            # Tokens of one chunk share the time since the chunk before.
            between += [(now - before) / (has - had)] * (has - had) if has > had else []
    new = sum(request["new"] for request in requests)
    return {
        "seconds": seconds,
        "output_tokens_per_second": new / seconds,
        "tokens_per_second": (new + sum(len(r["ids"]) for r in requests)) / seconds,
        **{f"ttft_ms_p{p}": percentile(first, p) * 1e3 for p in (50, 99)},
        **{f"itl_ms_p{p}": percentile(between, p) * 1e3 for p in (50, 99)},
    }


def percentile(values: list[float], p: int) -> float:
    """Of any number of values, by linear interpolation; nan of none."""
    if len(values) < 2:
        return values[0] if values else float("nan")
    return statistics.quantiles(values, n=100, method="inclusive")[p - 1]


def run(job: dict[str, Any]) -> dict[str, Any]:
    """Start an engine, warm it up, and time the requests."""
    import sglang

    began = time.perf_counter()
    engine = sglang.Engine(**job["engine"])
    started = time.perf_counter() - began
    print(f"engine up after {started:.0f} s", flush=True)
    try:
        loop = engine.loop if hasattr(engine, "loop") else asyncio.new_event_loop()
        loop.run_until_complete(ask_all(engine, job["warmup"]))
        print(f"warm after {time.perf_counter() - began:.0f} s", flush=True)
        answers, seconds = loop.run_until_complete(ask_all(engine, job["requests"]))
    finally:
        engine.shutdown()
    return {
        "sglang": sglang.__version__,
        "start_seconds": started,
        **summary(job["requests"], answers, seconds),
        "tokens": [answer.tokens for answer in answers],
    }


def main() -> None:
    """Import, wait for the word, run."""
    from sglang.srt.entrypoints.engine import Engine

    print(f"{Engine.__name__} imported", flush=True)
    files = sys.stdin.readline().rstrip("\n").split("\t")
    if len(files) != 2:
        return
    result = run(json.loads(Path(files[0]).read_text()))
    Path(files[1]).write_text(json.dumps(result))


if __name__ == "__main__":
    main()
