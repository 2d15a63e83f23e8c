"""The tuner's core under load: many buckets, many records; nothing is measured but its own time.

Traffic of Zipf's law over the buckets goes in, promotions are planted by hand, and tasks are taken
and reported with made-up times. Every call of the core is timed as its one thread would run it.

python benchmarks/tuner_scale.py [--buckets N] [--records N] [--tasks N]
"""

from __future__ import annotations

import argparse
import functools
import itertools
import logging
import random
import statistics
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil

from benchmarks._results import record_headline, write
from pod_integrate.devices.registry import target_of
from pod_integrate.terms.keys import Bucket, DeviceKey, Geometry
from pod_integrate.terms.table import ConfigTable, Evidence, TableEntry
from pod_integrate.terms.trace import WIRE_VERSION, StepRecord, TraceMessage
from tuner.core import Tuner
from tuner.host.opening import open_tuner
from tuner.messages import Pair, Report, Scope, Task, WorkerInfo
from tuner.settings import TunerSettings
from tuner.store.rows import add_table
from tuner.view.overview import overview

COMMAND = "pod-attn bench tuner-scale"
MESSAGE_RECORDS = 100
# Records that every bucket gets before the rest is drawn: enough to be tuned.
LEAST = 16
DEVICE, BUILD = DeviceKey("scale-cpu", "avx512", 2), "scale"
WORKER = WorkerInfo(id="w0", device=str(DEVICE), build=BUILD)
SERVERS, TABLE_ENTRIES, MOST_BUCKETS = 20, 500, 11_200


def geometries() -> Iterator[Geometry]:
    """Attention shapes of a few models."""
    for heads, page in itertools.product((4, 8), (1, 16)):
        yield Geometry(
            num_q_heads=heads, num_kv_heads=4, head_dim=64, dtype="fp32", kv_dtype="fp32",
            page_size=page,
        )  # fmt: skip


def buckets(count: int) -> list[tuple[Geometry, Bucket]]:
    """Distinct ones, spread over geometries and sizes; in an order of no meaning."""
    sizes = [1 << n for n in range(4, 12)]
    decodes = [1 << n for n in range(7)]
    everything = [
        (geometry, Bucket(prefill_tokens=p, prefill_context=pc, decodes=d, decode_context=dc))
        for geometry, p, pc, d, dc in itertools.product(
            geometries(), sizes, [1 << n for n in range(11, 16)], decodes,
            [1 << n for n in range(6, 16)],
        )
    ]  # fmt: skip
    random.Random(0).shuffle(everything)
    return everything[:count]


def record(bucket: Bucket, step: int) -> StepRecord:
    """A step of a bucket; 64 of them differ."""
    longer = 1.0 + (step % 64) / 256
    q_lens = [bucket.prefill_tokens] + [1] * bucket.decodes
    kv_lens = [int(bucket.prefill_context * longer)]
    kv_lens += [int(bucket.decode_context * longer)] * bucket.decodes
    return StepRecord(
        time=time.time(), step=step + 1, q_lens=q_lens, kv_lens=kv_lens, step_us=9000.0,
        attention_us=100.0 + sum(kv_lens) / 100, layers=8, config="default", source="default",
    )  # fmt: skip


def messages(count: int, records: int) -> Iterator[TraceMessage]:
    """Messages with `records` records in all, first LEAST of every bucket."""
    known = buckets(count)
    pick = random.Random(1)
    by_geometry: dict[Geometry, list[int]] = {}
    for rank, (geometry, _) in enumerate(known):
        by_geometry.setdefault(geometry, []).append(rank)
    weights = {g: [1.0 / (1 + rank) for rank in ranks] for g, ranks in by_geometry.items()}
    shares = [sum(weights[g]) for g in by_geometry]
    config = {"default": target_of(DEVICE).default_config(known[0][0]).to_dict()}
    todo = {g: [rank for rank in ranks for _ in range(LEAST)] for g, ranks in by_geometry.items()}
    for sequence in range(records // MESSAGE_RECORDS):
        waiting = [g for g in todo if todo[g]]
        if waiting:
            geometry = waiting[0]
            ranks = [todo[geometry].pop() for _ in range(min(100, len(todo[geometry])))]
        else:
            geometry = pick.choices(list(by_geometry), shares)[0]
            ranks = pick.choices(by_geometry[geometry], weights[geometry], k=MESSAGE_RECORDS)
        steps = [
            record(known[rank][1], sequence * MESSAGE_RECORDS + n) for n, rank in enumerate(ranks)
        ]
        yield TraceMessage(
            version=WIRE_VERSION, server=f"server-{sequence % SERVERS}", sequence=sequence,
            geometry=str(geometry), device=str(DEVICE), build=BUILD, seen=len(steps), dropped=0,
            table_version=0, configs=config, records=steps,
        )  # fmt: skip


class Timings:
    """CPU milliseconds of the core's thread, by call: the machine may be busy with other things."""

    def __init__(self) -> None:
        self.ms: dict[str, list[float]] = {}

    def __call__(self, name: str, call: Callable[[], Any]) -> Any:
        began = time.thread_time()
        result = call()
        self.ms.setdefault(name, []).append((time.thread_time() - began) * 1e3)
        return result

    def summary(self) -> dict[str, dict[str, float]]:
        """Median, 99th percentile and longest of each."""
        return {
            name: {
                "calls": len(ms),
                "median_ms": round(statistics.median(ms), 2),
                "p99_ms": round(sorted(ms)[int(0.99 * (len(ms) - 1))], 2),
                "longest_ms": round(max(ms), 2),
            }
            for name, ms in self.ms.items()
        }


def measured(task: Task, pick: random.Random) -> Report:
    """A report of made-up times: a third of the configs is somewhat faster."""
    gain = 1.1 if zlib.crc32(str(task.candidate).encode()) % 3 == 0 else 0.95
    pairs = [
        Pair(1000.0 * pick.lognormvariate(0, 0.02), 1000.0 / gain, lengths.digest)
        for lengths in task.batches
        for _ in range(task.step_pairs)
    ]
    return Report(task=task.id, worker=WORKER.id, outcome="measured", pairs=pairs)


def mib() -> float:
    """Resident memory of this process."""
    return float(psutil.Process().memory_info().rss / 2**20)


def work(tuner: Tuner, timed: Timings, tasks: int) -> None:
    """Take and report tasks as a worker does, while somebody watches."""
    pick = random.Random(2)
    for turn in range(tasks):
        task = timed("next_task", lambda: tuner.next_task(WORKER))
        if task is None:
            break
        timed("report", functools.partial(tuner.report, measured(task, pick)))
        if turn % 20 == 0:
            timed("overview", lambda: overview(tuner))
        if turn % 100 == 0:
            timed("history", lambda: history_point(tuner))


def plant_table(tuner: Tuner) -> Scope:
    """A table of TABLE_ENTRIES buckets; returns its scope."""
    geometry = next(geometries())
    scope = Scope(str(geometry), str(DEVICE), BUILD)
    evidence = Evidence(
        pairs=40, steps=10, median_speedup=1.1, lower_bound=1.05, confidence=0.95, method="replay",
        measured_at="2026-01-01T00:00:00.000Z", build=BUILD, trial=1,
    )  # fmt: skip
    entry = TableEntry(target_of(DEVICE).default_config(geometry), evidence)
    known = [bucket for g, bucket in buckets(MOST_BUCKETS) if g == geometry][:TABLE_ENTRIES]
    table = ConfigTable(1, geometry, DEVICE, BUILD, "now", dict.fromkeys(known, entry))
    with tuner.store.begin() as tx:
        add_table(tx, scope, table.version, table.to_json(), tuner.clock())
    tuner.tables.commit(scope, table)
    return scope


def history_point(tuner: Tuner) -> None:
    """One point of the time series, due or not."""
    tuner.history._due = 0.0
    tuner.history.keep_up(tuner.clock())


def run(folder: Path, count: int, records: int, tasks: int) -> dict[str, Any]:
    """Everything, on a database of its own."""
    settings = TunerSettings(data_dir=folder, database_url="", workers=0, seed=1)
    timed = Timings()
    tuner, before = open_tuner(settings), mib()
    taken = 0
    for message in messages(count, records):
        timed("ingest", functools.partial(tuner.ingest, message))
        taken += len(message.records)
        timed("housekeeping", tuner.housekeeping)
    scope = plant_table(tuner)
    work(tuner, timed, tasks)
    for _ in range(20):
        timed("table", lambda: tuner.table(scope))
    grown = mib()
    tuner.close()
    tuner = timed("restart", lambda: open_tuner(settings))
    timed("first_overview", lambda: overview(tuner))
    timed("first_next_task", lambda: tuner.next_task(WORKER))
    tuner.close()
    return {
        "buckets": count,
        "records": taken,
        "records_per_cpu_s": round(taken / sum(timed.ms["ingest"]) * 1e3),
        "mib_at_start": round(before),
        "mib_at_end": round(grown),
        "database_mib": round(sum(p.stat().st_size for p in folder.glob("tuner.db*")) / 2**20),
        "calls": timed.summary(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--buckets", type=int, default=10_000, help=f"at most {MOST_BUCKETS}")
    parser.add_argument("--records", type=int, default=1_000_000)
    parser.add_argument("--tasks", type=int, default=1000)
    chosen = parser.parse_args()
    logging.disable(logging.WARNING)
    with tempfile.TemporaryDirectory() as folder:
        result = run(Path(folder), chosen.buckets, chosen.records, chosen.tasks)
    path = write("tuner_scale", result)
    command = f"{COMMAND} -- --records {chosen.records} --tasks {chosen.tasks}"
    calls = result["calls"]
    shown = {
        "tuner.next_task_ms_10k_buckets": (calls["next_task"]["median_ms"], "ms"),
        "tuner.ingest_records_per_s": (result["records_per_cpu_s"], "1/s"),
        "tuner.overview_ms_10k_buckets": (calls["overview"]["median_ms"], "ms"),
        "tuner.history_ms_10k_buckets": (calls["history"]["median_ms"], "ms"),
        "tuner.memory_mib_10k_buckets": (result["mib_at_end"], "MiB"),
    }
    for name, (value, unit) in shown.items():
        record_headline(name, value, unit, command)
    print(path.read_text())


if __name__ == "__main__":
    main()
