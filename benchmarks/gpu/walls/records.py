"""Rates from the records of warps."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch

_BEGIN_NS, _END_NS, _BEGIN_CLOCK, _END_CLOCK, _UNITS = range(5)


class Role(NamedTuple):
    """Warps of a CTA that do the same.

    warps     their places, [begin, end)
    per_unit  bytes, copies or FLOPs of one unit of a warp's count
    """

    warps: tuple[int, int]
    per_unit: float


def rate(records: torch.Tensor, role: Role) -> float:
    """Units of all CTAs per second, each warp's over its own time; 0 for warps without work.

    records  [ctas, warps, 5] int64 of one launch, on the host
    """
    begin, end = role.warps
    mine = records[:, begin:end].reshape(-1, 5).double()
    mine = mine[mine[:, _END_NS] > 0]
    return float((mine[:, _UNITS] / (mine[:, _END_NS] - mine[:, _BEGIN_NS])).sum()) * (
        role.per_unit * 1e9
    )


def ctas(records: torch.Tensor) -> int:
    """How many CTAs worked: clusters need not fill all SMs."""
    return int((records[:, :, _END_NS] > 0).any(1).sum())


def clock_ghz(records: torch.Tensor) -> float:
    """Median SM clock over the warps that worked."""
    all_warps = records.reshape(-1, 5)
    worked = all_warps[all_warps[:, _END_NS] > 0].double()
    cycles = worked[:, _END_CLOCK] - worked[:, _BEGIN_CLOCK]
    return float((cycles / (worked[:, _END_NS] - worked[:, _BEGIN_NS])).median())


def summary(launches: Sequence[torch.Tensor], roles: dict[str, Role]) -> dict[str, float]:
    """Median over launches of each role's rate, by its name, and of the clock; fewest CTAs."""
    found = {
        name: statistics.median(rate(records, role) for records in launches)
        for name, role in roles.items()
    }
    clock = statistics.median(map(clock_ghz, launches))
    return {**found, "sm_ghz": clock, "ctas": min(map(ctas, launches))}


def least_in_flight(points: Sequence[tuple[float, float]], share: float) -> float | None:
    """Fewest bytes in flight from which on every rate is at least `share` of the best.

    points  (bytes in flight, rate)
    """
    best = max((value for _, value in points), default=0.0)
    enough: float | None = None
    for size, value in sorted(points, reverse=True):
        if value < share * best:
            break
        enough = size
    return enough


def merged(document: dict[str, Any], recorded: dict[str, Any]) -> dict[str, Any]:
    """The recorded parts but for those measured again; each of these says when, and on what.

    A part that a trap cut off replaces none.
    """
    cut = document.get("cut")
    again = {
        name: part
        for name, part in document.items()
        if isinstance(part, list) and (name != cut or name not in recorded)
    }
    seconds = {**recorded["seconds"], **document["seconds"]}
    kept = {name: recorded[name] for name in ("machine", "cycles")}
    told = {name: document["machine"].get(name) for name in ("utc", "kernel_build", "clocks")}
    later = {**recorded.get("later", {}), **dict.fromkeys(again, told)}
    return {**recorded, **again, **kept, "seconds": seconds, "later": later}
