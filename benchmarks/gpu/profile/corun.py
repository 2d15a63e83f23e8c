"""Share of time in which an SM held CTAs of both ops, per strategy, and a picture of it."""

from __future__ import annotations

import argparse
import dataclasses
from typing import Any

from benchmarks.gpu.common.machines import Backend, backend
from benchmarks.gpu.common.output import Output, add_output
from benchmarks.gpu.profile.corun_picture import draw
from benchmarks.gpu.profile.corun_records import launch_with_records, share
from benchmarks.gpu.speed.cases import cases, default_of, make_case
from pod_integrate.model.floors import CaseSpec
from pod_integrate.terms.config import STRATEGIES

_WARMUP = 2
_DRAWN_SMS = 12


def measure(machine: Backend, spec: CaseSpec) -> tuple[dict[str, Any], str]:
    """Shares by strategy, and an SVG of the fused launch."""
    case = make_case(spec, machine.device)
    base = default_of(machine, spec)
    result: dict[str, Any] = {"case": spec.name}
    picture = ""
    for strategy in STRATEGIES:
        config = dataclasses.replace(base, strategy=strategy)  # type: ignore[arg-type]
        for _ in range(_WARMUP):
            recorded = launch_with_records(machine, case, config)
        result[strategy] = share(recorded.records)._asdict()
        if strategy == "fused":
            picture = draw(recorded.records, f"{spec.name}, {config.short()}", _DRAWN_SMS)
    return result, picture


def run(machine: Backend, output: Output, limit: int) -> dict[str, Any]:
    """The first `limit` cases; the picture is of the first."""
    document: dict[str, Any] = {"cases": []}
    for spec in cases(machine)[:limit]:
        try:
            result, picture = measure(machine, spec)
        except Exception as error:  # recorded; the other cases still count
            document["cases"].append({"case": spec.name, "error": f"{error!r:.600}"})
        else:
            document["cases"].append(result)
            target = output.path.with_name("sm_timeline.svg")
            if picture and not target.exists():
                target.write_text(picture)
        output.save(document)
    return document


def main(arguments: list[str] | None = None) -> None:
    """Print shares, save corun.json and sm_timeline.svg."""
    parser = argparse.ArgumentParser(prog="corun", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--limit", type=int, default=99, help="cases to measure")
    add_output(parser)
    options = parser.parse_args(arguments)
    document = run(backend(options.backend), Output(options.out, "corun"), options.limit)
    for row in document["cases"]:
        if "error" in row:
            print(f"{row['case']:24s} {row['error']}")
            continue
        shares = ", ".join(
            f"{s} {row[s]['of_busy']:.2f} ({row[s]['while_both']:.2f} while both remain)"
            for s in STRATEGIES
        )
        print(f"{row['case']:24s} {shares}")
