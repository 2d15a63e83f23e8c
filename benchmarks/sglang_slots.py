"""Reading SGLang's slot table in place against building a table of page ids each step.

    python benchmarks/sglang_slots.py [--pairs 40]

Writes results/sglang_slots.json: seconds of (build the batch + attend one layer), 16-token pages.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from typing import Any

import torch

from benchmarks import _results
from pod_integrate.measure.timing import interleaved_pairs
from pod_integrate.op import hybrid_attention
from pod_integrate.terms.batch import HybridBatch

Q_HEADS, KV_HEADS, DIM, PAGE, MAX_CONTEXT = 8, 4, 64, 16, 4096
CASES = {
    "32 decodes @ 2048": ([1] * 32, [2048] * 32),
    "64 @ 512 + 16 decodes @ 1024": ([64] + [1] * 16, [512] + [1024] * 16),
    "256 @ 2048": ([256], [2048]),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=40)
    pairs = parser.parse_args().pairs
    rows = [_measure(name, *lens, pairs) for name, lens in CASES.items()]
    for row in rows:
        print(row)
    command = f"python benchmarks/sglang_slots.py --pairs {pairs}"
    geometry = f"q{Q_HEADS} kv{KV_HEADS} d{DIM} fp32, pages of {PAGE}"
    _results.write("sglang_slots", {"command": command, "geometry": geometry, "cases": rows})


def _measure(name: str, q_lens: list[int], kv_lens: list[int], pairs: int) -> dict[str, Any]:
    torch.manual_seed(0)
    table, slots = _slot_table(kv_lens)
    q = torch.randn(sum(q_lens), Q_HEADS, DIM)
    k, v = torch.randn(2, slots, KV_HEADS, DIM)
    rows = torch.arange(len(kv_lens)) * MAX_CONTEXT
    width = -(-max(kv_lens) // PAGE)

    def in_place() -> torch.Tensor:
        batch = HybridBatch.build(
            q_lens, kv_lens, page_indices=table, page_starts=rows, page_size=1
        )
        return hybrid_attention(q, k.unsqueeze(1), v.unsqueeze(1), batch).out

    def page_ids() -> torch.Tensor:
        ids = (table[:, : width * PAGE : PAGE] // PAGE).contiguous()
        starts = torch.arange(len(kv_lens)) * width
        batch = HybridBatch.build(
            q_lens, kv_lens, page_indices=ids, page_starts=starts, page_size=PAGE
        )
        shape = (-1, PAGE, KV_HEADS, DIM)
        return hybrid_attention(q, k.view(shape), v.view(shape), batch).out

    assert torch.equal(in_place(), page_ids())
    return {"case": name, **_times(in_place, page_ids, pairs)}


def _slot_table(kv_lens: list[int]) -> tuple[torch.Tensor, int]:
    counts = [-(-n // PAGE) for n in kv_lens]
    order = torch.randperm(sum(counts), dtype=torch.int32)
    table = torch.zeros((len(kv_lens), MAX_CONTEXT), dtype=torch.int32)
    offsets = torch.arange(PAGE, dtype=torch.int32)
    for row, pages in enumerate(torch.split(order, counts)):
        table[row, : len(pages) * PAGE] = (pages[:, None] * PAGE + offsets).view(-1)
    return table, sum(counts) * PAGE


def _times(
    in_place: Callable[[], object], page_ids: Callable[[], object], pairs: int
) -> dict[str, float]:
    timed = interleaved_pairs(in_place, page_ids, pairs=pairs, warmup=3)
    return {
        "pairs": len(timed.first),
        "in_place_us": round(statistics.median(timed.first) * 1e6, 1),
        "page_ids_us": round(statistics.median(timed.second) * 1e6, 1),
        "page_ids_over_in_place": round(statistics.median(1 / r for r in timed.ratios), 3),
    }


if __name__ == "__main__":
    main()
