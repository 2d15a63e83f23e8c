"""What tuning gained, from the steps of two engines: by bucket, and of all attention."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterable
from typing import Any, TypedDict

from pod_integrate.terms.keys import Bucket
from pod_integrate.terms.table import MIN_STEPS
from pod_integrate.terms.trace import StepRecord


class Gain(TypedDict):
    """Of one bucket: its share of the default's time, medians, and their ratio."""

    share: float
    default_us: float
    tuned_us: float
    speedup: float
    steps: list[int]


def by_bucket(records: Iterable[StepRecord]) -> dict[str, list[float]]:
    """Microseconds of attention of every timed step, by bucket."""
    found: dict[str, list[float]] = defaultdict(list)
    for record in records:
        if record.attention_us > 0:
            found[str(Bucket.of(record.q_lens, record.kv_lens))].append(record.attention_us)
    return dict(found)


def gain(
    default: dict[str, list[float]], tuned: dict[str, list[float]], entries: Iterable[str]
) -> dict[str, Any]:
    """Default time / tuned time, of each bucket with an entry and of all attention.

    Medians of the steps of a bucket are compared, MIN_STEPS of both at least.
    """
    total = sum(map(sum, default.values()))
    buckets: dict[str, Gain] = {}
    for name in sorted(entries):
        steps = (default.get(name, []), tuned.get(name, []))
        if min(map(len, steps)) >= MIN_STEPS:
            medians = [statistics.median(one) for one in steps]
            buckets[name] = {
                "share": sum(steps[0]) / total, "default_us": medians[0], "tuned_us": medians[1],
                "speedup": medians[0] / medians[1], "steps": [len(one) for one in steps],
            }  # fmt: skip
    left = sum(one["share"] / one["speedup"] for one in buckets.values())
    covered = sum(one["share"] for one in buckets.values())
    return {
        "buckets": buckets,
        "covered_share": covered,
        "speedup": 1.0 / (1.0 - covered + left) if total else None,
    }


def decode_share(default: dict[str, list[float]], entries: Iterable[str]) -> float | None:
    """Share of the time of decode-only steps that lies in tuned buckets."""
    spent = {n: sum(t) for n, t in default.items() if not Bucket.parse(n).prefill_tokens}
    total = sum(spent.values())
    return sum(spent.get(name, 0.0) for name in entries) / total if total else None
