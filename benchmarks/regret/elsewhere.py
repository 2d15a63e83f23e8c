"""What configs would do in buckets that nothing was proven in, chosen by what a model knows.

    python -m benchmarks.regret.elsewhere [FILE]

FILE is what `python -m benchmarks.gpu truth --set rules` left. Every bucket is left out once; a
Gaussian process as the tuner's surrogate is taught recorded times of other ones: of all configs in
all buckets, which is more than a tuner ever knows, or of as many as the tuner's surrogate hears of
(tuner/search/transfer.py). In the bucket that was left out it chooses the config whose upper
bound of log(time / default's time), mean + k spreads, is least, and acts when that bound is below
0. Judged are the recorded steps: each is a look-up. `k` by itself would be chosen on the buckets
that judge it, so for each bucket it is also the least one at which all others lost in at most 1 %
of their look-ups. What acting can save is bounded by the time that runs before a bucket's proof:
that share is of the built-in request lengths through the model of a server (`pod-attn replay`).
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.regret.head import Head
from benchmarks.regret.recorded import Array, Recorded
from benchmarks.regret.transfer import traffic_of
from pod_integrate.demo.workload import Fit, built_in
from pod_integrate.model.estimate import attention_us
from pod_integrate.replay.serving import Rules, Serving, Step
from pod_integrate.terms.keys import Bucket
from tuner.search import space
from tuner.search.axes import TRAFFIC_GROUPS, Axes, apart
from tuner.search.process import Process, fit, standard

TRUTH = Path(__file__).resolve().parents[1] / "results" / "gpu_rules_beside.json"
# Steps of a bucket until its first proof: few, or those that hold 11 experiments of 2 %; the steps
# of a server that are looked at, its chunk and most requests.
_PROOFS, _STEPS, _REQUESTS = (100, 550), 20_000, 6000
_SERVER = Rules(chunk=512, max_running=64)
_CONFIDENCES = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0)
# A look-up that is slower than this of the default's speed has lost; that many may.
_SLOWER, _ALLOWED = 0.98, 0.01
# Buckets that teach, and configs of each.
_KNOWLEDGE = {"everything": (1000, 1000), "as in the tuner": (4, 48)}
# Points that weights are fitted to, and what these are expected to be: of parameters, of traffic,
# and the noise; of traffic also what else might have been expected.
_FITTED, _ALIKE, _FOREIGN, _NOISE = 250, 0.6, 2.0, 0.1
_OTHERWISE = (0.5, 1.0, 2.0, 4.0, 8.0)


class Guess(NamedTuple):
    """What is said of one bucket's configs, and what is true.

    mean, spread  [rows] of log(time / default's time)
    rows          [rows] where each was recorded
    """

    recorded: Recorded
    mean: Array
    spread: Array
    rows: list[int]

    def chosen(self, confidence: float) -> int | None:
        """The row that would act; None: the default does."""
        bound = self.mean + confidence * self.spread
        best = int(bound.argmin())
        return self.rows[best] if bound[best] < 0 else None


class Record(NamedTuple):
    """What acting came to: look-ups by whether they lost, and the share of time saved."""

    acts: bool
    lost: int
    saved: float


def known(recorded: Recorded) -> list[tuple[dict[str, Any], int]]:
    """Parameters of each distinct row that was measured, and the row."""
    found: dict[int, dict[str, Any]] = {}
    for config in recorded.configs:
        row = recorded.row(config)
        if row is not None and row not in found:
            found[row] = space.encode(config, recorded.choices)
    return [(params, row) for row, params in found.items()]


def lessons(
    recorded: Recorded, others: Sequence[Recorded], knowledge: tuple[int, int], seed: int
) -> list[tuple[Recorded, dict[str, Any], int]]:
    """Of so many of the others, the nearest ones, so many configs each."""
    rng, own = np.random.default_rng(seed), traffic_of(recorded).place()
    near = sorted(others, key=lambda each: float(apart(own, traffic_of(each).place())))
    found = []
    for other in near[: knowledge[0]]:
        all_of_it = known(other)
        drawn = rng.permutation(len(all_of_it))[: knowledge[1]]
        found += [(other, *all_of_it[number]) for number in drawn]
    return found


def guess(
    recorded: Recorded,
    others: Sequence[Recorded],
    knowledge: tuple[int, int],
    seed: int,
    foreign: float = _FOREIGN,
) -> Guess:
    """Of a bucket, by what is recorded of the others; `foreign`: expected weights of traffic."""
    axes = Axes(space.distributions(recorded.choices))
    taught = lessons(recorded, others, knowledge, seed)
    points = axes.places([params for _, params, _ in taught])
    traffic = np.array([traffic_of(other).place() for other, _, _ in taught])
    values = np.log([other.truth[row] for other, _, row in taught])
    middle = float(np.median(values))
    targets, spread = standard(values)
    distances = axes.distances(points, points, traffic, traffic)
    some = np.random.default_rng(seed).permutation(len(values))[:_FITTED]
    first = np.array(
        [_ALIKE] * (len(distances) - TRAFFIC_GROUPS) + [foreign] * TRAFFIC_GROUPS + [_NOISE]
    )
    weights = fit(distances[:, some][:, :, some], targets[some], first)
    own = known(recorded)
    places = axes.places([params for params, _ in own])
    here = np.tile(traffic_of(recorded).place(), (len(places), 1))
    mean, deviation = Process(distances, targets, weights).predict(
        axes.distances(places, points, here, traffic)
    )
    rows = [row for _, row in own]
    return Guess(recorded, mean * spread + middle, deviation * spread, rows)


def judge(found: Guess, confidence: float) -> Record:
    """What acting on this guess comes to."""
    row = found.chosen(confidence)
    if row is None:
        return Record(False, 0, 0.0)
    steps = np.median(found.recorded.ratios[row], axis=1)
    lost = int((steps > 1 / _SLOWER).sum())
    return Record(True, lost, 1 - float(found.recorded.truth[row]))


def calibrated(guesses: Sequence[Guess]) -> float:
    """The least confidence at which these lose in few enough look-ups; the largest when none is."""
    lookups = sum(len(each.recorded.steps) for each in guesses)
    for confidence in _CONFIDENCES:
        if sum(judge(each, confidence).lost for each in guesses) <= _ALLOWED * lookups:
            return confidence
    return max(_CONFIDENCES)


def summary(guesses: Sequence[Guess], records: Sequence[Record]) -> dict[str, Any]:
    """Of all buckets together; every one counts alike."""
    lookups = sum(len(each.recorded.steps) for each in guesses)
    lost = sum(each.lost for each in records)
    worst = min(records, key=lambda each: each.saved)
    return {
        "acts_in": sum(each.acts for each in records),
        "lost_lookups_pct": round(100 * lost / lookups, 2),
        "buckets_slower": sum(1 / (1 - each.saved) < _SLOWER for each in records),
        "slowest": round(1 / (1 - worst.saved), 3),
        "saved_pct": round(100 * math.fsum(each.saved for each in records) / len(records), 2),
    }


def surprise(found: Guess) -> float:
    """How badly a guess foretold what was recorded: minus the mean log density, in nats."""
    off = (np.log(found.recorded.truth[found.rows]) - found.mean) / found.spread
    return float((off**2 / 2 + np.log(found.spread * math.sqrt(2 * math.pi))).mean())


def expecting(buckets: Sequence[Recorded], foreign: float) -> tuple[float, float]:
    """Mean surprise when so much is expected of traffic, and the mean error of a prediction."""
    guesses = [
        guess(
            each,
            [o for o in buckets if o is not each],
            _KNOWLEDGE["as in the tuner"],
            seed,
            foreign,
        )
        for seed, each in enumerate(buckets)
    ]
    errors = [np.abs(np.log(g.recorded.truth[g.rows]) - g.mean).mean() for g in guesses]
    return float(np.mean([surprise(each) for each in guesses])), float(np.mean(errors))


def unproven(steps: Iterable[Step], recorded: Recorded) -> dict[str, float]:
    """By steps until a bucket's proof, the share of attention's time before that, in %."""
    seen: Counter[Bucket] = Counter()
    total, before = 0.0, dict.fromkeys(_PROOFS, 0.0)
    for step in steps:
        bucket = Bucket.of(step.q_lens, step.kv_lens)
        us = attention_us(step.q_lens, step.kv_lens, recorded.geometry, recorded.device)
        total += us
        for proof in _PROOFS:
            before[proof] += us * (seen[bucket] < proof)
        seen[bucket] += 1
    return {str(proof): round(100 * us / total, 1) for proof, us in before.items()}


def compare(buckets: Sequence[Recorded], knowledge: tuple[int, int]) -> dict[str, Any]:
    """By confidence, what acting on guesses comes to."""
    guesses = [
        guess(each, [other for other in buckets if other is not each], knowledge, seed)
        for seed, each in enumerate(buckets)
    ]
    found = {
        f"{confidence:g}": summary(guesses, [judge(each, confidence) for each in guesses])
        for confidence in _CONFIDENCES
    }
    chosen = [calibrated([o for o in guesses if o is not each]) for each in guesses]
    records = [judge(each, k) for each, k in zip(guesses, chosen, strict=True)]
    return found | {"calibrated on the others": summary(guesses, records)}


def main() -> None:
    """A line for each knowledge and confidence; file regret_elsewhere.json."""
    head = Head("regret_elsewhere", __doc__, TRUTH)
    _, told, buckets = head.parse()
    document: dict[str, Any] = {"truth": told, "buckets": len(buckets), "knows": {}}
    for knows, knowledge in _KNOWLEDGE.items():
        document["knows"][knows] = found = compare(buckets, knowledge)
        for name, each in found.items():
            said = ", ".join(f"{what} {value}" for what, value in each.items())
            print(f"knows {knows}, k {name}: {said}")
    document["expected_of_traffic"] = {}
    for foreign in _OTHERWISE:
        nats, error = expecting(buckets, foreign)
        entry = {"surprise_nats": round(nats, 3), "error_pct": round(100 * error, 2)}
        document["expected_of_traffic"][f"{foreign:g}"] = entry
        print(f"weights of traffic expected at {foreign:g}: {entry}")
    requests = built_in(_REQUESTS, Fit(rate=1.0, max_prompt=16_384))
    steps = itertools.islice(Serving(_SERVER).steps(requests), _STEPS)
    document["unproven_pct"] = unproven(steps, buckets[0])
    for proof, share in document["unproven_pct"].items():
        print(f"{share} % of the time of {_STEPS} steps before a bucket's proof of {proof} steps")
    head.file(document)


if __name__ == "__main__":
    main()
