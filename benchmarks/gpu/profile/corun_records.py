"""What each CTA of a launch did: asked of the kernel, checked, and reduced to shares of time."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import NamedTuple

import torch

from benchmarks.gpu.common.machines import Backend
from pod_integrate.devices.call import Call
from pod_integrate.devices.cuda.planning import plan_batch
from pod_integrate.devices.emulated.cta_records import RECORD_WORDS, CtaRecord, decode_records
from pod_integrate.measure.batches import Case
from pod_integrate.terms.config import PodConfig
from pod_integrate.terms.geometry import geometry_of
from pod_integrate.terms.scalars import Scalars

OPS = ("prefill", "decode")


class Recorded(NamedTuple):
    """Records of one launch, and how many items of each op its plan holds."""

    records: list[CtaRecord]
    items: tuple[int, int]


class Share(NamedTuple):
    """Shares of SM time. `busy`: an SM holds any CTA; `both`: CTAs of both ops.

    of_busy    both / busy
    while_both both / busy until the first op has no CTA left anywhere: what scheduling can do
    span_us    first begin to last end
    """

    of_busy: float
    while_both: float
    span_us: float


def launch_with_records(machine: Backend, case: Case, config: PodConfig) -> Recorded:
    """Attend the case once, on the machine that holds it."""
    q, k_cache, _, batch = case
    geometry = geometry_of(q, k_cache)
    planned = plan_batch(batch.q_indptr, batch.kv_lens, geometry, config, num_sms=machine.sms)
    ctas = planned.capacity.prefill_ctas + planned.capacity.decode_ctas
    records = torch.zeros(ctas, RECORD_WORDS, dtype=torch.int64, device=q.device)
    lse = torch.empty(q.shape[:2], dtype=torch.float32, device=q.device)
    scalars = Scalars(q.shape[-1] ** -0.5)
    call = Call(*case, scalars, None, torch.empty_like(q), lse, records=records)
    machine.runs.attend(call, config)
    machine.synchronize()
    items = (int(planned.words[0]), int(planned.words[1]))
    return Recorded(decode_records(records.cpu()), items)


def each_item_once(recorded: Recorded) -> None:
    """Raise AssertionError unless every item of both ops has exactly one CTA."""
    for op, count in enumerate(recorded.items):
        drawn = Counter(
            item
            for record in recorded.records
            if record.op == op
            for item in range(record.first_item, record.first_item + record.items)
        )
        wrong = [item for item in range(count) if drawn[item] != 1]
        wrong += [item for item in drawn if item >= count]
        assert not wrong, (
            f"{len(wrong)} of {count} {OPS[op]} items were not attended exactly once, "
            f"first item {wrong[0]}: {drawn[wrong[0]]} times"
        )


def share(records: Iterable[CtaRecord]) -> Share:
    """How long SMs held both ops."""
    worked = [record for record in records if record.items > 0]
    if not worked:
        return Share(0.0, 0.0, 0.0)
    begin = min(record.begin_ns for record in worked)
    ends = [max((r.end_ns for r in worked if r.op == op), default=begin) for op in (0, 1)]
    by_sm: dict[int, list[CtaRecord]] = defaultdict(list)
    for record in worked:
        by_sm[record.smid].append(record)
    busy, both = _measure(by_sm.values(), max(ends))
    busy_while, both_while = _measure(by_sm.values(), min(ends))
    return Share(
        of_busy=both / busy if busy else 0.0,
        while_both=both_while / busy_while if busy_while else 0.0,
        span_us=(max(ends) - begin) / 1e3,
    )


def _measure(sms: Iterable[list[CtaRecord]], until: int) -> tuple[int, int]:
    busy = both = 0
    for records in sms:
        edges = []
        for record in records:
            if record.begin_ns < until:
                edges.append((record.begin_ns, 1, record.op))
                edges.append((min(record.end_ns, until), -1, record.op))
        held, before = [0, 0], 0
        for time, step, op in sorted(edges):
            busy += (time - before) * (sum(held) > 0)
            both += (time - before) * (min(held) > 0)
            held[op] += step
            before = time
    return busy, both
