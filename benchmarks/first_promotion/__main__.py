"""How many questions, experiments, pairs and seconds a first promotion takes, simulated.

    python -m benchmarks.first_promotion [--seconds N] [--share S] [--seeds N] [--built]

The laboratory and the exchange of a server, and the tuner's core, run as they are; the GPU, the
compiler, the network and the time are made up (gpu.py). Of steps with a prefill some tiles are 8 %
faster than the default, of decodes some KV splits. Nothing is timed.
"""

from __future__ import annotations

import argparse
import logging
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import _results
from benchmarks.first_promotion.gpu import GEOMETRY
from benchmarks.first_promotion.load import Load
from benchmarks.first_promotion.world import World
from pod_integrate.devices.cuda.choices import TILES
from pod_integrate.live import experimenter
from tuner.core import Tuner
from tuner.messages import Scope
from tuner.settings import TunerSettings
from tuner.store.storage import Store


def make_tuner(seed: int) -> Callable[[Callable[[], float]], Tuner]:
    """One in memory, with the settings that it comes with."""
    settings = TunerSettings(
        data_dir=Path(tempfile.gettempdir()), database_url="sqlite://", seed=seed, workers=0
    )
    return lambda clock: Tuner(settings, Store("sqlite://"), clock=clock)


def learn(options: argparse.Namespace, seed: int) -> dict[str, Any]:
    """One server from nothing: when each bucket got its first entry, and what was done by then."""
    load = Load(seed, running=options.running, prompt=options.prompt, answer=options.answer)
    world = World(make_tuner(seed), load, share=options.share, poll=options.poll, seed=seed)
    if options.built:
        world.gpu.built.update(TILES)
    scope = Scope(str(GEOMETRY), str(world.gpu.key), world.gpu.kernel_build)
    promotions: list[dict[str, Any]] = []
    known: set[str] = set()

    def look() -> bool:
        table = world.tuner.tables.latest(scope)
        entries = {} if table is None else {str(b): one for b, one in table.entries.items()}
        for bucket in sorted(entries.keys() - known):
            known.add(bucket)
            promotions.append({
                "bucket": bucket, "seconds": round(world.now, 1), **counts(world),
                "speedup": round(entries[bucket].evidence.median_speedup, 4),
            })  # fmt: skip
        return False

    world.serve(options.seconds, look)
    found = {
        "promotions": promotions, "end": {"seconds": options.seconds, **counts(world)},
        "share": round(covered(world, scope), 3),
    }  # fmt: skip
    world.tuner.close()
    return found


def counts(world: World) -> dict[str, int]:
    """What was asked and measured so far."""
    return {
        "asks": world.counts["experiments"],
        "experiments": world.events[experimenter.BEGUN],
        "pairs": world.events[experimenter.PAIRS],
        "missed": world.events[experimenter.MISSED],
    }


def covered(world: World, scope: Scope) -> float:
    """Share of attention time in buckets with an entry."""
    table = world.tuner.tables.latest(scope)
    loads = list(world.tuner.traffic.heaviest(world.tuner.clock()))
    names = {str(bucket) for bucket in table.entries} if table is not None else set()
    total = sum(load.attention_us for load in loads)
    return sum(load.attention_us for load in loads if load.key.bucket in names) / total


def summary(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Medians over the seeds."""
    first = [run["promotions"][0] for run in runs if run["promotions"]]
    sixth = [run["promotions"][5]["seconds"] for run in runs if len(run["promotions"]) > 5]
    return {
        "runs": len(runs),
        "with_a_promotion": len(first),
        "with_six": len(sixth),
        "first": {
            name: statistics.median(one[name] for one in first)
            for name in ("seconds", "asks", "experiments", "pairs")
        }
        if first
        else None,
        "sixth_seconds": statistics.median(sixth) if sixth else None,
        "promotions_at_end": statistics.median(len(run["promotions"]) for run in runs),
        "share_of_time_tuned": statistics.median(run["share"] for run in runs),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="first-promotion", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--seconds", type=float, default=240.0, help="of the server's life")
    parser.add_argument("--share", type=float, default=0.3, help="of steps for experiments")
    parser.add_argument("--poll", type=float, default=0.5, help="POD_ATTN_POLL_SECONDS")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--running", type=int, default=32, help="requests at a time")
    parser.add_argument("--prompt", type=int, default=10_000, help="tokens, mean")
    parser.add_argument("--answer", type=int, default=470, help="tokens, mean")
    parser.add_argument("--built", action="store_true", help="no variant is left to compile")
    options = parser.parse_args()
    logging.disable(logging.ERROR)
    runs = [learn(options, seed) for seed in range(options.seeds)]
    path = _results.write(
        "first_promotion", {"options": vars(options), "summary": summary(runs), "runs": runs}
    )
    print(path.read_text())


if __name__ == "__main__":
    main()
