"""One traced SGLang engine: passes timed, or one profiled; a process of its own, as sglang_run."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from benchmarks.gpu.engines.figures import rates
from benchmarks.gpu.engines.sglang_run import Ask, main, serving

# The exchange posts what is left well within these.
_SETTLE_SECONDS = 3.0
_WRITE_SECONDS = 60.0


def work(job: dict[str, Any]) -> dict[str, Any]:
    """Rates of each pass but the first; or, with `profile` in the job, one pass under it.

    `seconds` in the job: passes go on until they are over.
    """
    with serving(job) as (engine, ask_once):
        if "profile" in job:
            ask_once(job["requests"])
            return {"profile": _profiled(engine, ask_once, job)}
        seconds: list[float] = []
        until = time.monotonic() + float(job.get("seconds", 0.0))
        while len(seconds) < job["passes"] or time.monotonic() < until:
            seconds.append(ask_once(job["requests"])[1])
        return {"rates": [rates(job["requests"], s) for s in seconds[1:]]}


def _profiled(engine: Any, ask_once: Ask, job: dict[str, Any]) -> dict[str, Any]:
    """Unix times around a pass whose kernels torch's profiler wrote to the job's folder."""
    folder = Path(job["profile"])
    folder.mkdir(parents=True, exist_ok=True)
    time.sleep(_SETTLE_SECONDS)
    engine.start_profile(output_dir=str(folder), activities=["GPU"], with_stack=False)
    begin = time.time()
    ask_once(job["requests"])
    end = time.time()
    engine.stop_profile()
    until = time.monotonic() + _WRITE_SECONDS
    while not list(folder.rglob("*.trace.json.gz")) and time.monotonic() < until:
        time.sleep(0.5)
    # One more step, so that the clock hands out the last one's times; and the exchange's round.
    ask_once(job["requests"][:1])
    time.sleep(_SETTLE_SECONDS)
    return {"unix": [begin, end], "folder": str(folder)}


if __name__ == "__main__":
    main(work)
