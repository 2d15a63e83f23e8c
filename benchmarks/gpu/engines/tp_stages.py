"""The stages of the part on several GPUs: what each starts, and what it files."""

from __future__ import annotations

import dataclasses
import re
import statistics
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.engines.sink import TraceSink
from benchmarks.gpu.engines.figures import rates
from benchmarks.gpu.engines.job import Run, make_requests
from benchmarks.gpu.engines.pair import POD, STOCK, communication, compared, pair
from benchmarks.gpu.engines.places import PLACES
from benchmarks.gpu.engines.scores import Scored, apart
from benchmarks.gpu.engines.turns import Standing, order, paired_cost
from pod_integrate.terms.config import PodConfig
from pod_integrate.terms.keys import Bucket, DeviceKey, Geometry
from pod_integrate.terms.table import ConfigTable, Evidence, TableEntry
from pod_integrate.terms.trace import StepRecord, TraceMessage

if TYPE_CHECKING:
    from benchmarks.gpu.engines.tp import Parallel

# A smoke test has few steps, so that all of them are traced.
_ON_A_CPU = {
    "SGLANG_CPU_OMP_THREADS_BIND": "0|1", "OMP_NUM_THREADS": "1", "POD_ATTN_TRACE_SAMPLE": "1",
}  # fmt: skip
# Rates are those of `pod` as people run it: steps are traced at the default share.
_TRACED = {"POD_ATTN_POLL_SECONDS": "0.5", "POD_ATTN_EXPERIMENTS": "0"}
_IN_USE = re.compile(r"TP(\d+)\].*config table version (\d+) in use")
_REFUSED = re.compile(r"TP(\d+)\].*is not used any more")
_TABLE_VERSION, _TABLE_SECONDS = 7, 15.0
_BUCKETS = 16


def tensor_parallel(part: Parallel) -> None:
    """Rates in turns, answers, traces, and a table that all ranks get while they serve."""
    part.require_time()
    options = part.options
    with TraceSink() as sink, _engines(part, sink, {"tp_size": options.ranks}) as workers:
        part.say("both engines are up")
        _rates(part, "tp", workers)
        part.add("tp", gpus=options.ranks, traces=traces(sink.messages))
        first = _answers(part, workers)
        if part.left() < _TABLE_SECONDS:
            raise RuntimeError(f"no table was handed out: {part.left():.0f} s are left")
        table = table_of(sink.messages)
        sink.table = table.to_json()
        found = _with_table(part, workers[POD], sink, list(table.entries))
        found["apart"] = apart(first, workers[POD].scores(part.left()))
        part.add("tp", table=found)
        part.say(f"with a table: {found}")


def data_parallel(part: Parallel) -> None:
    """Rates of whole replicas in turns, and that each of them traces."""
    part.require_time()
    with TraceSink() as sink, _engines(part, sink, {"dp_size": part.options.ranks}) as workers:
        part.say("both engines are up")
        _rates(part, "dp", workers)
        part.add("dp", gpus=part.options.ranks, traces=traces(sink.messages))


def _engines(part: Parallel, sink: TraceSink, size: Mapping[str, int]) -> Any:
    """Warm engines POD and STOCK, `size` their parallelism; POD traces every step to `sink`."""
    options, accelerates = part.options, PLACES[part.options.device].accelerates
    runs = {POD: Run("pod", "pod", True), STOCK: Run(options.stock, options.stock, True)}
    arguments = dict(size) | communication(options.device, options.all_reduce)
    traced = {**_TRACED, "POD_ATTN_TUNER_URL": sink.url}
    environment = {} if accelerates else _ON_A_CPU
    stage = f"{next(iter(size))}_logs"
    return pair(
        options, part.folder / "model", make_requests(options), runs, arguments,
        {POD: environment | traced, STOCK: environment},
        folders=(part.folder / stage, options.out / stage), limit=part.left(),
    )  # fmt: skip


def _rates(part: Parallel, stage: str, workers: Mapping[str, Standing]) -> None:
    requests = make_requests(part.options)
    each: dict[str, list[float]] = {name: [] for name in workers}
    for number in range(part.options.passes):
        for name in order(list(workers), number):
            found = rates(requests, workers[name].once(part.left()))
            each[name].append(found["output_tokens_per_second"])
            part.say(f"{stage}, {name}: {each[name][-1]:.1f} output tokens/s")
        # `paired_cost` tells what the second costs against the first: here the ratio of both.
        cost = paired_cost(each[STOCK], each[POD])
        ratio, ends = 1.0 - cost["cost"], sorted(1.0 - end for end in cost["interval"])
        told = {"ratio": ratio, "interval": ends, "rounds": cost["rounds"]}
        medians = {name: statistics.median(some) for name, some in each.items()}
        part.add(stage, rates=each, output_tokens_per_second=medians, pod_over_stock=told)


def _answers(part: Parallel, workers: Mapping[str, Standing]) -> list[Scored]:
    pod, found = compared(workers, part.left)
    part.add("tp", answers=found)
    part.say(f"answers: {found}")
    return pod


def traces(messages: list[TraceMessage]) -> dict[str, Any]:
    """Who traced what: a group of ranks is one server, and tells the heads of one rank."""
    told = [message for message in messages if message.records]
    return {
        "servers": len({message.server for message in told}),
        "geometries": sorted({message.geometry for message in told}),
        "steps": sum(len(message.records) for message in told),
        "hybrid_steps": sum(_bucket(r).is_hybrid for m in told for r in m.records),
    }


def table_of(messages: list[TraceMessage]) -> ConfigTable:
    """A table that has the busiest traced buckets draw prefill and decode items one to one.

    RuntimeError when nothing was traced.
    """
    told = [message for message in messages if message.records]
    if not told:
        raise RuntimeError("no step was traced: no table can be made")
    last = told[-1]
    default = PodConfig.from_dict(next(iter(last.configs.values())))
    config = dataclasses.replace(default, prefill_ctas=1, decode_ctas=1)
    when = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    evidence = Evidence(
        pairs=8, steps=8, median_speedup=1.0, lower_bound=1.0, confidence=0.95, method="stated",
        measured_at=when, build=last.build, trial=0,
    )  # fmt: skip
    counts = Counter(_bucket(record) for message in told for record in message.records)
    return ConfigTable(
        version=_TABLE_VERSION, geometry=Geometry.parse(last.geometry),
        device=DeviceKey.parse(last.device), build=last.build, updated=when,
        entries={
            bucket: TableEntry(config, evidence) for bucket, _ in counts.most_common(_BUCKETS)
        },
    )  # fmt: skip


def _bucket(record: StepRecord) -> Bucket:
    return Bucket.of(record.q_lens, record.kv_lens)


def _with_table(
    part: Parallel, pod: Standing, sink: TraceSink, buckets: list[Bucket]
) -> dict[str, Any]:
    """What shows that all ranks took the table: their logs, and the source of traced steps."""
    begun, until = time.time(), time.monotonic() + min(part.left(), _TABLE_SECONDS)
    while len(ranks_with_table(pod.log)) < part.options.ranks and time.monotonic() < until:
        time.sleep(0.25)
    pod.once(part.left())
    pod.once(part.left())
    records = [record for record in sink.records() if record.time >= begun]
    return {
        "buckets": len(buckets),
        "ranks": ranks_with_table(pod.log),
        "ranks_that_refused": sorted({int(found) for found in _REFUSED.findall(_text(pod.log))}),
        "steps": dict(Counter(record.source for record in records)),
    }


def ranks_with_table(log: Path) -> list[int]:
    """Ranks whose log says that they use the table of `table_of`."""
    found = _IN_USE.findall(_text(log))
    return sorted({int(rank) for rank, version in found if int(version) == _TABLE_VERSION})


def _text(log: Path) -> str:
    return log.read_text(errors="replace")
