"""Does mixing with `pod` pay, end to end? Public loads, models of real depth, against stock SGLang.

For each model one engine for each backend, all started at once, side by side on one device, each
with the cache that it would have alone on a smaller one (said in the results). They are measured
in turns, one at a time, the others paused. An engine serves every setting: chunk size and mixing
change between two stretches of a load that never ends, so that nothing but them differs. A stretch
is whole cycles of the load's prompts, --stretch seconds or longer. It begins with as many requests
as this setting runs for ever, as far done as they would be; a few prompts are left out.

Every engine's steps are recorded alike: how long forwards take on the device and what lies between
them, by kind of step. How much of a forward attention takes is from the traces of `pod`. `measured`
is what came; `steady` is balanced, or refused (serving_balance.py), and has a `spread`. TTFT of a
saturated server is its queue. With --rates loads arrive at shares of the rate that stock kept up
with, unmixed.
"""

from __future__ import annotations

import argparse
import functools
import json
import sys
import tempfile
from pathlib import Path

from benchmarks.gpu.common.output import add_output
from benchmarks.gpu.engines.places import PLACES, REFUSED, stage_names
from benchmarks.gpu.engines.serving_engines import standing
from benchmarks.gpu.engines.serving_loads import LOADS, SHAPES
from benchmarks.gpu.engines.serving_plan import Plan, Served, parse_pairs, settings
from benchmarks.gpu.engines.serving_turns import SIDES, Serving
from pod_integrate.terms.keys import SGLANG_KV_DTYPES

_PAIRS = "llama3-8b:arxiv,llama3-8b:pd,yi-6b:arxiv"


def run(serving: Serving, plan: Plan) -> None:
    """Models one after the other; what does not fit the time is left out and said."""
    for served in plan.served:
        with standing(serving, served, plan) as engines:
            for load in plan.loads(served):
                for number in range(serving.options.rounds):
                    serving.saturated(engines, served, load, plan.settings, number)
            for load in plan.loads(served):
                if (served, load) in serving.options.rated:
                    serving.rated(engines, served, load)


def main(arguments: list[str] | None = None) -> None:
    """Measure, print and save serving.json; ends with an error when something failed."""
    options = _parse(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    plan = Plan(options.pairs, settings(options))
    with tempfile.TemporaryDirectory() as name, Serving(options, Path(name)) as serving:
        run(serving, plan)
    print(json.dumps(serving.document["summary"], indent=1))
    for key in ("stages", "left_out", "refused", "failed"):
        print(f"{key}: {json.dumps(serving.document[key])}")
    if serving.document["failed"] or not serving.document["runs"]:
        sys.exit(f"serving: failed are {', '.join(serving.document['failed']) or 'all'}")


def _pairs(text: str) -> list[tuple[Served, str]]:
    try:
        return parse_pairs(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _numbers(text: str) -> list[int]:
    return [int(one) for one in text.split(",") if one]


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="serving", description=(__doc__ or "").split("\n")[0],
        epilog=f"models: {', '.join(SHAPES)}; loads: {', '.join(LOADS)}; KV, the cache's dtype: "
        f"auto, {', '.join(SGLANG_KV_DTYPES)}",
    )  # fmt: skip
    add = functools.partial(parser.add_argument, type=int)
    parser.add_argument(
        "--pairs", type=_pairs, default=_PAIRS, metavar="MODEL:LOAD[:KV],...",
        help="what is served, by worth; what differs in its load alone, one after the other",
    )  # fmt: skip
    parser.add_argument(
        "--engines", default=None,
        help="backends, default fa3,pod; the first is what speedups are over. Others: trtllm_mha, "
        "flashinfer, triton",
    )  # fmt: skip
    parser.add_argument("--unmixed", type=_numbers, default=[8192, 2048], help="chunks, by worth")
    parser.add_argument("--mixed", type=_numbers, default=[1024, 512, 2048], help="likewise")
    parser.add_argument("--rates", type=lambda text: [float(x) for x in text.split(",")],
                        default=[], help="shares of stock's capacity, such as 0.7,0.9")  # fmt: skip
    parser.add_argument(
        "--rated", type=_pairs, default=None, metavar="MODEL:LOAD[:KV],...",
        help="pairs that arrive at these rates too; all of them by default",
    )  # fmt: skip
    parser.add_argument(
        "--rate-sides", type=functools.partial(stage_names, tuple(SIDES)), default=list(SIDES),
        help=f"whose, of {','.join(SIDES)}: stock that does not mix, pod, and stock that does",
    )  # fmt: skip
    parser.add_argument("--rate-seconds", type=float, default=30.0, help="of each of them")
    parser.add_argument(
        "--rate-settle", type=float, default=10.0,
        help="seconds before, since a server under a rate begins empty",
    )  # fmt: skip
    add("--rounds", default=1, help="of all settings, in mirrored order")
    parser.add_argument(
        "--stretch", type=float, default=20.0, help="least seconds of one; two answers take so long"
    )
    add("--settle", default=4, help="prompts left out after a change of setting")
    parser.add_argument("--itl", type=float, default=50.0, help="target of goodput, ms")
    parser.add_argument(
        "--seconds", type=float, default=505.0, help="of everything, but the engines' end"
    )
    parser.add_argument("--each", type=float, default=40.0, help="most seconds of a stretch")
    parser.add_argument("--start", type=float, default=240.0, help="most seconds of a start")
    parser.add_argument("--device", choices=PLACES, default="cuda")
    add_output(parser, refused=REFUSED)
    options = parser.parse_args(arguments)
    if min(options.rounds, options.settle + 1) < 1:
        parser.error("--rounds must be at least 1 and --settle at least 0")
    options.engines = (options.engines or f"{PLACES[options.device].stock},pod").split(",")
    options.rated = options.pairs if options.rated is None else options.rated
    unknown = [f"{one.name}, {load}" for one, load in options.rated
               if (one, load) not in options.pairs]  # fmt: skip
    if unknown:
        parser.error(f"--rated names what --pairs does not: {'; '.join(unknown)}")
    return options
