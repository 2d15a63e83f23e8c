"""The table of batches in CTAs that run both ops, against the default's tiles in one launch."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.gpu.speed.tiles import CASES_PAGE_1
from benchmarks.gpu.visit.tables import table
from pod_integrate.devices.cuda.choices import tiles_name
from pod_integrate.devices.cuda.heavy_prefill import is_heavy
from pod_integrate.devices.cuda.limits import pair_tiles
from pod_integrate.model.floors import CASES, CaseSpec, cost_of

_HEADS = (
    "batch",
    "FLOP / byte",
    "1:1, us",
    "both ops in a CTA, us",
    "gain over 1:1",
    "prefill alone, gain",
    "rates",
    "out of L2",
)


def tiles(document: dict[str, Any]) -> str:
    """A row per batch, the least gain first; bold is what the default runs in such CTAs."""
    specs = [spec for spec in (*CASES, *CASES_PAGE_1) if spec.name in document["cases"]]
    rows = sorted(_row(spec, document["cases"][spec.name]["parts"]) for spec in specs)
    return table(_HEADS, [cells for _, cells in rows], texts=1)


def _row(spec: CaseSpec, parts: dict[str, Any]) -> tuple[float, list[str]]:
    """The gain over 1:1 and the cells."""
    us, prefill = parts["all"]["us"], parts["prefill"]["us"]
    cost = cost_of(spec.lengths, spec.geometry)
    both = _measured(us, tiles_name(pair_tiles(spec.head_dim)))
    beside = parts["all"]["beside"][both]
    gain, alone = us["1:1"] / us[both], prefill["1:1"] / prefill[both]
    requests, context = spec.lengths, spec.lengths.prefill
    return gain, [
        _name(spec),
        f"{cost.prefill_flops / cost.decode_bytes:.0f}",
        *(f"{us[config]:.0f}" for config in ("1:1", both)),
        _bold(gain, _heavy(spec, requests.q_lens, requests.kv_lens)),
        _bold(alone, _heavy(spec, context.q_lens, context.kv_lens)),
        f"{beside['hbm']['TFLOP/s']:.0f}, {beside['hbm']['TB/s']:.2f}",
        f"{beside['l2']['TB/s']:.2f}",
    ]


def _name(spec: CaseSpec) -> str:
    """Those of page size 1 are named by what they are."""
    if spec in CASES_PAGE_1:
        return spec.name
    chunk = f"{spec.chunk}@{spec.context}"
    return f"{spec.name}, {chunk} + {spec.decodes}@{spec.decode_context}"


def _measured(us: dict[str, float], tiles: str) -> str:
    """The quickest of what was measured with these tiles, whatever its splits."""
    found = [config for config in us if config.startswith(f"{tiles}, ")]
    return min(found, key=us.__getitem__)


def _heavy(spec: CaseSpec, q_lens: Any, kv_lens: Any) -> bool:
    return is_heavy(np.array(q_lens), np.array(kv_lens), spec.geometry)


def _bold(gain: float, does: bool) -> str:
    return f"**{gain:.2f}**" if does else f"{gain:.2f}"
