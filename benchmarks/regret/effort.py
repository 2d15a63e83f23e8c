"""Which bucket gets the next trial: what is still lost when several share the trials.

    python -m benchmarks.regret.effort [FILE]

The recorded buckets are searched by one worker, each with its share of the time drawn at random.
The next trial goes where share x promise is largest, the promise by the surrogate's expected
improvement or by the number of trials alone. What is lost is the regret of what is in force,
weighed by the shares.
"""

from __future__ import annotations

import functools
import statistics
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from benchmarks.regret.head import Head
from benchmarks.regret.recorded import Array, Recorded
from benchmarks.regret.searches import Shipped, run
from pod_integrate.terms.config import PodConfig
from tuner.search.gains import promised
from tuner.settings import TunerSettings

_CHECKPOINTS = (24, 48, 96, 150, 200)
# Of shares: a few buckets take most of the time.
_CONCENTRATION = 0.5


class Way(NamedTuple):
    """A search of one bucket: after each trial the regret, and what the next one may gain."""

    regrets: Sequence[float]
    expects: Sequence[float | None]


class Expecting(Shipped):
    """Keeps what was expected after each trial that was told."""

    def __init__(self, recorded: Recorded, seed: int) -> None:
        super().__init__(recorded, seed)
        self.expects: list[float | None] = []

    def tell(self, config: PodConfig, value: float | None) -> None:
        super().tell(config, value)
        if value is not None:
            self.expects.append(self.study.expects)


def way(recorded: Recorded, seed: int, trials: int) -> Way:
    """A search to its end, confirmations counted as trials."""
    settings = TunerSettings(_env_file=None)  # type: ignore[call-arg]
    search = Expecting(recorded, seed)
    found = run(
        recorded, search, trials, seed,
        screen_steps=settings.screen_steps, pairs=settings.step_pairs,
    )  # fmt: skip
    last = search.expects[-1:] * trials
    return Way([regret for regret, _ in found], (search.expects + last)[:trials])


def by_trials(made: float, expects: float | None) -> float:  # noqa: ARG001 (a rule takes both)
    """The promise of a search of which only the number of trials is known."""
    return promised(made, None)


# What is expected of the next trial, by itself and as if it led to more or to fewer others.
RULES: dict[str, Callable[[float, float | None], float]] = {
    "expected": promised,
    "x 1": functools.partial(promised, ahead=1),
    "x 10": functools.partial(promised, ahead=10),
    "by trials": by_trials,
}


def lost(
    ways: Sequence[Way], shares: Array, total: int, rule: Callable[[float, float | None], float]
) -> list[float]:
    """After each trial, regret of the whole."""
    planned = TunerSettings(_env_file=None).trials  # type: ignore[call-arg]
    made, path = [0] * len(ways), []

    def promise(number: int) -> float:
        done = made[number]
        if done >= len(ways[number].regrets):
            return -1.0
        expects = ways[number].expects[done - 1] if done else None
        return float(shares[number]) * rule(done / planned, expects)

    for _ in range(total):
        made[max(range(len(ways)), key=promise)] += 1
        regrets = [each.regrets[max(0, n - 1)] for each, n in zip(ways, made, strict=True)]
        path.append(float(np.dot(shares, regrets)))
    return path


def main() -> None:
    """A line a rule; file regret_effort.json."""
    head = Head("regret_effort", __doc__)
    head.parser.add_argument("--seeds", type=int, default=6)
    head.parser.add_argument("--trials", type=int, default=100, help="of a bucket at most")
    head.parser.add_argument("--draws", type=int, default=100, help="of shares and seeds")
    options, told, buckets = head.parse()
    ways = [[way(b, seed, options.trials) for seed in range(options.seeds)] for b in buckets]
    document: dict[str, Any] = {"truth": told, "draws": options.draws, "lost_pct": {}}
    for name, rule in RULES.items():
        rng = np.random.default_rng(0)
        paths = []
        for _ in range(options.draws):
            shares = rng.dirichlet([_CONCENTRATION] * len(buckets))
            taken = [known[int(rng.integers(options.seeds))] for known in ways]
            paths.append(lost(taken, shares, max(_CHECKPOINTS), rule))
        means = [100 * statistics.fmean(column) for column in zip(*paths, strict=True)]
        found = {str(at): round(means[at - 1], 2) for at in _CHECKPOINTS}
        found["mean"] = round(statistics.fmean(means), 2)
        document["lost_pct"][name] = found
        print(f"{name:10s} " + ", ".join(f"{at}: {value} %" for at, value in found.items()))
    head.file(document)


if __name__ == "__main__":
    main()
