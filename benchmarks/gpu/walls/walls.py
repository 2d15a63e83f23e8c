"""What an SM does at most, alone and at once: copies by size, bytes in flight, L2, products.

Every warp works for the same number of cycles and counts what it did; rates are sums over warps,
medians over launches. `--only` picks parts.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Sequence
from typing import Any

import torch

from benchmarks.gpu.common import machine as machine_report
from benchmarks.gpu.common.machines import Cuda
from benchmarks.gpu.common.output import Output, add_output
from benchmarks.gpu.walls import library as walls_library
from benchmarks.gpu.walls import points
from benchmarks.gpu.walls.library import MOST_WARPS, Library
from benchmarks.gpu.walls.points import Point, Pools
from benchmarks.gpu.walls.records import least_in_flight, summary
from benchmarks.gpu.walls.requests import ROW_BYTES
from pod_integrate.errors import KernelUnavailableError

_ENOUGH = 0.9
_ELEMENTS = ROW_BYTES // 2


class Bench:
    """The library, the pools in device memory, and how long a launch works."""

    def __init__(self, cycles: int, repeats: int) -> None:
        machine = Cuda()
        if machine.arch.name != walls_library.ARCH:
            raise KernelUnavailableError(
                f"this GPU is {machine.arch.name}: walls are those of {walls_library.ARCH}"
            )
        self.library = Library(walls_library.build())
        self._cycles, self._repeats = cycles, repeats
        self._hbm = _random_rows(points.HBM_ROWS, machine.device)
        self._l2 = _random_rows(points.GROUPS * points.GROUP_ROWS, machine.device)
        self.pools = Pools(self._hbm.data_ptr(), self._l2.data_ptr())
        shape = (machine.sms, MOST_WARPS, 5)
        self._records = torch.zeros(shape, dtype=torch.int64, device=machine.device)

    def measure(self, point: Point) -> dict[str, float]:
        """Median rate of each role and of the clock; the first launch does not count."""
        point.request.cycles = self._cycles
        launches = []
        for _ in range(1 + self._repeats):
            self.library.run(point.kernel, point.request, self._records)
            launches.append(self._records.clone())
        return summary([records.cpu() for records in launches[1:]], point.roles)


def _random_rows(rows: int, device: torch.device) -> torch.Tensor:
    out = torch.empty(rows, _ELEMENTS, dtype=torch.bfloat16, device=device)
    # In parts: normal numbers are made in fp32 by some versions.
    for part in out.split(1 << 20):
        part.normal_()
    return out


def measured(bench: Bench, part: str) -> Iterator[dict[str, Any]]:
    """Rows of one part as they come: labels and rates."""
    for point in points.PARTS[part](bench.pools):
        yield {**point.labels, **bench.measure(point)}


def enough_in_flight(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """By kind and number of warps: the best rate, and the KiB per SM that 90 % of it take."""
    kinds = dict.fromkeys((row["kind"], row["warps"]) for row in rows)
    overall = max((row["bytes_s"] for row in rows), default=0.0)
    found = []
    for kind, warps in kinds:
        mine = [
            (row["kib"], row["bytes_s"])
            for row in rows
            if (row["kind"], row["warps"]) == (kind, warps)
        ]
        best = max(value for _, value in mine)
        # Of what anybody attained: a kind that never comes near has no such number.
        kib = least_in_flight([*mine], _ENOUGH) if best >= _ENOUGH * overall else None
        found.append({"kind": kind, "warps": warps, "best_bytes_s": best, "kib": kib})
    return found


def line(row: dict[str, Any]) -> str:
    """One row for people: rates in T/s, copies per second in millions."""
    shown = []
    for name, value in row.items():
        if name == "copies_s":
            shown.append(f"{value / 1e6:.0f} M copies/s")
        elif name.endswith("_s"):
            shown.append(f"{name.removesuffix('_s')} {value / 1e12:.3f} T/s")
        elif name == "sm_ghz":
            shown.append(f"{value:.3f} GHz")
        else:
            shown.append(f"{name} {value}")
    return ", ".join(shown)


def main(arguments: list[str] | None = None) -> None:
    """Print and save the parts; walls.json."""
    parser = argparse.ArgumentParser(prog="walls", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--only", action="append", choices=points.PARTS, help="may repeat")
    parser.add_argument("--cycles", type=int, default=12_000_000, help="of SM clock, per launch")
    parser.add_argument("--repeats", type=int, default=5, help="launches that count")
    parser.add_argument("--build", action="store_true", help="compile only, which needs no GPU")
    add_output(parser, refused={"emulator": "the emulated SM has no copy engine, and no speed"})
    options = parser.parse_args(arguments)
    if options.build:
        print(walls_library.build())
        return
    output = Output(options.out, "walls")
    bench = Bench(options.cycles, options.repeats)
    document: dict[str, Any] = {"machine": machine_report.report(), "cycles": options.cycles}
    document["seconds"] = {}
    for part in options.only or points.PARTS:
        began = time.monotonic()
        document[part] = []
        try:
            for row in measured(bench, part):
                document[part].append(row)
                print(f"{part}: {line(row)}", flush=True)
        except RuntimeError:
            # A launch that waited for ever has trapped: nothing more comes, but these rows have.
            document["cut"] = part
            output.save(document)
            raise
        if part == "in_flight":
            document["enough_in_flight"] = enough_in_flight(document[part])
        document["seconds"][part] = round(time.monotonic() - began, 1)
        output.save(document)
