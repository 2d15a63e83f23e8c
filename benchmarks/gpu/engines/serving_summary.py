"""What the serving part's windows say together: each side at its best chunk size, and the rest."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from benchmarks.gpu.engines.serving_figures import Timed
from benchmarks.gpu.engines.serving_loads import SHAPES, Shape
from pod_integrate.model.dense import DenseModel
from pod_integrate.model.devices import DEVICES, Device
from pod_integrate.model.stock import stock_us
from pod_integrate.terms.keys import ELEMENT_BYTES, KvDtype

_MOST_STEPS = 80
Window = dict[str, Any]


def device_called(name: str) -> Device | None:
    """What the model knows of a GPU by its driver's name; None where it knows none."""
    key = name.lower().replace(" ", "-")
    return next((device for device in DEVICES.values() if device.key.name == key), None)


class Sides(NamedTuple):
    """Best windows of one load: who runs unmixed or mixed on stock attention, and `pod`."""

    unmixed: Window
    mixed: Window
    pod: Window


def best(windows: Iterable[Window], engine: str, mixed: bool) -> Window | None:
    """Of an engine's chunk sizes the one with most steady tokens/s; means of its rounds.

    Stretches that were cut, or that say nothing of the long run, do not count.
    """
    chunks: dict[int, list[Window]] = {}
    for window in windows:
        counts = window["whole"] and "refused" not in window
        if counts and (window["engine"], window["mixed"]) == (engine, mixed):
            chunks.setdefault(window["chunk"], []).append(window)
    means = [
        {
            **own[0],
            **{
                name: statistics.mean(one[name] for one in own)
                for name in ("steady", "measured", "itl_ms_p50", "itl_ms_p99")
                if all(name in one for one in own)
            },
            **_spread(own),
            "rounds": len(own),
        }
        for own in chunks.values()
    ]
    return max(means, key=lambda one: float(one["steady"]), default=None)


def _spread(rounds: Sequence[Window]) -> dict[str, float]:
    """Of their mean, where all of them say theirs."""
    if not all("spread" in one for one in rounds):
        return {}
    squares = statistics.fmean(one["spread"] ** 2 for one in rounds)
    return {"spread": math.sqrt(squares / len(rounds))}


def sides(windows: Sequence[Window], stock: str) -> Sides | None:
    """None where one of the three was not measured."""
    found = (best(windows, stock, False), best(windows, stock, True), best(windows, "pod", True))
    return None if None in found else Sides(*found)  # type: ignore[arg-type]


def summarize(document: dict[str, Any], device: Device | None) -> dict[str, Any]:
    """By load and in all: speedups, ITL, what perfect overlap would bring, the step model's error.

    device  None where the model knows none, as on a CPU: then nothing is said of models
    """
    loads: dict[str, Any] = {}
    for name, run in document["runs"].items():
        found = sides(run["windows"], document["load"]["stock"])
        if found is None:
            continue
        loads[name] = {
            "vs_unmixed": found.pod["steady"] / found.unmixed["steady"],
            "vs_mixed": found.pod["steady"] / found.mixed["steady"],
            **_spreads(found),
            "chunks": {side: one["chunk"] for side, one in found._asdict().items()},
            "itl_p99_ratio": _ratio(found.pod, found.unmixed, "itl_ms_p99"),
        }
        if device is not None:
            saved = overlap_share(found.mixed["steps"], SHAPES[run["model"]], run["kv"], device)
            loads[name]["perfect_overlap"] = 1.0 / (1.0 - saved)
    summary: dict[str, Any] = {"loads": loads}
    if not loads:
        return summary
    for name in ("vs_unmixed", "vs_mixed", "itl_p99_ratio", "perfect_overlap"):
        values = [one[name] for one in loads.values() if one.get(name)]
        if values:
            geomean = math.exp(statistics.mean(map(math.log, values)))
            summary[name] = {"geomean": geomean, "min": min(values), "max": max(values)}
    ideal = summary.get("perfect_overlap", {}).get("geomean", 1.0)
    if ideal > 1.0:
        gained = math.log(summary["vs_mixed"]["geomean"])
        summary["share_of_perfect_overlap"] = gained / math.log(ideal)
    if device is not None:
        summary["step_model_error"] = model_error(document, device)
    return summary


def _spreads(found: Sides) -> dict[str, float]:
    """Standard errors of both speedups, as shares, where those of the rates are known."""
    return {
        f"vs_{name}_spread": math.hypot(found.pod["spread"], other["spread"])
        for name, other in (("unmixed", found.unmixed), ("mixed", found.mixed))
        if "spread" in found.pod and "spread" in other
    }


def _ratio(one: Window, other: Window, name: str) -> float | None:
    return one[name] / other[name] if one.get(name) and other.get(name) else None


def sampled(steps: Sequence[Timed]) -> list[list[Any]]:
    """Some steps, evenly from all of a stretch, as they are kept."""
    stride = max(1, len(steps) // _MOST_STEPS)
    return [
        [round(one.forward, 3), round(one.gap, 3), one.chunks, one.decodes, one.keys]
        for one in steps[::stride]
    ]


def attention_ms(step: Timed, shape: Shape, kv: KvDtype, device: Device) -> tuple[float, float]:
    """Of prompts and of running requests, all layers, each as if it ran alone at its best."""
    q_heads, kv_heads, dim = shape.heads
    flops = 4.0 * dim * q_heads * step.pairs
    read = 2.0 * ELEMENT_BYTES[kv] * dim * kv_heads * step.keys
    rates = device.best_flops, device.dram_bytes * device.dram_share
    prompt, running = (1e3 * shape.layers * work / rate for work, rate in
                       zip((flops, read), rates, strict=True))  # fmt: skip
    return prompt, running


def overlap_share(
    steps: Sequence[Sequence[Any]], shape: Shape, kv: KvDtype, device: Device
) -> float:
    """Of the time, what would go if each step's shorter attention hid behind the longer one."""
    timed = [Timed(*one) for one in steps]
    saved = sum(min(attention_ms(one, shape, kv, device)) for one in timed if one.kind == "hybrid")
    return saved / sum(one.ms for one in timed)


def model_error(document: dict[str, Any], device: Device) -> float | None:
    """Of stock steps: sum of what the model is off by, over the sum of their times."""
    off = total = 0.0
    for run in document["runs"].values():
        shape = SHAPES[run["model"]]
        for window in run["windows"]:
            if window["engine"] != document["load"]["stock"]:
                continue
            for one in window["steps"]:
                step = Timed(*one)
                off += abs(predicted_ms(step, shape, run["kv"], device) - step.ms)
                total += step.ms
    return off / total if total else None


def predicted_ms(step: Timed, shape: Shape, kv: KvDtype, device: Device) -> float:
    """One step of a stock engine by the model of advice."""
    dense: DenseModel = shape.dense()
    q_lens, kv_lens = lengths_of(step)
    rest = dense.step_us(sum(q_lens), len(q_lens), device)
    return (rest + shape.layers * stock_us(q_lens, kv_lens, shape.geometry(kv), device)) / 1e3


def lengths_of(step: Timed) -> tuple[list[int], list[int]]:
    """Query tokens and keys of each request; running ones share their keys evenly."""
    chunks = step.chunks
    each = [step.keys // max(1, step.decodes)] * step.decodes
    return [q for q, _ in chunks] + [1] * step.decodes, [kv for _, kv in chunks] + each
