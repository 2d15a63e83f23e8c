"""What each op of a hybrid batch attains while the other runs, as the kernel's records tell it."""

from __future__ import annotations

import dataclasses
from typing import Any

from benchmarks.gpu.common.machines import Backend
from benchmarks.gpu.profile.corun_records import each_item_once, launch_with_records, share
from pod_integrate.measure.batches import Case
from pod_integrate.model.floors import CaseSpec, cost_of
from pod_integrate.terms.config import PodConfig
from pod_integrate.terms.keys import ELEMENT_BYTES


def beside(machine: Backend, spec: CaseSpec, case: Case, config: PodConfig) -> dict[str, float]:
    """One launch: when the last item of each op ended after the first began, and rates until then.

    prefill, decode  us
    both             share of SM time in which an SM held both ops
    TFLOP/s          of prefill, until its last item ended
    TB/s             that decodes read until then, an item's spread evenly over its time
    L2, TB/s         from L2 to the SMs until then: these, and K and V for each tile of prefill
    """
    recorded = launch_with_records(machine, case, config)
    each_item_once(recorded)
    begin = min(record.begin_ns for record in recorded.records)
    last = [max(r.end_ns for r in recorded.records if r.op == op) for op in (0, 1)]
    until = max(1, last[0] - begin)
    decodes = [record for record in recorded.records if record.op == 1 and record.items]
    done = sum(
        min(1.0, max(0, last[0] - r.begin_ns) / max(1, r.end_ns - r.begin_ns)) for r in decodes
    )
    cost = cost_of(spec.lengths, spec.geometry)
    tflops = cost.prefill_flops / until / 1e3
    tbs = cost.decode_bytes * done / len(decodes) / until / 1e3
    # A key's K and V are 2 D elements, and 4 D FLOP for each row of the tile.
    ahead = tflops * ELEMENT_BYTES[spec.geometry.kv_dtype] / (2 * config.prefill.q_rows)
    return {
        "prefill": (last[0] - begin) / 1e3,
        "decode": (last[1] - begin) / 1e3,
        "both": share(recorded.records).of_busy,
        "TFLOP/s": round(tflops, 1),
        "TB/s": round(tbs, 3),
        "L2, TB/s": round(ahead + tbs, 3),
    }


def in_l2(case: Case) -> Case:
    """The same work, but all decodes read the first one's pages: their K and V come from L2."""
    batch = case.batch
    indices, starts = batch.page_indices.clone(), [int(start) for start in batch.page_starts]
    ends = [*starts[1:], len(indices)]
    rows = (batch.q_indptr[1:] - batch.q_indptr[:-1]).tolist()
    pages = list(zip(starts, ends, strict=True))
    decodes = [found for q_len, found in zip(rows, pages, strict=True) if q_len == 1]
    for start, end in decodes[1:]:
        first, beyond = decodes[0]
        count = min(end - start, beyond - first)
        indices[start : start + count] = indices[first : first + count]
    return case._replace(batch=dataclasses.replace(batch, page_indices=indices))


def both_ways(machine: Backend, spec: CaseSpec, case: Case, config: PodConfig) -> dict[str, Any]:
    """beside() of the case, and of the case in_l2()."""
    return {
        "hbm": beside(machine, spec, case, config),
        "l2": beside(machine, spec, in_l2(case), config),
    }
