"""A few calls and nothing else, for a profiler or a sanitizer to watch."""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path

from benchmarks.gpu.common.machines import Backend, backend, moved
from benchmarks.gpu.common.output import add_output
from benchmarks.gpu.correctness.cases import SHAPES, Check
from benchmarks.gpu.speed.cases import cases, default_of, find, make_case
from pod_integrate.terms.config import STRATEGIES, PodConfig

_SMALL = ("page edges", "window, cap, sinks", "speculative rows", "decode only", "prefill only")


def small(machine: Backend) -> int:
    """Small shapes under every strategy, several KV splits each; the number of calls."""
    calls = 0
    for head_dim in (64, 128):
        config = default_of(machine, cases(machine)[0]._replace(head_dim=head_dim))
        config = dataclasses.replace(config, decode_split_tokens=128)
        for shape in SHAPES:
            if shape.name not in _SMALL or (machine.tiny and head_dim > 64):
                continue
            check = Check(shape.tiny(), "bf16", head_dim, config, "small")
            case = moved(check.make(), machine.device)
            for strategy in STRATEGIES:
                chosen = dataclasses.replace(config, strategy=strategy)  # type: ignore[arg-type]
                machine.attend(case, chosen, **check.features(machine.device))
                calls += 1
    machine.synchronize()
    return calls


def one(machine: Backend, name: str, config: PodConfig | None, repeats: int) -> int:
    """A case, `repeats` times; the number of calls."""
    spec = find(machine, name)
    case = make_case(spec, machine.device)
    for _ in range(repeats):
        machine.attend(case, config or default_of(machine, spec))
    machine.synchronize()
    return repeats


def main(arguments: list[str] | None = None) -> None:
    """Small shapes by default, a case with --case."""
    parser = argparse.ArgumentParser(prog="once", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--case", default="", help="part of a case's name")
    parser.add_argument("--config", type=Path, help="JSON file of a PodConfig; default: default")
    parser.add_argument("--strategy", choices=STRATEGIES)
    parser.add_argument("--repeats", type=int, default=3)
    add_output(parser)
    options = parser.parse_args(arguments)
    machine = backend(options.backend)
    if not options.case:
        print(f"{small(machine)} calls")
        return
    config = None
    if options.config is not None:
        config = PodConfig.from_dict(json.loads(options.config.read_text()))
    if options.strategy is not None:
        spec = find(machine, options.case)
        config = dataclasses.replace(config or default_of(machine, spec), strategy=options.strategy)
    print(f"{one(machine, options.case, config, options.repeats)} calls")
