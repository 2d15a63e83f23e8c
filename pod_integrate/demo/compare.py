"""Fresh pairs of tuned against default, on the steps that a tuner has traced.

The tuner's own evidence is what made it choose; measuring once more, after the choice, is free of
that bias.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from typing import Any, NamedTuple

import httpx
import msgspec
import torch

from pod_integrate.builds import native
from pod_integrate.devices.registry import device_of, target_of
from pod_integrate.errors import PodAttentionError
from pod_integrate.terms.config import PodConfig
from pod_integrate.terms.keys import Bucket, Geometry
from pod_integrate.terms.table import MIN_STEPS, ConfigTable
from tuner.measure.bench import OpBench
from tuner.messages import Pair, StepLengths
from tuner.search.judge import bounds, step_speedups
from tuner.view.shown import typical

# Of the re-check, enough for a bound; of the replay that is shown, whose bounds are to be narrow
# however busy the machine is.
STEPS_PER_BUCKET, SHOWN_STEPS = 12, 24
_PAIRS_PER_STEP = 4
_CONFIDENCE = 0.95
# K/V caches that calls rotate through: a layer does not find its keys in the CPU's cache.
_LAYERS = 8


class BucketComparison(NamedTuple):
    """One bucket under the default and under the table.

    time_share    of traced attention time
    speedup       default time / tuned time, median over the steps; 1 where the default applies
    lower_bound, upper_bound   of it, None where too few steps were replayed for one
    default_us, tuned_us       of one attention call, in the pair whose ratio is nearest to it
    trial         of the table entry, None without one
    """

    bucket: str
    time_share: float
    source: str
    speedup: float = 1.0
    lower_bound: float | None = None
    upper_bound: float | None = None
    default_us: float | None = None
    tuned_us: float | None = None
    trial: int | None = None
    pairs: tuple[Pair, ...] = ()

    @property
    def steps(self) -> int:
        """Distinct steps replayed."""
        return len({pair.batch for pair in self.pairs})

    def document(self) -> dict[str, Any]:
        """As JSON, the pairs counted only."""
        return self._asdict() | {"pairs": len(self.pairs), "steps": self.steps}


class Comparison(NamedTuple):
    """All compared buckets; `covered` is the share of attention time that they stand for."""

    buckets: list[BucketComparison]
    covered: float

    @property
    def steps(self) -> int:
        """Distinct steps replayed, over all buckets."""
        return sum(row.steps for row in self.buckets)

    @property
    def speedup(self) -> float:
        """Attention time under default / under the table, over the covered share of time."""
        return self.covered / sum(row.time_share / row.speedup for row in self.buckets)

    @property
    def lower_bound(self) -> float | None:
        """The same with every bucket only at its lower bound; None while one has none."""
        bounds = [row.lower_bound if row.pairs else 1.0 for row in self.buckets]
        known = [bound for bound in bounds if bound is not None]
        if len(known) < len(bounds):
            return None
        rows = zip(self.buckets, known, strict=True)
        return self.covered / sum(row.time_share / bound for row, bound in rows)

    @property
    def worst(self) -> BucketComparison | None:
        """The replayed bucket that gains least, None when the default applies everywhere."""
        return min((row for row in self.buckets if row.pairs), key=_speedup, default=None)


class Replays(NamedTuple):
    """What a demo ends with: a re-check, then the numbers it shows, on other steps.

    refuted  buckets whose config either of them rolled back
    """

    first: Comparison
    last: Comparison
    refuted: list[str]


def _speedup(row: BucketComparison) -> float:
    return row.speedup


def compare_with_default(
    tuner_url: str,
    scope: dict[str, Any],
    *,
    seconds: float,
    skip: int = 0,
    steps: int = STEPS_PER_BUCKET,
) -> Comparison:
    """Replay traced steps of one scope on this machine, order swapped every pair.

    scope    geometry, device and build as printed by `GET /v1/overview`
    seconds  spent measuring, split over the buckets that the table has by their share of time;
             every step gets a pair
    steps    of each bucket at most: more of them narrow the bounds
    skip     leave so many steps of each bucket out, e.g. those of an earlier replay; where fewer
             than MIN_STEPS are left the last ones are taken
    A bucket for which the table has nothing counts with ratio 1, without being measured.

    Raises PodAttentionError when this machine is not the scope's device and build, when the tuner
    does not answer, or has no samples.
    """
    geometry = Geometry.parse(scope["geometry"])
    device = device_of(torch.device("cpu")).key
    mine = {"device": str(device), "build": native.build_id("cpu")}
    if any(scope[name] != value for name, value in mine.items()):
        raise PodAttentionError(
            f"the table is for {scope['device']} {scope['build']}, here runs {mine['device']} "
            f"{mine['build']}: compare on that machine"
        )
    query = {name: scope[name] for name in ("geometry", "device", "build")}
    table = ConfigTable.from_json(_get(tuner_url, "/v1/table", query).content)
    sampled = _get(tuner_url, "/v1/samples", query).json()["buckets"]
    if not sampled:
        raise PodAttentionError("the tuner holds no traced steps for this scope yet")
    default = target_of(device).default_config(geometry)
    listed = sum(s["time_share"] for s in sampled if Bucket.parse(s["bucket"]) in table.entries)
    rows: list[BucketComparison] = []
    for item in sampled:
        row = BucketComparison(item["bucket"], item["time_share"], "default")
        entry = table.entries.get(Bucket.parse(row.bucket))
        sample = [StepLengths(**lengths) for lengths in item["samples"]]
        chosen = sample[skip:][:steps]
        if len(chosen) < MIN_STEPS:
            chosen = sample[-steps:]
        if entry is not None and chosen:
            budget = seconds * row.time_share / listed / len(chosen)
            pairs = _measure(chosen, geometry, (default, entry.config), budget)
            row = _filled(row._replace(source="exact", trial=entry.evidence.trial), pairs)
        rows.append(row)
    return Comparison(rows, sum(row.time_share for row in rows))


def feed_back(tuner_url: str, scope: dict[str, Any], compared: Comparison) -> list[str]:
    """Tell the tuner what a replay measured; returns the buckets whose config it rolled back.

    Raises PodAttentionError when the tuner does not answer.
    """
    keys = {name: scope[name] for name in ("geometry", "device", "build")}
    refuted = []
    for row in compared.buckets:
        if row.trial is None:
            continue
        body = keys | {"bucket": row.bucket, "trial": row.trial, "pairs": row.pairs}
        try:
            answer = httpx.post(
                f"{tuner_url}/v1/recheck", content=msgspec.json.encode(body), timeout=30.0,
                trust_env=False,
            ).raise_for_status()  # fmt: skip
        except httpx.HTTPError as error:
            raise PodAttentionError(f"the tuner took no re-check: {error}") from error
        if answer.json()["verdict"] == "rolled back":
            refuted.append(row.bucket)
    return refuted


def _filled(row: BucketComparison, pairs: list[Pair]) -> BucketComparison:
    speedups = step_speedups(pairs)
    lower, upper = bounds(speedups, 1 - _CONFIDENCE)
    speedup = statistics.median(speedups)
    shown = typical(pairs, speedup)
    return row._replace(
        speedup=speedup,
        lower_bound=lower,
        upper_bound=upper,
        default_us=shown.baseline_us if shown else None,
        tuned_us=shown.candidate_us if shown else None,
        pairs=tuple(pairs),
    )


def _measure(
    steps: Iterable[StepLengths],
    geometry: Geometry,
    configs: tuple[PodConfig, PodConfig],
    budget: float,
) -> list[Pair]:
    """Pairs of both configs, `budget` seconds of each step."""
    bench = OpBench()
    return [
        pair
        for lengths in steps
        for pair in bench.pairs(
            *configs, geometry, lengths, count=_PAIRS_PER_STEP, seconds=budget, layers=_LAYERS
        )
    ]


def _get(url: str, path: str, query: dict[str, str]) -> httpx.Response:
    try:
        answer = httpx.get(url + path, params=query, timeout=30.0, trust_env=False)
        return answer.raise_for_status()
    except httpx.HTTPError as error:
        raise PodAttentionError(f"the tuner at {url} did not answer {path}: {error}") from error
