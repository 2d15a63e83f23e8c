"""The plan of a batch, from the planner that the kernel itself uses."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch

from pod_integrate.devices.cuda.planning import plan_batch
from pod_integrate.model.batches import Lengths
from pod_integrate.terms.config import PodConfig
from pod_integrate.terms.keys import Geometry

Array = np.ndarray[Any, Any]

# Mirrors of PlanHeader, Item and MergeBlock in kernels/cuda/include/pod/arguments.h.
_HEADER_FIELDS = (
    "prefill_items decode_items merge_blocks ratio_prefill ratio_decode prefill_offset "
    "decode_offset merge_offset partial_rows words"
).split()
HEADER = np.dtype([*((name, "<i4") for name in _HEADER_FIELDS), ("reserved", "<i4", (6,))])
_ITEM_FIELDS = "request kv_head row0 rows q_begin offset kv0 kv1 slot".split()
ITEM = np.dtype([*((name, "<i4") for name in _ITEM_FIELDS), ("reserved", "<i4", (3,))])
_MERGE_FIELDS = "slot splits stride rows q_begin row0 kv_head reserved".split()
MERGE = np.dtype([(name, "<i4") for name in _MERGE_FIELDS])


class Plan(NamedTuple):
    """Items of both ops in grid order and how they are dispatched.

    prefill, decode  arrays of ITEM, longest first
    merge            array of MERGE
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
) -> Plan:
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


def _decode(words: Array, prefill_ctas: int, decode_ctas: int, partial_rows: int) -> Plan:
    header = words[: HEADER.itemsize // 4].view(HEADER)[0]

    def part(name: str, count: str, dtype: np.dtype[Any]) -> Array:
        begin = int(header[f"{name}_offset"])
        return words[begin : begin + int(header[count]) * dtype.itemsize // 4].view(dtype)

    return Plan(
        prefill=part("prefill", "prefill_items", ITEM),
        decode=part("decode", "decode_items", ITEM),
        merge=part("merge", "merge_blocks", MERGE),
        prefill_ctas=prefill_ctas,
        decode_ctas=decode_ctas,
        ratio=(int(header["ratio_prefill"]), int(header["ratio_decode"])),
        partial_rows=partial_rows,
    )
