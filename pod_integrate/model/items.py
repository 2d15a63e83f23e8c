"""The plan of a batch, from the planner that the kernel itself uses."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import numpy as np
import torch

from pod_integrate.devices.cuda import host_facts
from pod_integrate.devices.cuda.planning import plan_batch
from pod_integrate.model.batches import Lengths
from pod_integrate.terms.config import PodConfig
from pod_integrate.terms.keys import Geometry

Array = np.ndarray[Any, Any]


class PlanTypes(NamedTuple):
    """The structs of a plan, PlanHeader, Item and MergeBlock, as numpy reads them."""

    header: np.dtype[Any]
    item: np.dtype[Any]
    merge: np.dtype[Any]


@functools.lru_cache(maxsize=1)
def plan_types() -> PlanTypes:
    """Field by field as the planner's library has them; builds it on first use."""
    facts = host_facts.facts()
    return PlanTypes(*map(_struct, (facts.header, facts.item, facts.merge)))


def _struct(fields: host_facts.Fields) -> np.dtype[Any]:
    return np.dtype(
        [(name, "<i4", (count,) if count > 1 else ()) for name, (_, count) in fields.items()]
    )


class DecodedPlan(NamedTuple):
    """Items of both ops in grid order and how they are dispatched.

    prefill, decode  arrays of plan_types().item, longest first; prefill of one length by keys
    merge            array of plan_types().merge
    prefill_ctas     CTAs of one prefill item each
    decode_ctas      CTAs of `virtual_decode` consecutive decode items each
    ratio            prefill : decode tickets of an SM
    partial_rows     fp32 rows that splits write and the merge reads
    """

    prefill: Array
    decode: Array
    merge: Array
    prefill_ctas: int
    decode_ctas: int
    ratio: tuple[int, int]
    partial_rows: int


def make_plan(
    lengths: Lengths,
    geometry: Geometry,
    config: PodConfig,
    sms: int,
    *,
    fill_ctas: int | None = None,
) -> DecodedPlan:
    """Plan a batch for a device with `sms` SMs; fill_ctas as of plan_batch.

    Builds the host library on first use.
    """
    indptr = np.zeros(len(lengths.q_lens) + 1, dtype=np.int32)
    np.cumsum(lengths.q_lens, out=indptr[1:])
    kv_lens = torch.tensor(lengths.kv_lens, dtype=torch.int32)
    planned = plan_batch(
        torch.from_numpy(indptr), kv_lens, geometry, config, num_sms=sms, fill_ctas=fill_ctas
    )
    capacity = planned.capacity
    words = planned.words.numpy()
    return _decode(words, capacity.prefill_ctas, capacity.decode_ctas, capacity.partial_rows)


def _decode(words: Array, prefill_ctas: int, decode_ctas: int, partial_rows: int) -> DecodedPlan:
    types = plan_types()
    header = words[: types.header.itemsize // 4].view(types.header)[0]

    def part(name: str, count: str, dtype: np.dtype[Any]) -> Array:
        begin = int(header[f"{name}_offset"])
        return words[begin : begin + int(header[count]) * dtype.itemsize // 4].view(dtype)

    return DecodedPlan(
        prefill=part("prefill", "prefill_items", types.item),
        decode=part("decode", "decode_items", types.item),
        merge=part("merge", "merge_blocks", types.merge),
        prefill_ctas=prefill_ctas,
        decode_ctas=decode_ctas,
        ratio=(int(header["ratio_prefill"]), int(header["ratio_decode"])),
        partial_rows=partial_rows,
    )
