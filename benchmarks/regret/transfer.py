"""Trials until a new bucket is near its best, with and without what other buckets taught.

    python -m benchmarks.regret.transfer [FILE]

Of the recorded buckets each one is new once. The others were searched before, with so many trials
each, and teach by them as in the tuner. A search is near when what it put in force is at most 3 %
slower than the best config recorded; the trials of confirmations count.
"""

from __future__ import annotations

import functools
import math
import statistics
from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks.regret.head import Head
from benchmarks.regret.recorded import Recorded
from benchmarks.regret.searches import Search, Shipped, run
from pod_integrate.terms.config import PodConfig
from pod_integrate.terms.keys import Bucket
from tuner.search.axes import Known, Traffic, apart
from tuner.settings import TunerSettings

_NEAR, _AT = 0.03, (8, 16, 24, 40)


class Listening(Search):
    """Keeps what a search was told."""

    def __init__(self, inner: Search) -> None:
        self._inner = inner
        self.told: list[tuple[PodConfig, float]] = []

    def ask(self) -> PodConfig | None:
        return self._inner.ask()

    def tell(self, config: PodConfig, value: float | None) -> None:
        if value is not None:
            self.told.append((config, value))
        self._inner.tell(config, value)


def traffic_of(recorded: Recorded) -> Traffic:
    """What a bucket's trials are measured on."""
    return Traffic(Bucket.parse(recorded.bucket), recorded.geometry)


@functools.cache
def searched(recorded: Recorded, trials: int, seed: int) -> list[tuple[PodConfig, float]]:
    """What a search that nobody taught was told in so many trials."""
    search = Listening(Shipped(recorded, seed))
    path(recorded, search, trials, seed)
    return search.told


def taught(recorded: Recorded, others: Sequence[Recorded], trials: int, seed: int) -> list[Known]:
    """What the others found in so many trials each, the nearest one's latest first."""
    own, found = traffic_of(recorded).place(), list[Known]()
    for other in sorted(others, key=lambda each: float(apart(own, traffic_of(each).place()))):
        told = searched(other, trials, seed)
        found += [Known(*each, traffic_of(other)) for each in reversed(told)]
    return found


def path(recorded: Recorded, search: Search, trials: int, seed: int) -> list[float]:
    """Regret of what is in force after each trial."""
    settings = TunerSettings(_env_file=None)  # type: ignore[call-arg]
    found = run(
        recorded, search, trials, seed,
        screen_steps=settings.screen_steps, pairs=settings.step_pairs,
    )  # fmt: skip
    return [force for force, _ in found]


def until_near(regrets: Sequence[float]) -> int:
    """Trials until what is in force is near the best and stays so; all and one when it never is."""
    far = [number for number, regret in enumerate(regrets, 1) if regret > _NEAR]
    return max(far, default=0) + 1


def compare(
    buckets: Sequence[Recorded], recorded: Recorded, seeds: int, trials: int, before: int
) -> dict[str, list[list[float]]]:
    """One bucket as the new one: by how it was searched and by seed, regrets after each trial."""
    others = [each for each in buckets if each is not recorded]
    paths: dict[str, list[list[float]]] = {"alone": [], "taught": []}
    for seed in range(seeds):
        paths["alone"].append(path(recorded, Shipped(recorded, seed), trials, seed))
        search = Shipped(recorded, seed)
        search.study.learn(taught(recorded, others, before, seed + 1000))
        paths["taught"].append(path(recorded, search, trials, seed))
    return paths


def summary(paths: Sequence[Sequence[float]]) -> dict[str, Any]:
    """Medians over seeds: of trials until near, of regrets in %, these with their quartiles."""
    found: dict[str, Any] = {"until_near": statistics.median(until_near(each) for each in paths)}
    for at in (at for at in _AT if at <= len(paths[0])):
        regrets = [100 * each[at - 1] for each in paths]
        low, middle, high = (round(x, 2) for x in np.percentile(regrets, (25, 50, 75)))
        found[str(at)] = {"median": middle, "quartiles": [low, high]}
    return found


def together(paths: Sequence[dict[str, list[list[float]]]]) -> dict[str, dict[str, float]]:
    """Of all buckets, means in %, and by how much taught searches are worse than those alone.

    That difference is of the same seed in the same bucket; `error` is its standard error over
    seeds, each one the mean of the buckets.
    """
    found = {}
    for at in (at for at in _AT if at <= len(paths[0]["alone"][0])):
        alone, taught = (
            100 * np.array([[each[at - 1] for each in bucket[how]] for bucket in paths])
            for how in ("alone", "taught")
        )
        worse = (taught - alone).mean(axis=0)
        error = worse.std() / math.sqrt(max(1, len(worse) - 1))
        numbers = {"alone": alone.mean(), "taught": taught.mean(), "worse": worse.mean()}
        found[str(at)] = {
            name: round(float(x), 2) for name, x in (numbers | {"error": error}).items()
        }
    return found


def main() -> None:
    """A line a bucket; file regret_transfer.json."""
    head = Head("regret_transfer", __doc__)
    head.parser.add_argument("--seeds", type=int, default=8)
    head.parser.add_argument("--trials", type=int, default=60, help="of the new bucket")
    head.parser.add_argument("--before", type=int, default=24, help="trials of each of the others")
    options, told, buckets = head.parse()
    document: dict[str, Any] = {"truth": told, "seeds": options.seeds, "buckets": {}}
    everything = []
    for recorded in buckets:
        everything.append(compare(buckets, recorded, options.seeds, options.trials, options.before))
        found = {how: summary(paths) for how, paths in everything[-1].items()}
        document["buckets"][recorded.name] = found
        said = "; ".join(
            f"{how}: near after {each['until_near']:g} trials, "
            + ", ".join(f"{at}: {each[str(at)]['median']:.1f} %" for at in _AT if str(at) in each)
            for how, each in found.items()
        )
        print(f"{recorded.name:22s} {said}", flush=True)
    document["all"] = together(everything)
    for at, numbers in document["all"].items():
        print(f"all buckets, {at} trials: {numbers}")
    head.file(document)


if __name__ == "__main__":
    main()
