"""The paper's sweep, sampled: how the speed-ups are spread over cases that nobody chose by hand."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from benchmarks.gpu.peers import peers
from benchmarks.gpu.speed.cases import default_of, make_case
from benchmarks.gpu.speed.measure import Numbers, alone, in_turn, others, ours
from benchmarks.gpu.speed.summary import geomean, of_case
from benchmarks.gpu.speed.sweep_space import few
from pod_integrate.model.floors import CaseSpec

_CONFIGS = 12
# The paper plots cases where both ops take this share of the serial time.
_BALANCED = 0.2
# All rows through one prefill kernel, and torch's, are slower than what stays; time is short here.
_LEFT_OUT = ("all rows", "no tensor cores", "torch")
RATIOS = (
    "fused_vs_serial",
    "fused_vs_best_serial",
    "fused_vs_batchpod",
    "fused_vs_batchattention",
    "default_vs_serial",
    "default_vs_best_serial",
    "default_vs_batchpod",
)


def measure(work: Numbers, spec: CaseSpec, tried: list[peers.Peer]) -> None:
    """Default, a few configs fused and serial, each op alone, and the peers."""
    machine, case = work.machine, make_case(spec, work.machine.device)
    base = default_of(machine, spec)
    configs = few(machine.arch, spec.head_dim)[: _CONFIGS if not machine.tiny else 2]
    ours(work, spec, case, base, "default")
    serial = dataclasses.replace(base, strategy="serial")
    ours(work, spec, case, serial, "default")
    others(work, spec, case, [p for p in tried if not any(w in p.name for w in _LEFT_OUT)])
    for config in configs[1:]:
        ours(work, spec, case, config, "tried")
    for config in dict.fromkeys(map(in_turn, configs)):
        ours(work, spec, case, config, "tried")
    del case
    alone(work, spec, serial, "prefill")
    alone(work, spec, serial, "decode")


def balanced(entry: dict[str, Any]) -> bool:
    """Whether each op alone takes at least a fifth of both; the paper's rule for its plot."""
    times = [
        run["median_us"]
        for run in entry["runs"]
        if run.get("label") == "alone" and "median_us" in run
    ]
    return len(times) == 2 and min(times) >= _BALANCED * sum(times)


def distribution(entries: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """By ratio: cases, geomean, min, quantiles, max, share of cases below 1; all and `balanced`.

    A case in which time was over counts for nothing.
    """
    whole = {name: entry for name, entry in entries.items() if "cut" not in entry}
    kinds = {"all": whole, "balanced": {n: e for n, e in whole.items() if balanced(e)}}
    found: dict[str, Any] = {}
    for kind, chosen in kinds.items():
        ratios = [of_case(entry) for entry in chosen.values()]
        found[kind] = {}
        for name in RATIOS:
            values = sorted(ratio[name] for ratio in ratios if name in ratio)
            if values:
                found[kind][name] = _spread(values)
    return found


def _spread(ordered: list[float]) -> dict[str, float]:
    def quantile(share: float) -> float:
        return ordered[math.floor(share * (len(ordered) - 1) + 0.5)]

    return {
        "cases": len(ordered),
        "geomean": round(geomean(ordered), 4),
        "min": ordered[0],
        "p10": quantile(0.1),
        "median": quantile(0.5),
        "p90": quantile(0.9),
        "max": ordered[-1],
        "below_1": round(sum(value < 1 for value in ordered) / len(ordered), 4),
    }
