"""Tables of tuned configs for the package: geometries that people serve, each bucket proven.

All geometries' first buckets, then their second ones, until the time is over: whenever it ends,
each has its share. One file per geometry, as `pod-attn table export` writes it, goes to OUT/tables;
OUT/tables.json has every pair that decided. `record` files both: the tables become those of the
package (pod_integrate/shipped_tables).
"""

from __future__ import annotations

import argparse
import datetime
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu.common import machine as machine_report
from benchmarks.gpu.common.compiled import compile_together, workers
from benchmarks.gpu.common.machines import Backend, backend
from benchmarks.gpu.common.output import Output, add_output
from benchmarks.gpu.common.timing import ColdTimer
from benchmarks.gpu.shipped import search
from benchmarks.gpu.shipped.search import BucketSearch, Effort, Found, find, grid_of
from benchmarks.gpu.shipped.served import BATCHES, SERVED, TINY_BATCHES, TINY_SERVED, Served
from pod_integrate.devices.cuda.variants import Variant
from pod_integrate.live.registry import save_file
from pod_integrate.terms.keys import Bucket, Geometry
from pod_integrate.terms.table import ConfigTable, Evidence, TableEntry

SCHEMA = 1
FOLDER = "tables"
# Of an entry's evidence: steps drawn around a bucket's middle, no traffic of anybody's.
METHOD = "drawn steps"
# One bucket does not take the time of many: long steps are proven on fewer.
_MOST_SECONDS = 4.0


class Maker:
    """Tables under way.

    entries  by geometry, in the order in which they were proven
    """

    def __init__(self, machine: Backend, output: Output, until: float) -> None:
        self._machine, self._output, self._until = machine, output, until
        self._timer = ColdTimer(machine, 1)
        self.effort = search.TINY if machine.tiny else Effort()
        self.tables: dict[Geometry, ConfigTable] = {}
        self.document: dict[str, Any] = {
            "schema": SCHEMA,
            "machine": machine_report.report(),
            "device": str(machine.runs.key),
            "build": machine.runs.kernel_build,
            "alpha": search.ALPHA,
            "effort": self.effort._asdict(),
            "buckets": [],
        }

    def run(self, work: Iterator[tuple[Served, str]]) -> None:
        """Buckets in this order; one that would begin after the time is left out, with the rest."""
        left_out = []
        for served, batch in work:
            if time.monotonic() > self._until:
                left_out.append(f"{served.geometry} {batch}")
                continue
            with torch.inference_mode():
                self._bucket(served, batch)
            self._output.save(self.document)
        self.document["left_out"] = left_out
        self.document["clocks_after"] = machine_report.clocks()
        self._output.save(self.document)

    def _bucket(self, served: Served, batch: str) -> None:
        began, traffic, geometry = time.monotonic(), served.traffic(batch), served.geometry
        default = self._machine.runs.default_config(geometry)
        steps = traffic.steps(self.effort.screened + self.effort.confirmed)
        bucket_search = BucketSearch(self._machine, self._timer, geometry, default, steps)
        grid = grid_of(default, traffic.bucket, tiny=self._machine.tiny)
        found = find(bucket_search, grid, self.effort, began + _MOST_SECONDS)
        line = {
            "geometry": str(geometry),
            "models": served.models,
            "bucket": str(traffic.bucket),
            **found.document,
            "seconds": round(time.monotonic() - began, 2),
        }
        self.document["buckets"].append(line)
        self._file(geometry, traffic.bucket, found)
        print(said(line, found), flush=True)

    def _file(self, geometry: Geometry, bucket: Bucket, found: Found) -> None:
        if found.entry is None:
            return
        config, proof = found.entry
        assert proof.speedup is not None and proof.lower_bound is not None
        build, now = str(self.document["build"]), _now()
        evidence = Evidence(
            pairs=proof.pairs,
            steps=proof.steps,
            median_speedup=proof.speedup,
            lower_bound=proof.lower_bound,
            confidence=1 - search.ALPHA,
            method=METHOD,
            measured_at=now,
            build=build,
            trial=len(self.document["buckets"]),
        )
        known = self.tables.get(geometry)
        entries = {**(known.entries if known else {}), bucket: TableEntry(config, evidence)}
        table = ConfigTable(1, geometry, self._machine.runs.key, build, now, entries)
        self.tables[geometry] = table
        save_file(table_file(self._output.path.parent, geometry), table.to_json(checksum=True))


def table_file(folder: Path, geometry: Geometry) -> Path:
    """Where a geometry's table goes below a part's output."""
    return folder / FOLDER / f"{geometry}.json"


def rounds(served: Sequence[Served], batches: Sequence[str]) -> Iterator[tuple[Served, str]]:
    """Every geometry's first batch, then their second."""
    return ((each, batch) for batch in batches for each in served)


def said(line: dict[str, Any], found: Found) -> str:
    """One line of a bucket."""
    if found.entry is None:
        why = "; ".join(f"{name}: {f['reason']}" for name, f in line["finalists"].items())
        told = f"default stays ({why or 'nothing screened faster'})"
    else:
        proof = found.entry[1]
        told = f"{proof.speedup:.3f}x, at least {proof.lower_bound:.3f}x: {line['entry']}"
    return f"{line['geometry']:36s} {line['bucket']:16s} {line['seconds']:5.2f} s  {told}"


def _now() -> str:
    moment = datetime.datetime.now(datetime.UTC)
    return moment.isoformat(timespec="seconds").replace("+00:00", "Z")


def main(arguments: list[str] | None = None) -> None:
    """Compile the default's tiles of all geometries, then measure until the time is over."""
    parser = argparse.ArgumentParser(prog="tables", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--seconds", type=float, default=140.0, help="at most, all together")
    parser.add_argument("--geometry", action="append", help="part of its key; may repeat")
    parser.add_argument("--workers", type=int, default=workers())
    add_output(parser)
    options = parser.parse_args(arguments)
    began, machine = time.monotonic(), backend(options.backend)
    served, batches = (TINY_SERVED, TINY_BATCHES) if machine.tiny else (SERVED, BATCHES)
    wanted = options.geometry or [""]
    served = tuple(s for s in served if any(part in str(s.geometry) for part in wanted))
    if not machine.tiny:
        variants = [Variant.of(machine.runs.default_config(s.geometry), s.geometry) for s in served]
        compiled = compile_together(machine, variants, options.workers)
        print(f"compiled in {compiled:.0f} s", flush=True)
    maker = Maker(machine, Output(options.out, "tables"), began + options.seconds)
    maker.run(rounds(served, batches))
    entries = sum(len(table.entries) for table in maker.tables.values())
    print(
        f"{len(maker.tables)} tables with {entries} entries of {len(maker.document['buckets'])} "
        f"buckets in {time.monotonic() - began:.0f} s, {len(maker.document['left_out'])} left out"
    )
