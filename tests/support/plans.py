"""What the CPU kernel does with a batch: its items, and the tickets that its workers drew."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch

from pod_integrate.builds import native
from pod_integrate.devices.call import Call
from pod_integrate.devices.cpu.device import CpuAttention, this_cpu
from pod_integrate.measure.batches import Case
from pod_integrate.terms.batch import HybridBatch
from pod_integrate.terms.config import PodConfig, pack_config
from pod_integrate.terms.geometry import TORCH_DTYPES, geometry_of
from pod_integrate.terms.keys import Geometry
from pod_integrate.terms.scalars import Scalars


class PlannedItem(NamedTuple):
    """Packed rows [row0, row0 + rows) of a request's KV head against keys [kv0, kv1).

    split_group is -1 when no other item shares the rows; cost is multiply-adds of a prefill item
    and bytes of a decode item.
    """

    kind: Literal["prefill", "decode"]
    request: int
    kv_head: int
    row0: int
    rows: int
    kv0: int
    kv1: int
    split_group: int
    cost: int


class WorkerTickets(NamedTuple):
    """One worker's share of a call.

    order       ("prefill" | "decode", item), as drawn
    rows_ahead  K and V rows of coming decode items that it prefetched
    """

    order: list[tuple[str, int]]
    rows_ahead: int


def plan(
    batch: HybridBatch, geometry: Geometry, config: PodConfig, *, threads: int
) -> list[PlannedItem]:
    """Items of a batch in the order of their queues, prefill first."""
    flat = native.load("cpu").plan(
        batch.q_indptr,
        batch.kv_lens,
        geometry.num_q_heads,
        geometry.num_kv_heads,
        geometry.head_dim,
        geometry.head_dim * TORCH_DTYPES[geometry.kv_dtype].itemsize,
        geometry.window_left,
        pack_config(config),
        threads,
    )
    rows = [tuple(flat[i : i + 9]) for i in range(0, len(flat), 9)]
    return [PlannedItem("decode" if row[0] else "prefill", *row[1:]) for row in rows]


def tickets(case: Case, config: PodConfig) -> list[WorkerTickets]:
    """Attend `case` with `config` and tell what each worker drew."""
    attention = this_cpu().attention(geometry_of(case.q, case.k_cache), config)
    assert isinstance(attention, CpuAttention)
    scalars = Scalars(case.q.shape[-1] ** -0.5)
    out, lse = torch.empty_like(case.q), torch.empty(case.q.shape[:2])
    arguments = attention.arguments(Call(*case, scalars, None, out, lse))
    logs = []
    for ahead, *order in native.load("cpu").attend_logged(*arguments):
        named = [("prefill", t) if t >= 0 else ("decode", -1 - t) for t in order]
        logs.append(WorkerTickets(named, ahead))
    return logs
