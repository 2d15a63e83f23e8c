"""vLLM's public batches: our default config against the best serial pair of anybody.

    python -m benchmarks.gpu grammar --seconds 150

Every kernel that reads the paged cache is timed on its op, calls in turns, cold L2, CUDA events;
answers are compared with the default's first. Then the quickest prefill and the quickest decode,
one after the other on one stream, and the quickest single call of another library run in turns
with the default. What grammar.json of the same GPU and build holds already is not measured again.
Run `peers` before: it compiles FlashInfer's kernels for head dim 128.
"""

from __future__ import annotations

import argparse
import functools
import json
import time
from typing import Any

import torch

from benchmarks.gpu.common import machine as machine_report
from benchmarks.gpu.common.ceilings import ceilings
from benchmarks.gpu.common.compiled import compile_together, workers
from benchmarks.gpu.common.machines import Backend, backend
from benchmarks.gpu.common.output import Output, add_output
from benchmarks.gpu.common.timing import ColdTimer
from benchmarks.gpu.peers import paged
from benchmarks.gpu.speed.batch_spec import SETS, GrammarSpec, published, spec_of, tiny
from benchmarks.gpu.speed.grammar_measure import measure
from benchmarks.gpu.speed.grammar_summary import GIVEN, line, summarize
from benchmarks.gpu.speed.summary import floors
from pod_integrate.devices.cuda import variants

# A batch of 20 us takes a fifth more or less from call to call.
_REPEATS = 100
_TEXT = 500
Wanted = list[tuple[str, GrammarSpec]]


def wanted_of(machine: Backend, sets: list[str], batches: list[str]) -> Wanted:
    """(set, batch) of all that is asked for; in small for the emulated SM."""
    chosen = [(GIVEN, spec_of(text)) for text in batches]
    chosen += [(name, spec) for name in sets for spec in published(name)]
    return [(name, spec if not machine.tiny else tiny(spec)) for name, spec in chosen]


def carried_on(output: Output, fresh: dict[str, Any]) -> dict[str, Any]:
    """`fresh` with the cases that a run like it has left in the folder: its GPU, build, repeats."""
    if not output.path.exists():
        return fresh
    left = json.loads(output.path.read_text())
    same = all(
        left["machine"].get(key) == fresh["machine"].get(key)
        for key in ("kernel_build", "host_build", "device")
    )
    same &= left.get("repeats") == fresh["repeats"]
    return {**fresh, "cases": left["cases"]} if same else fresh


def compile_for(machine: Backend, wanted: Wanted) -> float:
    """Our default variants of the head dims; seconds that it took."""
    dims = {spec.head_dim for _, spec in wanted}
    every = [*variants.defaults(machine.arch), *variants.of_pairs(machine.arch)]
    chosen = [v for v in every if v.dtype == "bf16" and v.head_dim in dims]
    return compile_together(machine, chosen, workers())


def main(arguments: list[str] | None = None) -> None:
    """Print one line per batch, save grammar.json after each."""
    options = _parse(arguments)
    until = time.monotonic() + options.seconds
    machine, output = backend(options.backend), Output(options.out, "grammar")
    wanted = wanted_of(machine, [] if options.batches else options.sets, options.batches)
    document: dict[str, Any] = {"machine": machine_report.report(), "cases": {}, "not_run": []}
    document["repeats"] = options.repeats
    if not options.afresh:
        document = carried_on(output, document)
    if not machine.tiny:
        document["compile_seconds"] = round(compile_for(machine, wanted), 1)
    timer = ColdTimer(machine, options.repeats)

    @functools.cache
    def tried(head_dim: int) -> list[paged.Paged]:
        # The emulated SM has nobody beside it.
        compiling = options.compile_peers
        return [] if machine.tiny else paged.ready(options.out, head_dim, compiling=compiling)

    def entry(name: str, spec: GrammarSpec) -> dict[str, Any]:
        told = {"set": name, "heads": spec.heads, "requests": len(spec.requests)}
        told["floor"] = floors(spec, document["ceilings"])
        try:
            return told | measure(machine, spec, tried(spec.head_dim), timer)
        except Exception as error:
            return told | {"error": f"{type(error).__name__}: {error}"[:_TEXT]}

    with torch.inference_mode():
        document["ceilings"] = ceilings(machine, timer)
        for name, spec in wanted:
            if "us" in document["cases"].get(spec.name, {}):
                continue
            if time.monotonic() > until:
                document["not_run"].append(spec.name)
                continue
            document["cases"][spec.name] = found = entry(name, spec)
            document["summary"] = summarize(document["cases"])
            output.save(document)
            print(line(spec.name, found), flush=True)
    document["summary"] = summarize(document["cases"])
    output.save(document)
    print(json.dumps(document["summary"], indent=1))


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="grammar", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--sets", nargs="+", choices=SETS, default=list(SETS), help="of published batches"
    )
    parser.add_argument(
        "--batches", nargs="+", default=[], metavar="BATCH", help="these instead, as 2q2k_8q1s1k"
    )
    parser.add_argument("--repeats", type=int, default=_REPEATS, help="of each final time")
    parser.add_argument("--seconds", type=float, default=150.0, help="start no batch after these")
    parser.add_argument(
        "--compile-peers",
        action="store_true",
        help="FlashInfer's kernels of every head dim, minutes each; else those compiled before",
    )
    parser.add_argument("--afresh", action="store_true", help="measure again what was left there")
    add_output(parser)
    return parser.parse_args(arguments)
