"""The paper's sweep, sampled: how the speed-ups are spread over cases that nobody chose by hand."""

from __future__ import annotations

import dataclasses
import json
import math
import time
from pathlib import Path
from typing import Any

from benchmarks.gpu.peers import peers
from benchmarks.gpu.speed.cases import default_of, make_case
from benchmarks.gpu.speed.measure import Entries, Numbers, alone, in_turn, others, ours
from benchmarks.gpu.speed.summary import geomean, of_case
from benchmarks.gpu.speed.sweep_space import few
from pod_integrate.errors import PodAttentionError
from pod_integrate.model.floors import CaseSpec

_CONFIGS = 12
# The paper plots cases where both ops take this share of the serial time.
_BALANCED = 0.2
# All rows through one prefill kernel, and torch's, are slower than what stays; time is short here.
_LEFT_OUT = ("all rows", "no tensor cores", "torch")
# Beside the default: FlashAttention-2 then decode is slower than its parts and than -3's.
_LEFT_OUT_OF_DEFAULTS = (*_LEFT_OUT, "fa2 then decode")
# Below this share of the best serial's speed a case counts as lost, not as noise.
_LOST = 0.98
RATIOS = (
    "fused_vs_serial",
    "fused_vs_best_serial",
    "fused_vs_batchpod",
    "fused_vs_batchattention",
    "default_vs_serial",
    "default_vs_best_serial",
    "default_vs_batchpod",
    "default_vs_batchattention",
)


class GridResumeError(PodAttentionError):
    """An earlier grid.json is not of the same cases, GPU and kernel."""


def read(path: Path) -> dict[str, Any]:
    """A document of an earlier run; raises GridResumeError where the file holds none."""
    try:
        return dict(json.loads(path.read_text()))
    except (OSError, ValueError, TypeError) as error:
        raise GridResumeError(
            f"--resume {path} cannot be read ({error}); give the grid.json of an earlier "
            "`numbers --grid`, or leave --resume out to start afresh"
        ) from error


def resume(work: Numbers, earlier: dict[str, Any], wanted: list[CaseSpec]) -> list[CaseSpec]:
    """Take over the whole cases of an earlier document of the grid; what is left of `wanted`.

    Raises GridResumeError when the two were measured in another way.
    """
    for what, new, old in zip(
        ("sample", "timing", "GPU", "kernel"), _way(work.document), _way(earlier), strict=True
    ):
        if new != old:
            raise GridResumeError(
                f"the grid to be resumed has {what} {old}, this run {new}; start anew without "
                "--resume"
            )
    names = {spec.name for spec in wanted}
    whole: Entries = {
        name: entry
        for name, entry in earlier["cases"].items()
        if name in names and not {"cut", "error"} & set(entry)
    }
    work.document["cases"].update(whole)
    work.document["resumed"] = [*earlier.get("resumed", []), earlier["machine"]["utc"]]
    return [spec for spec in wanted if spec.name not in whole]


def _way(document: dict[str, Any]) -> tuple[Any, ...]:
    machine = document["machine"]
    name = machine.get("device", {}).get("name")
    return document["sample"], document["timing"], name, machine.get("kernel_build")


def defaults(work: Numbers, spec: CaseSpec, tried: list[peers.Peer]) -> None:
    """The default config fused, in turn and each op alone, and the peers; no config is tried.

    More cases in the same time judge the default better than more configs.
    """
    began = time.monotonic()
    case, base = make_case(spec, work.machine.device), default_of(work.machine, spec)
    ours(work, spec, case, base, "default")
    ours(work, spec, case, dataclasses.replace(base, strategy="serial"), "default")
    others(work, spec, case, _without(tried, _LEFT_OUT_OF_DEFAULTS))
    del case
    for part in ("prefill", "decode"):
        alone(work, spec, base, part, label="default")
    entry = work.case(spec)
    for run in entry["runs"]:
        # The same in all of thousands; `short` names it.
        run.pop("config", None)
    entry["seconds"] = round(time.monotonic() - began, 3)


def measure(work: Numbers, spec: CaseSpec, tried: list[peers.Peer]) -> None:
    """Default, a few configs fused and serial, each op alone, and the peers."""
    machine, case = work.machine, make_case(spec, work.machine.device)
    base = default_of(machine, spec)
    configs = few(machine.arch, spec.head_dim)[: _CONFIGS if not machine.tiny else 2]
    ours(work, spec, case, base, "default")
    serial = dataclasses.replace(base, strategy="serial")
    ours(work, spec, case, serial, "default")
    others(work, spec, case, _without(tried, _LEFT_OUT))
    for config in configs[1:]:
        ours(work, spec, case, config, "tried")
    for config in dict.fromkeys(map(in_turn, configs)):
        ours(work, spec, case, config, "tried")
    del case
    alone(work, spec, serial, "prefill")
    alone(work, spec, serial, "decode")


def _without(tried: list[peers.Peer], words: tuple[str, ...]) -> list[peers.Peer]:
    return [peer for peer in tried if not any(word in peer.name for word in words)]


def balanced(entry: dict[str, Any]) -> bool:
    """Whether each op alone takes at least a fifth of both; the paper's rule for its plot."""
    times = [
        run["median_us"]
        for run in entry["runs"]
        if "label" in run and run["part"] != "all" and "median_us" in run
    ]
    return len(times) == 2 and min(times) >= _BALANCED * sum(times)


def distribution(entries: Entries) -> dict[str, Any]:
    """By ratio: cases, geomean, min, quantiles, max, shares of cases lost; all and `balanced`.

    A case in which time was over counts for nothing. Where no config but the default was tried,
    no ratio is called that of the best.
    """
    whole = {name: entry for name, entry in entries.items() if "cut" not in entry}
    kinds = {"all": whole, "balanced": {n: e for n, e in whole.items() if balanced(e)}}
    tried = any(run.get("label") == "tried" for e in whole.values() for run in e["runs"])
    names = [name for name in RATIOS if tried or name.startswith("default")]
    found: dict[str, Any] = {}
    for kind, chosen in kinds.items():
        ratios = [of_case(entry) for entry in chosen.values()]
        found[kind] = {}
        for name in names:
            values = sorted(ratio[name] for ratio in ratios if name in ratio)
            if values:
                found[kind][name] = _spread(values)
    return found


def _spread(ordered: list[float]) -> dict[str, float]:
    def quantile(share: float) -> float:
        return ordered[math.floor(share * (len(ordered) - 1) + 0.5)]

    def below(limit: float) -> float:
        return round(sum(value < limit for value in ordered) / len(ordered), 4)

    return {
        "cases": len(ordered),
        "geomean": round(geomean(ordered), 4),
        "min": ordered[0],
        "p10": quantile(0.1),
        "median": quantile(0.5),
        "p90": quantile(0.9),
        "max": ordered[-1],
        "below_1": below(1),
        "below_098": below(_LOST),
    }
