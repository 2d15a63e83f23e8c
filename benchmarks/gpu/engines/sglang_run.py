"""One SGLang engine over one load, several times: `python -m benchmarks.gpu.engines.sglang_run`.

A process of its own, because SGLang ends its parent when its scheduler dies. It imports SGLang,
which takes long, and then waits for a line on standard input: files of the job and of the result.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from benchmarks.gpu.engines.figures import Streamed, compare, of_passes, rates, summary

SATURATED_PASSES = 3
Ask = Callable[[list[dict[str, Any]]], tuple[list[Streamed], float]]


async def ask(engine: Any, request: dict[str, Any], began: float) -> Streamed:
    """Send a request at its time and read the stream to its end."""
    await asyncio.sleep(max(0.0, began + request["at"] - time.perf_counter()))
    sent = time.perf_counter()
    sampling = {"temperature": 0, "max_new_tokens": request["new"], "ignore_eos": True}
    stream = await engine.async_generate(
        input_ids=request["ids"], sampling_params=sampling, stream=True,
        lora_path=request.get("adapter"),
    )  # fmt: skip
    tokens: list[int] = []
    arrived = []
    async for chunk in stream:
        # Cumulative: a chunk holds all tokens so far.
        tokens = list(chunk["output_ids"])
        arrived.append((time.perf_counter(), len(tokens)))
    if len(tokens) != request["new"]:
        raise RuntimeError(f"asked for {request['new']} tokens, got {len(tokens)}")
    return Streamed(tokens, sent, arrived)


async def ask_all(engine: Any, requests: list[dict[str, Any]]) -> tuple[list[Streamed], float]:
    """Answers in the order of the requests, and seconds until the last."""
    began = time.perf_counter()
    answers = await asyncio.gather(*(ask(engine, request, began) for request in requests))
    return list(answers), time.perf_counter() - began


def timed_passes(ask_once: Ask, requests: list[dict[str, Any]], passes: int) -> dict[str, Any]:
    """Figures of the load, `tokens` of the first counted pass, and how equal two of them are."""
    figures, tokens = [], []
    for _ in range(passes):
        answers, seconds = ask_once(requests)
        figures.append(summary(requests, answers, seconds))
        tokens.append([answer.tokens for answer in answers])
        print(f"pass {len(figures)}: {figures[-1]}", flush=True)
    found = {**of_passes(figures), "tokens": tokens[1]}
    if passes > 2:
        found["passes_equal"] = compare(tokens[1], tokens[2])
    return found


def saturated_passes(
    ask_once: Ask, requests: list[dict[str, Any]], passes: int = SATURATED_PASSES
) -> dict[str, Any]:
    """Rates where arrivals bound nothing: every request is sent at once."""
    at_once = [{**request, "at": 0.0} for request in requests]
    return of_passes([rates(at_once, ask_once(at_once)[1]) for _ in range(passes)])


@contextlib.contextmanager
def serving(job: dict[str, Any]) -> Iterator[tuple[Any, Ask]]:
    """An engine that has answered the job's warm-up, and what asks it; ended afterwards."""
    import sglang

    began = time.perf_counter()
    engine = sglang.Engine(**job["engine"])
    print(f"engine up after {time.perf_counter() - began:.0f} s", flush=True)
    try:
        loop = engine.loop if hasattr(engine, "loop") else asyncio.new_event_loop()

        def ask_once(requests: list[dict[str, Any]]) -> tuple[list[Streamed], float]:
            found: tuple[list[Streamed], float] = loop.run_until_complete(ask_all(engine, requests))
            return found

        ask_once(job["warmup"])
        print(f"warm after {time.perf_counter() - began:.0f} s", flush=True)
        yield engine, ask_once
        print(f"measured after {time.perf_counter() - began:.0f} s", flush=True)
    finally:
        engine.shutdown()


def run(job: dict[str, Any]) -> dict[str, Any]:
    """Start an engine, warm it up, and time the requests."""
    import sglang

    began = time.perf_counter()
    with serving(job) as (_, ask_once):
        started = time.perf_counter() - began
        found = timed_passes(ask_once, job["requests"], job["passes"])
        if job["saturated"]:
            found["saturated"] = saturated_passes(ask_once, job["requests"])
    return {"sglang": sglang.__version__, "start_seconds": started, **found}


def awaited() -> tuple[dict[str, Any], Path] | None:
    """Import SGLang and wait for the word: a job, and the file of its answer; None for no job."""
    from sglang.srt.entrypoints.engine import Engine

    print(f"{Engine.__name__} imported", flush=True)
    files = sys.stdin.readline().rstrip("\n").split("\t")
    if len(files) != 2:
        return None
    return json.loads(Path(files[0]).read_text()), Path(files[1])


def main(work: Callable[[dict[str, Any]], dict[str, Any]] = run) -> None:
    """Import, wait for the word, work."""
    told = awaited()
    if told is not None:
        job, answer = told
        answer.write_text(json.dumps(work(job)))


if __name__ == "__main__":
    main()
