"""Recorded truth: what `python -m benchmarks.gpu truth` left, as an answer to every config."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.gpu.truth.grid import Grid, canonical, choices
from benchmarks.gpu.truth.truth import SCHEMA, parse_step
from pod_integrate.devices.registry import target_of
from pod_integrate.terms.config import PodConfig
from pod_integrate.terms.keys import DeviceKey, Geometry

Array = npt.NDArray[np.float64]
Places = npt.NDArray[np.int64]


class Recorded:
    """One bucket.

    ratios   [rows, steps, calls] time over the default's, NaN where a row was not measured
    truth    [rows] time of all steps together over the default's, NaN likewise
    weights  [steps] of their time, which steps are drawn by
    """

    def __init__(self, document: dict[str, Any], device: DeviceKey) -> None:
        self.name, self.bucket, self.device = document["name"], document["bucket"], device
        self.geometry = Geometry.parse(document["geometry"])
        target = target_of(device)
        self.choices = choices(target, self.geometry)
        self.steps = [parse_step(text) for text in document["steps"]]
        configs = Grid(**document["grid"]).configs(target.default_config(self.geometry))
        rows = map(int, document["cells"].split())
        self._rows = dict(zip(configs, rows, strict=True))
        # What was the default then: times are told by its.
        self.default = next(c for c in configs if c.short() == document["default"])
        self.ratios = _ratios(document["rows"])
        self.weights: Array = np.array(document["default_us"])
        self.weights /= self.weights.sum()
        # The median of a step's calls: an outlier is no truth.
        self.truth: Array = np.nansum(np.median(self.ratios, axis=2) * self.weights, axis=1)
        self.truth[np.isnan(self.ratios).any(axis=(1, 2))] = np.nan

    @property
    def best(self) -> float:
        """Of the fastest config, over the default's time."""
        return float(np.nanmin(self.truth))

    @property
    def configs(self) -> list[PodConfig]:
        """Of the grid."""
        return list(self._rows)

    def row(self, config: PodConfig) -> int | None:
        """Where a config of the grid was measured; None when it was not."""
        row = self._rows.get(canonical(config, self.steps), self._rows.get(config))
        return None if row is None or np.isnan(self.truth[row]) else row

    def screened(self, row: int, steps: Places, rng: np.random.Generator, pairs: int) -> float:
        """What screening on these steps would say: the median over steps of each one's median."""
        calls = self.ratios.shape[2]
        drawn = rng.integers(calls, size=(len(steps), pairs))
        return float(np.median(np.median(self.ratios[row, steps[:, None], drawn], axis=1)))


def load(path: Path) -> tuple[dict[str, Any], list[Recorded]]:
    """The document without its buckets, and these; ValueError for another schema."""
    document = json.loads(path.read_text())
    if document.get("schema") != SCHEMA:
        raise ValueError(f"{path} has schema {document.get('schema')}, this reads {SCHEMA}")
    device = DeviceKey.parse(document["device"])
    return document, [Recorded(each, device) for each in document.pop("buckets")]


def _ratios(rows: list[str | None]) -> Array:
    read = [row and [_calls(step) for step in row.split(", ")] for row in rows]
    shape = np.array(next(row for row in read if row)).shape
    return np.array([row or np.full(shape, np.nan) for row in read]) / 1e4


def _calls(step: str) -> list[int]:
    """Of one step; the others take turns in the place of what was left out, `-`."""
    calls = step.split()
    known = [int(call) for call in calls if call != "-"]
    return [known[i % len(known)] for i in range(len(calls))]
