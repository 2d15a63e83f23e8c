"""In SGLang's scheduler process: settings that change between steps, and a record of each step.

A server's chunk size and whether chunks are mixed are two attributes of its scheduler, read anew
for every batch: one engine serves all settings of its backend. Steps are recorded for every backend
alike: lengths, the device's time at which a forward begins and ends, and what queueing it took the
host. What lies between two forwards is sampling, copies, and waiting for the host.
"""

from __future__ import annotations

import contextlib
import functools
import json
import multiprocessing
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from benchmarks.gpu.engines.places import PLACES

# [launched at (Unix s), begin ms, end ms, [[q, kv] of each prompt's chunk], decodes, their keys,
#  ms that queueing the forward took, and ms for which its thread had a core meanwhile]
Step = list[Any]
_GATE_POLL_SECONDS = 0.02


class Recorder:
    """Steps of this process since the last `take`."""

    def __init__(self) -> None:
        self._steps: list[tuple[float, Any, Any, tuple[Any, ...]]] = []

    def around(self, forward: Callable[..., Any]) -> Callable[..., Any]:
        """ModelRunner.forward that is recorded."""

        @functools.wraps(forward)
        def recorded(runner: Any, forward_batch: Any, *args: Any, **kwargs: Any) -> Any:
            if forward_batch.rids is None:
                return forward(runner, forward_batch, *args, **kwargs)
            # Before the forward, which may pad them.
            lengths = step_lengths(forward_batch)
            began, begin = time.time(), self._mark(runner)
            host, busy = time.perf_counter(), time.thread_time()
            result = forward(runner, forward_batch, *args, **kwargs)
            spent = [(time.perf_counter() - host) * 1e3, (time.thread_time() - busy) * 1e3]
            self._steps.append((began, begin, self._mark(runner), (*lengths, *spent)))
            return result

        return recorded

    def take(self) -> list[Step]:
        """Times in ms since the first of them; waits for the device."""
        steps, self._steps = self._steps, []
        if not steps:
            return []
        origin = steps[0][1]
        if not isinstance(origin, float):
            steps[-1][2].synchronize()
        since = functools.partial(_elapsed, origin)
        return [[at, since(begin), since(end), *found] for at, begin, end, found in steps]

    def _mark(self, runner: Any) -> Any:
        if not PLACES[str(runner.device).partition(":")[0]].accelerates:
            return time.perf_counter()
        import torch

        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event


def _elapsed(origin: Any, mark: Any) -> float:
    if isinstance(origin, float):
        return (float(mark) - origin) * 1e3
    return float(origin.elapsed_time(mark))


def step_lengths(forward_batch: Any) -> tuple[list[list[int]], int, int]:
    """([q, kv] of each prompt's chunk, running requests, their keys) of a step.

    A row of one token in a prefill is a running request. Of lengths that are on the device only,
    as some backends leave them, nothing is known.
    """
    if forward_batch.seq_lens_cpu is None:
        return [], 0, 0
    kv_lens = forward_batch.seq_lens_cpu.tolist()
    if forward_batch.forward_mode.is_decode():
        return [], len(kv_lens), sum(kv_lens)
    rows = list(zip(forward_batch.extend_seq_lens_cpu or [], kv_lens, strict=False))
    running = [kv for q, kv in rows if q == 1]
    return [[int(q), int(kv)] for q, kv in rows if q > 1], len(running), sum(running)


@contextlib.contextmanager
def recorded_scheduler() -> Iterator[Recorder]:
    """Scheduler with the two methods that `serving_run` calls; ModelRunner that is recorded."""
    from sglang.srt.managers.scheduler import Scheduler
    from sglang.srt.model_executor.model_runner import ModelRunner

    recorder, forward = Recorder(), ModelRunner.forward

    def serving_set(scheduler: Any, chunk: int, mixed: bool) -> None:
        scheduler.chunked_prefill_size, scheduler.is_mixed_chunk = chunk, mixed

    def serving_steps(_: Any, path: str) -> None:
        Path(path).write_text(json.dumps(recorder.take()))

    Scheduler.serving_set, Scheduler.serving_steps = serving_set, serving_steps
    ModelRunner.forward = recorder.around(forward)
    try:
        yield recorder
    finally:
        ModelRunner.forward = forward
        del Scheduler.serving_set, Scheduler.serving_steps


def run_scheduler(gate: str, *args: Any, **kwargs: Any) -> Any:
    """SGLang's run_scheduler_process, recorded; it is what its Engine class lets one replace.

    gate  file that it waits for, with everything imported and the device not yet touched. It ends
          when its parent does, as SGLang's own sees to only later.
    """
    from sglang.srt.managers.scheduler import run_scheduler_process

    with recorded_scheduler():
        parent = multiprocessing.parent_process()
        while not Path(gate).exists():
            if parent is not None and not parent.is_alive():
                return None
            time.sleep(_GATE_POLL_SECONDS)
        return run_scheduler_process(*args, **kwargs)
