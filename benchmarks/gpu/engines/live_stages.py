"""The stages of the live part: what each starts, and what it files."""

from __future__ import annotations

import concurrent.futures
import json
import statistics
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.engines.sink import TraceSink
from benchmarks.gpu.engines.figures import compare as equality
from benchmarks.gpu.engines.job import Run
from benchmarks.gpu.engines.live_document import Live
from benchmarks.gpu.engines.live_gain import by_bucket, decode_share, gain
from benchmarks.gpu.engines.live_tuner import LocalTuner
from benchmarks.gpu.engines.turns import Standing, order, paired_cost, side_by_side, standing

_POLL_SECONDS = "0.5"
# Between two looks at what the tuner says, and passes that a planted config gets at most.
_LOOK_SECONDS, _PLANTED_PASSES = 0.25, 4
_DEFAULT, _TUNED = "default", "tuned"
_OTHER_BATCHES = 4
Job = dict[str, Any]


def cost(live: Live, run: Run, job: Job, tuner: LocalTuner) -> None:
    """What recording and experiments cost at their defaults."""
    rates: dict[str, list[float]] = {"off": [], "on": []}

    def each(name: str, one: dict[str, float]) -> None:
        rates[name].append(one["output_tokens_per_second"])
        live.say(f"cost, {name}: {rates[name][-1]:.1f} tokens/s")
        rounds = min(map(len, rates.values()))
        if rounds:
            live.save(overhead=paired_cost(*(some[:rounds] for some in rates.values())))
        live.save(rates=rates)

    side_by_side(
        run, job, {"off": {}, "on": {"POD_ATTN_TUNER_URL": tuner.url}}, live.folders,
        passes=live.options.rounds, limit=live.options.each, each=each,
    )  # fmt: skip


def learn(
    live: Live, run: Run, job: Job, tuner: LocalTuner, pool: concurrent.futures.Executor, *,
    then: Callable[[Live, Standing, LocalTuner, concurrent.futures.Executor], None],
) -> None:  # fmt: skip
    """Learn, over a SIGKILL of the tuner; `then` does more with the engine that has learned."""
    environment = {
        "POD_ATTN_TUNER_URL": tuner.url, "POD_ATTN_POLL_SECONDS": _POLL_SECONDS,
        "POD_ATTN_EXPERIMENTS": str(live.options.share), "POD_ATTN_TRACE_SAMPLE": "1",
    }  # fmt: skip
    with standing(
        run, job, {"learn": environment}, live.folders, limit=live.options.each
    ) as workers:
        engine, began, progress = workers["learn"], time.monotonic(), []
        live.say("learning begins")
        while (passed := time.monotonic() - began) < live.options.learn:
            engine.once(live.options.each)
            if "killed" not in live.document and 2 * passed > live.options.learn:
                _kill(live, tuner)
            overview = tuner.overview()
            progress.append({"seconds": round(time.monotonic() - began, 1), **_state(overview)})
            live.say(f"learning: {progress[-1]}")
            live.save(progress=progress)
        _file(live, tuner)
        then(live, engine, tuner, pool)


def _kill(live: Live, tuner: LocalTuner) -> None:
    before = _state(tuner.overview())
    seconds = tuner.kill()
    found = {"before": before, "after": _state(tuner.overview()), "back_after_s": seconds}
    live.save(killed=found)
    live.say(f"the tuner was killed: {found}")


def _state(overview: dict[str, Any]) -> dict[str, int]:
    buckets = overview["buckets"]
    return {
        "trials": sum(one["trials"] for one in buckets),
        "pairs": sum(one["pairs"] for one in buckets),
        "pruned": sum(one["pruned"] for one in buckets),
        "promoted": sum(one["status"] == "promoted" for one in buckets),
    }


def _file(live: Live, tuner: LocalTuner) -> None:
    """What was learned: the table, the tuner's own view, and what its page shows."""
    name, out = live.options.model, live.options.out
    page, body = tuner.page(), tuner.table()
    (out / f"live_{name}_page.json").write_text(json.dumps(page))
    if body is not None:
        (out / f"live_{name}_table.json").write_bytes(body)
    overview = page["overview"]
    live.save(tuner={one: overview[one] for one in ("totals", "tables", "buckets", "decisions")})


def plant(
    live: Live, engine: Standing, tuner: LocalTuner, pool: concurrent.futures.Executor
) -> None:
    """Put a poor config in force, and count its bucket's steps until the tuner takes it back."""
    planted = tuner.plant()
    if planted is None:
        live.save(rollback=None)
        live.say("no config was slower when it was tried: none is planted")
        return
    first, began = tuner.steps(planted.bucket), time.monotonic()
    found: dict[str, Any] = {"bucket": planted.bucket, "speedup": planted.speedup, "steps": None}
    live.say(f"planted in {planted.bucket}, {planted.speedup:.2f} times as fast")
    for _ in range(_PLANTED_PASSES):
        turn = pool.submit(engine.once, live.options.each)
        while not turn.done():
            if found["steps"] is None and tuner.rolled_back(planted):
                steps = tuner.steps(planted.bucket) - first
                found |= {"steps": steps, "seconds": round(time.monotonic() - began, 1)}
                live.say(f"rolled back: {found}")
            time.sleep(_LOOK_SECONDS)
        turn.result()
        live.save(rollback=found)
        if found["steps"] is not None:
            return


def compare(live: Live, run: Run, job: Job, table: Path) -> None:
    """Default and tuned in turns, without a tuner: device times by bucket, rates, answers."""
    rates: dict[str, list[float]] = {_DEFAULT: [], _TUNED: []}
    with TraceSink() as plain, TraceSink() as tuned:
        sinks = {_DEFAULT: plain, _TUNED: tuned}
        environments = {
            name: {
                "POD_ATTN_TUNER_URL": sink.url, "POD_ATTN_POLL_SECONDS": _POLL_SECONDS,
                "POD_ATTN_TRACE_SAMPLE": "1", "POD_ATTN_EXPERIMENTS": "0",
            }
            for name, sink in sinks.items()
        }  # fmt: skip
        environments[_TUNED]["POD_ATTN_TABLE"] = str(table)
        with standing(run, job, environments, live.folders, limit=live.options.each) as workers:
            # Neither the first steps of a config, in shadow, nor what was compiled on the way.
            begun = time.time()
            for number in range(live.options.rounds):
                for name in order(list(workers), number):
                    seconds = workers[name].once(live.options.each)
                    rates[name].append(1.0 / seconds)
                    live.say(f"{name}: a pass in {seconds:.1f} s")
                _compared(live, sinks, table, rates, begun)
            if "questions" in job:
                live.save(answers=_answers(workers, live.options.each))
        _compared(live, sinks, table, rates, begun)


def _compared(
    live: Live, sinks: dict[str, TraceSink], table: Path, rates: dict[str, list[float]],
    begun: float,
) -> None:  # fmt: skip
    """File the gain as far as it is known."""
    entries = list(json.loads(table.read_text())["entries"])
    records = {name: [r for r in sink.records() if r.time >= begun] for name, sink in sinks.items()}
    times = {name: by_bucket(found) for name, found in records.items()}
    faster = [b / a for a, b in zip(*rates.values(), strict=True)]
    live.save(
        gain=gain(times[_DEFAULT], times[_TUNED], entries),
        decode_tuned_share=decode_share(times[_DEFAULT], entries),
        steps={name: len(found) for name, found in records.items()},
        sources=dict(Counter(record.source for record in records[_TUNED])),
        passes_faster={"median": statistics.median(faster), "each": faster},
    )


def _answers(workers: dict[str, Standing], limit: float) -> dict[str, Any]:
    """Greedy answers with the table, against the default's; and the default against itself.

    In the same batches, and in others: what a trained model in bf16 differs by without any tuning.
    """
    default = workers[_DEFAULT]
    first = default.answers(limit)
    again = {
        "again": default.answers(limit),
        "in other batches": default.answers(limit, parts=_OTHER_BATCHES),
        _TUNED: workers[_TUNED].answers(limit),
    }
    equal = {name: sum(a == b for a, b in zip(first, o, strict=True)) for name, o in again.items()}
    return {
        "questions": len(first),
        "differing": {name: len(first) - count for name, count in equal.items()},
        "against_default": {name: equality(first, other) for name, other in again.items()},
    }
