"""One speculating engine: the same prompts twice, the second time in reverse.

`python -m benchmarks.gpu.engines.spec_run`, started and told what to do by `spec`.
"""

from __future__ import annotations

import time
from typing import Any

from benchmarks.gpu.engines import sglang_run


def ask(engine: Any, requests: list[dict[str, Any]]) -> tuple[list[list[int]], list[int]]:
    """Of each answer its tokens, and the verify steps that they took.

    Raises RuntimeError when an answer has another length than was asked for.
    """
    sampling = [
        {"temperature": 0, "max_new_tokens": one["new"], "ignore_eos": True} for one in requests
    ]
    answers = engine.generate(input_ids=[one["ids"] for one in requests], sampling_params=sampling)
    tokens = [list(answer["output_ids"]) for answer in answers]
    for one, got in zip(requests, tokens, strict=True):
        if len(got) != one["new"]:
            raise RuntimeError(f"asked for {one['new']} tokens, got {len(got)}")
    return tokens, [int(answer["meta_info"].get("spec_verify_ct", 0)) for answer in answers]


def run(job: dict[str, Any]) -> dict[str, Any]:
    """Start an engine and ask it; `accept_length` is None where nothing was verified."""
    import sglang

    began = time.perf_counter()
    with sglang_run.serving(job) as (engine, _):
        started = time.perf_counter() - began
        requests = job["requests"]
        first, steps = ask(engine, requests)
        second, further = ask(engine, requests[::-1])
    tokens, taken = sum(map(len, first + second)), sum(steps + further)
    return {
        "sglang": sglang.__version__,
        "start_seconds": started,
        "seconds": time.perf_counter() - began,
        "tokens": tokens,
        "verify_steps": taken,
        "accept_length": tokens / taken if taken else None,
        "passes": [first, second[::-1]],
        "steps": [steps, further[::-1]],
    }


if __name__ == "__main__":
    sglang_run.main(run)
