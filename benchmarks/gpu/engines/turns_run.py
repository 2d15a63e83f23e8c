"""An SGLang engine that answers its load once per line it is told; a process of its own.

The first line names the files of the job and of the answer, as for sglang_run. The answer file is
written anew each time: first when the engine has warmed up, then with each pass's seconds.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import sys
from pathlib import Path
from typing import Any

from benchmarks.gpu.engines.scores import ask_all_scored
from benchmarks.gpu.engines.sglang_run import awaited, serving


def write_whole(path: Path, document: Any) -> None:
    """Never half a document to whom polls for it."""
    part = path.with_suffix(".part")
    part.write_text(json.dumps(document))
    os.replace(part, path)


def in_groups(questions: list[Any], count: int) -> list[list[Any]]:
    """`questions` in their order, in at most `count` groups of one size."""
    size = -(-len(questions) // count)
    return [questions[i : i + size] for i in range(0, len(questions), size)]


def scores(engine: Any, groups: list[list[Any]]) -> list[Any]:
    """Scored answers of an engine, one group of requests after the other."""
    loop = engine.loop if hasattr(engine, "loop") else asyncio.new_event_loop()
    return [one for some in groups for one in loop.run_until_complete(ask_all_scored(engine, some))]


def main() -> None:
    """Import, wait for the job, warm up, then a pass per line until standard input ends.

    `loads` in the job: requests of each pass in turn, in place of the same ones; `questions`: what
    the line `answers N` asks for tokens of, in N groups that are asked one after the other;
    `scores N` also for log-probabilities.
    """
    told = awaited()
    if told is None:
        return
    job, answer = told
    with serving(job) as (engine, ask_once):
        # What the short warm-up did not reach: counted by nobody.
        ask_once(job["requests"])
        write_whole(answer, {"ready": True})
        loads = itertools.cycle(job.get("loads") or [job["requests"]])
        for line in sys.stdin:
            word, _, parts = line.strip().partition(" ")
            if word == "answers":
                groups = in_groups(job["questions"], int(parts))
                tokens = [found.tokens for some in groups for found in ask_once(some)[0]]
                write_whole(answer, {"tokens": tokens})
            elif word == "scores":
                write_whole(
                    answer, {"scores": scores(engine, in_groups(job["questions"], int(parts)))}
                )
            else:
                write_whole(answer, {"seconds": ask_once(next(loads))[1]})


if __name__ == "__main__":
    main()
