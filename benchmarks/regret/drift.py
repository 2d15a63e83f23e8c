"""False alarms and delays of what watches a promoted config's gain, on recorded steps.

    python -m benchmarks.regret.drift [FILE]

The best config of each recorded bucket is in force. Its steps come in random order, each with the
speed-up that was measured on it, over and over; after a change all of them gain less by some per
cent. The confirmed gain is the median of a few steps, as in the tuner, or the true one.
"""

from __future__ import annotations

import statistics
from typing import Any

import numpy as np

from benchmarks.regret.head import Head
from benchmarks.regret.recorded import Array, Recorded
from tuner.search.drift import Falling

_FALLS = (0.05, 0.1, 0.2)
_MOST = 2000


def speedups(recorded: Recorded) -> Array:
    """Of the best config, by step and call."""
    row = int(np.nanargmin(recorded.truth))
    found: Array = 1 / recorded.ratios[row]
    return found


def drawn(known: Array, count: int, rng: np.random.Generator) -> Array:
    """So many steps of a stream, each with one of its calls."""
    steps, calls = (rng.integers(n, size=count) for n in known.shape)
    found: Array = known[steps, calls]
    return found


def alarms(stream: Array, confirmed: float) -> int:
    """How often a gain that stays as it is is called fallen."""
    watch = Falling(confirmed)
    return sum(watch.add([speedup]) for speedup in stream.tolist())


def delay(stream: Array, confirmed: float, before: int) -> int:
    """Steps after the first `before` until the alarm; all of them when there is none."""
    watch = Falling(confirmed)
    watch.add(stream[:before].tolist())
    for number, speedup in enumerate(stream[before:].tolist(), 1):
        if watch.add([speedup]):
            return number
    return len(stream) - before


def compare(known: Array, steps: int, confirm: int, seeds: int) -> dict[str, Any]:
    """One bucket: alarms in so many steps without a change, medians of delays after each fall."""
    rng = np.random.default_rng(0)
    true = float(np.median(known))
    stream = drawn(known, steps, rng)
    estimated = [float(np.median(drawn(known, confirm, rng))) for _ in range(seeds)]
    delays = {}
    for fall in _FALLS:
        found = []
        for confirmed in estimated:
            after = drawn(known, _MOST, rng) * (1 - fall)
            whole = np.concatenate([drawn(known, 100, rng), after])
            found.append(delay(whole, confirmed, 100))
        delays[f"{100 * fall:.0f} %"] = statistics.median(found)
    return {
        "alarms": alarms(stream, true),
        "alarms_estimated": statistics.fmean(
            alarms(stream[: steps // 10], confirmed) * 10 for confirmed in estimated
        ),
        "steps_to_detection": delays,
    }


def main() -> None:
    """A line a bucket; file regret_drift.json."""
    head = Head("regret_drift", __doc__)
    head.parser.add_argument("--steps", type=int, default=100_000)
    head.parser.add_argument("--confirm", type=int, default=24, help="steps of a confirmation")
    head.parser.add_argument("--seeds", type=int, default=20)
    options, told, buckets = head.parse()
    document: dict[str, Any] = {"truth": told, "steps": options.steps, "buckets": {}}
    for recorded in buckets:
        found = compare(speedups(recorded), options.steps, options.confirm, options.seeds)
        document["buckets"][recorded.name] = found
        said = ", ".join(f"{fall}: {n:g}" for fall, n in found["steps_to_detection"].items())
        print(
            f"{recorded.name:22s} alarms in {options.steps} steps: {found['alarms']}, with an "
            f"estimated gain {found['alarms_estimated']:.1f}; steps to detection of {said}"
        )
    head.file(document)


if __name__ == "__main__":
    main()
