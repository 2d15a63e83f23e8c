"""Fresh pairs of tuned against default, on the steps that a tuner has traced.

The tuner's own evidence is what made it choose; measuring once more, after the choice, is free of
that bias.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from typing import Any, NamedTuple

import httpx
import torch

from pod_integrate import native
from pod_integrate.config import PodConfig
from pod_integrate.defaults import default_config
from pod_integrate.device import device_key
from pod_integrate.errors import PodAttentionError
from pod_integrate.keys import Bucket, Geometry
from pod_integrate.table import ConfigTable
from tuner.bench import OpBench
from tuner.model import Lengths

_STEPS_PER_BUCKET = 3
_PAIRS_PER_STEP = 30
# K/V caches that calls rotate through: a layer does not find its keys in the CPU's cache.
_LAYERS = 8


class BucketComparison(NamedTuple):
    """One bucket: its share of traced attention time and median op times, microseconds."""

    bucket: str
    time_share: float
    source: str
    default_us: float
    tuned_us: float

    @property
    def speedup(self) -> float:
        """default / tuned."""
        return self.default_us / self.tuned_us


class Comparison(NamedTuple):
    """All compared buckets; `covered` is the share of attention time that they stand for."""

    buckets: list[BucketComparison]
    steps: int
    covered: float

    @property
    def speedup(self) -> float:
        """Attention time under default / under the table, over the covered share of time."""
        return self.covered / sum(row.time_share / row.speedup for row in self.buckets)


def compare_with_default(tuner_url: str, scope: dict[str, Any], *, seconds: float) -> Comparison:
    """Replay traced steps of one scope on this machine, order swapped every pair.

    scope    geometry, device and build as printed by `GET /v1/overview`
    seconds  spent measuring, split over buckets by their share of time
    A bucket for which the table has nothing counts with ratio 1, without being measured.

    Raises PodAttentionError when this machine is not the scope's device and build, when the tuner
    does not answer, or has no samples.
    """
    geometry = Geometry.parse(scope["geometry"])
    device = device_key(torch.device("cpu"))
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
    default = default_config(device, geometry)
    rows: list[BucketComparison] = []
    steps = 0
    for item in sampled:
        hit = table.lookup(Bucket.parse(item["bucket"]))
        chosen = item["samples"][:_STEPS_PER_BUCKET]
        times = (1.0, 1.0)
        if hit.config is not None and hit.config != default and chosen:
            budget = seconds * item["time_share"] / len(chosen)
            times = _measure(chosen, geometry, (default, hit.config), budget)
            steps += len(chosen)
        rows.append(BucketComparison(item["bucket"], item["time_share"], hit.source, *times))
    return Comparison(rows, steps, sum(row.time_share for row in rows))


def _measure(
    samples: Iterable[dict[str, list[int]]],
    geometry: Geometry,
    configs: tuple[PodConfig, PodConfig],
    budget: float,
) -> tuple[float, float]:
    """Median microseconds of one attention call under each config, over all samples' pairs."""
    bench = OpBench()
    pairs = [
        pair
        for sample in samples
        for pair in bench.pairs(
            *configs,
            geometry,
            Lengths(**sample),
            count=_PAIRS_PER_STEP,
            seconds=budget,
            layers=_LAYERS,
        )
    ]
    return (
        statistics.median(pair.baseline_us for pair in pairs),
        statistics.median(pair.candidate_us for pair in pairs),
    )


def _get(url: str, path: str, query: dict[str, str]) -> httpx.Response:
    try:
        return httpx.get(url + path, params=query, timeout=30.0).raise_for_status()
    except httpx.HTTPError as error:
        raise PodAttentionError(f"the tuner at {url} did not answer {path}: {error}") from error
