"""Whether a bucket holds two kinds of steps that want different configs, by recorded times.

    python -m benchmarks.regret.kinds [FILE]

A bucket's steps are cut in two by what its key does not see: chunks, the skew of decode lengths,
how much work there is to fill waves with, rows of 2 to 8 tokens. Each half gets the config that is
fastest on it; what this gains over one config for all flatters itself, because few steps choose
among hundreds of configs. So the gain is compared with that of every other cut into parts of that
size: a cut means something when few gain as much.
"""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from benchmarks.regret.head import Head
from benchmarks.regret.recorded import Array, Recorded
from pod_integrate.model.estimate import attention_us

# Rows of so many tokens count as prefill and fit a decode tile.
_FEW = range(2, 9)


def features(recorded: Recorded) -> dict[str, list[float]]:
    """By name, of each step."""
    steps = recorded.steps
    return {
        "chunks": [float(len(step.prefill.q_lens)) for step in steps],
        "skew": [_skew(step.decode.kv_lens) for step in steps],
        "work": [attention_us(*step, recorded.geometry, recorded.device) for step in steps],
        "few tokens": [float(sum(q_len in _FEW for q_len in step.q_lens)) for step in steps],
    }


def _skew(lengths: Sequence[int]) -> float:
    """The longest over the mean one."""
    return max(lengths) / statistics.fmean(lengths) if lengths else 0.0


class Cut(NamedTuple):
    """What a cut of the steps gains over one config, in %, and the share of cuts that gain it."""

    gain: float
    chance: float
    steps: int


def times(recorded: Recorded) -> Array:
    """[rows, steps] each step's share of the default's time, of what was measured."""
    known: Array = np.median(recorded.ratios, axis=2) * recorded.weights
    measured: Array = known[~np.isnan(recorded.truth)]
    return measured


def gain(known: Array, part: tuple[int, ...]) -> float:
    """What two configs save of the time of one, in %."""
    mine = np.zeros(known.shape[1], dtype=bool)
    mine[list(part)] = True
    two = known[:, mine].sum(axis=1).min() + known[:, ~mine].sum(axis=1).min()
    return float(100 * (1 - two / known.sum(axis=1).min()))


def cut(known: Array, values: list[float]) -> Cut | None:
    """By the median of a feature; None where all steps have the same."""
    middle = statistics.median(values)
    above = tuple(i for i, value in enumerate(values) if value > middle)
    above = above or tuple(i for i, value in enumerate(values) if value >= middle)
    if not 0 < len(above) < len(values):
        return None
    found = gain(known, above)
    others = [gain(known, part) for part in itertools.combinations(range(len(values)), len(above))]
    return Cut(round(found, 2), round(float(np.mean(np.array(others) >= found)), 3), len(above))


def main() -> None:
    """A line a bucket and feature; file regret_kinds.json."""
    head = Head("regret_kinds", __doc__)
    _, told, buckets = head.parse()
    document: dict[str, Any] = {"truth": told, "buckets": {}}
    for recorded in buckets:
        known, entry = times(recorded), document["buckets"].setdefault(recorded.name, {})
        for name, values in features(recorded).items():
            found = cut(known, values)
            if found is None:
                said = "all steps alike"
            else:
                entry[name] = found._asdict()
                said = (
                    f"{found.steps} steps apart gain {found.gain} %, as do "
                    f"{100 * found.chance:.0f} % of all cuts"
                )
            print(f"{recorded.name:22s} {name:10s} {said}")
    head.file(document)


if __name__ == "__main__":
    main()
