"""Config tables with made-up evidence, for tests of whatever reads tables."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pod_integrate.terms.config import PodConfig
from pod_integrate.terms.keys import Bucket, DeviceKey, Geometry
from pod_integrate.terms.table import ConfigTable, Evidence, TableEntry

_WHEN = "2026-01-01T00:00:00Z"


def make_evidence(build: str, **changes: Any) -> Evidence:
    """Evidence of a ten-percent gain measured on `build`; `changes` replace fields."""
    fields: dict[str, Any] = {
        "pairs": 30,
        "steps": 30,
        "median_speedup": 1.1,
        "lower_bound": 1.05,
        "confidence": 0.95,
        "method": "replay",
        "measured_at": _WHEN,
        "trial": 1,
    }
    return Evidence(**{**fields, "build": build, **changes})


def make_table(
    config: PodConfig,
    buckets: Iterable[Bucket],
    *,
    geometry: Geometry,
    device: DeviceKey,
    build: str,
    version: int = 3,
) -> ConfigTable:
    """A table that names one config for all of `buckets`."""
    entry = TableEntry(config, make_evidence(build))
    return ConfigTable(
        version=version,
        geometry=geometry,
        device=device,
        build=build,
        updated=_WHEN,
        entries=dict.fromkeys(buckets, entry),
    )
