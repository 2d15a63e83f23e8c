"""Everything that the model says of one batch under one config, as one JSON-ready document."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import numpy as np

from pod_integrate.devices.cuda import limits
from pod_integrate.devices.registry import target_of
from pod_integrate.errors import ConfigInfeasibleError, ShapeError
from pod_integrate.model.batches import Lengths
from pod_integrate.model.devices import DEVICES, Device
from pod_integrate.model.floors import Floor, cost_of, ideal_floor, real_floor
from pod_integrate.model.picture import timeline
from pod_integrate.model.published import POD_2, POD_4
from pod_integrate.model.simulate import Simulation, simulate
from pod_integrate.terms.config import STRATEGIES, PodConfig
from pod_integrate.terms.keys import ELEMENT_BYTES, Geometry

LABEL = "model, not a measurement"
FLOOR_DEVICES = ("a100", "h100", "h200")
# Items of a plan: so many are simulated in seconds.
MAX_ITEMS = 1 << 16


class Question(NamedTuple):
    """What `explain` is asked about."""

    lengths: Lengths
    geometry: Geometry
    config: PodConfig
    device: Device


def explain(question: Question) -> dict[str, Any]:
    """Work, floors, plan and simulated times.

    A config that does not fit is named as such and simulated all the same: what it would gain is
    the reason to shrink it. Raises ShapeError for a batch of more items than MAX_ITEMS.
    """
    lengths, geometry, config, device = question
    _require_small(question)
    cost = cost_of(lengths, geometry)
    runs = {name: _simulate(question, name) for name in STRATEGIES}
    floor = real_floor(cost, device)
    return {
        "label": LABEL,
        "device": device.label,
        "geometry": str(geometry),
        "config": config.to_dict(),
        "requests": len(lengths.q_lens),
        "query_tokens": sum(lengths.q_lens),
        "infeasible": _infeasible(question),
        "work": cost._asdict(),
        "floors": {name: _floors(lengths, geometry, DEVICES[name]) for name in FLOOR_DEVICES},
        "plan": _plan(runs[config.strategy], question),
        "simulated": {name: _times(run, floor) for name, run in runs.items()},
        "timeline": {
            name: timeline(run.records, 0, run.attention_us * 1e-6) for name, run in runs.items()
        },
    }


def compare(question: Question) -> list[dict[str, Any]]:
    """Simulated time of a few configs on the question's batch, fastest first."""
    lengths, geometry, config, device = question
    floor = real_floor(cost_of(lengths, geometry), device)
    rows = []
    for name, candidate in _candidates(question).items():
        asked = question._replace(config=candidate)
        run = simulate(lengths, geometry, candidate, device)
        rows.append(
            {
                "name": name,
                "config": candidate.short(),
                "fits": _infeasible(asked) is None,
                "same_as_asked": candidate == config,
                **_times(run, floor),
            }
        )
    return sorted(rows, key=lambda row: row["us"])


def _candidates(question: Question) -> dict[str, PodConfig]:
    config = question.config
    change = dataclasses.replace
    found = {
        "asked": config,
        "default": target_of(question.device.key).default_config(question.geometry),
        "paper, 2 CTAs per SM": POD_2,
        "paper, 4 CTAs per SM": POD_4,
        "asked, 50:50": change(config, prefill_ctas=1, decode_ctas=1),
        "asked, prefill unsplit": change(config, max_prefill_waves=0),
        "asked, decode split at 2048": change(config, decode_split_tokens=2048),
        "asked, serial": change(config, strategy="serial"),
        "asked, streams": change(config, strategy="streams"),
    }
    # Of equal configs the first name stays.
    names = {candidate: name for name, candidate in reversed(found.items())}
    return {name: candidate for candidate, name in reversed(names.items())}


def _require_small(question: Question) -> None:
    """Before anything of the batch's size is made: some would take hours, or all memory."""
    lengths, geometry, config, _ = question
    group = geometry.group
    keys = config.decode_split_tokens or np.iinfo(np.int32).max
    seen = np.iinfo(np.int32).max if geometry.window_left < 0 else geometry.window_left + 1
    # Of each KV head: decodes by their splits, prefills by their tiles.
    items = geometry.num_kv_heads * (
        sum(-(-min(kv_len, seen) // keys) for kv_len in lengths.decode.kv_lens)
        + sum(-(-q_len * group // config.prefill.q_rows) for q_len in lengths.prefill.q_lens)
    )
    if items > MAX_ITEMS:
        raise ShapeError(
            f"the batch has about {items} items of work, the model takes {MAX_ITEMS} at most; ask "
            "about fewer requests, a shorter chunk, or a larger decode_split_tokens"
        )


def _simulate(question: Question, strategy: str) -> Simulation:
    config = PodConfig.from_dict(question.config.to_dict() | {"strategy": strategy})
    return simulate(question.lengths, question.geometry, config, question.device)


def _infeasible(question: Question) -> str | None:
    try:
        target_of(question.device.key).require_feasible(question.config, question.geometry)
    except ConfigInfeasibleError as error:
        return str(error)
    return None


def _floors(lengths: Lengths, geometry: Geometry, device: Device) -> dict[str, Any]:
    cost = cost_of(lengths, geometry)
    return {
        "device": device.label,
        "ideal": _floor(ideal_floor(cost, device)),
        "real": _floor(real_floor(cost, device)),
    }


def _floor(floor: Floor) -> dict[str, float]:
    return {
        "prefill_us": floor.prefill_us,
        "decode_us": floor.decode_us,
        "serial_us": floor.serial_us,
        "fused_us": floor.fused_us,
        "max_speedup": floor.max_speedup,
    }


def _plan(run: Simulation, question: Question) -> dict[str, Any]:
    plan, geometry = run.plan, question.geometry
    arch = limits.architecture(question.device.key.capability)
    kv_bytes = ELEMENT_BYTES[geometry.kv_dtype]
    return {
        "prefill_items": len(plan.prefill),
        "decode_items": len(plan.decode),
        "decode_item_keys": int((plan.decode["kv1"] - plan.decode["kv0"]).max(initial=0)),
        "split_items": int(sum(np.count_nonzero(i["slot"] >= 0) for i in plan[:2])),
        "prefill_ctas": plan.prefill_ctas,
        "decode_ctas": plan.decode_ctas,
        "ratio": list(plan.ratio),
        "waves": run.waves,
        "merge_blocks": len(plan.merge),
        "partial_rows": plan.partial_rows,
        "smem_bytes": limits.fused_smem_bytes(question.config, arch, geometry.head_dim, kv_bytes),
    }


def _times(run: Simulation, floor: Floor) -> dict[str, float]:
    return {
        "us": run.us,
        "merge_us": run.merge_us,
        "over_floor": run.us / floor.fused_us if floor.fused_us else 0.0,
        "tensor_share": run.tensor_share,
        "dram_share": run.dram_share,
    }
