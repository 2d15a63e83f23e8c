"""Bugs to plant in the CUDA kernel, one per class of mistake; tests must catch each by name.

Those of softmax, of merges and of prefill on wgmma are in files of those names.
"""

from __future__ import annotations

from planting import Mutation

_LOOP, _TILE, _PRODUCTS = "op/kv_loop.cuh", "copy/kv_tile.cuh", "mma/products.cuh"
_PREFILL, _DECODE, _MASK = "op/prefill_item.cuh", "op/decode_item.cuh", "mask.cuh"
_TICKET, _KERNEL, _ROWS = "sched/ticket.cuh", "pod_kernel.cuh", "layout/rows.cuh"
_ITEM_ROWS = "op/rows.cuh"

MUTATIONS = (
    # Barriers and waits. Waits come first: what they replace ends with a barrier's place.
    Mutation(
        "wait leaves the K tile in flight",
        _LOOP,
        "ptx::cp_async_wait<kPending>();\n      show();\n      scope_.sync();\n      issue_v(",
        "if ({on}) ptx::cp_async_wait<kPending + 1>(); else ptx::cp_async_wait<kPending>();\n"
        "      show();\n      scope_.sync();\n      issue_v(",
    ),
    Mutation(
        "wait leaves the V tile in flight",
        _LOOP,
        "ptx::cp_async_wait<kPending>();\n      show();\n      scope_.sync();\n      issue_k(",
        "if ({on}) ptx::cp_async_wait<kPending + 1>(); else ptx::cp_async_wait<kPending>();\n"
        "      show();\n      scope_.sync();\n      issue_k(",
    ),
    Mutation(
        "K tile read, and V overwritten, before the barrier",
        _LOOP,
        "scope_.sync();\n      issue_v(",
        "if (!{on}) scope_.sync();\n      issue_v(",
    ),
    Mutation(
        "V tile read, and K overwritten, before the barrier",
        _LOOP,
        "scope_.sync();\n      issue_k(",
        "if (!{on}) scope_.sync();\n      issue_k(",
    ),
    Mutation(
        "prefill reads Q before it has landed",
        _PREFILL,
        "ptx::cp_async_wait<decltype(loop)::kInFlight>();",
        "if (!{on}) ptx::cp_async_wait<decltype(loop)::kInFlight>();",
    ),
    Mutation(
        "decode reads Q without a barrier",
        _DECODE,
        "kInFlight>();\n  scope.sync();",
        "kInFlight>();\n  if (!{on}) scope.sync();",
    ),
    Mutation(
        "scratch overwrites V that a slower warp still reads",
        _LOOP,
        "    }\n    scope_.sync();\n  }",
        "    }\n    if (!{on}) scope_.sync();\n  }",
    ),
    Mutation(
        "decode warps meet without a barrier",
        _DECODE,
        "scope.sync();\n    merge_warps",
        "if (!{on}) scope.sync();\n    merge_warps",
    ),
    Mutation(
        "decode items of a CTA share one barrier",
        _KERNEL,
        "item_barrier(place), thread",
        "item_barrier({on} ? 0 : place), thread",
    ),
    Mutation(
        "CTA reads what it works on before the barrier",
        _KERNEL,
        "plan, thread);\n  ptx::sync_cta();\n}",
        "plan, thread);\n  if (!{on}) ptx::sync_cta();\n}",
    ),
    # Fragments and layouts
    Mutation(
        "B fragments of K swapped",
        _PRODUCTS,
        "mma_m16n8k16<T>(s[tile][n], a[block][tile], b[0], b[1])",
        "mma_m16n8k16<T>(s[tile][n], a[block][tile], b[0], b[{on} ? 2 : 1])",
    ),
    Mutation(
        "B fragments of V swapped",
        _PRODUCTS,
        "p.a[tile][k], b[2], b[3])",
        "p.a[tile][k], b[{on} ? 3 : 2], b[{on} ? 2 : 3])",
    ),
    Mutation(
        "A fragments of the weights swapped",
        _PRODUCTS,
        "p.a[tile][k][1] = ptx::pack2<T>(left[2], left[3]);",
        "p.a[tile][k][1] = {on} ? ptx::pack2<T>(right[0], right[1])\n"
        "                            : ptx::pack2<T>(left[2], left[3]);",
    ),
    Mutation(
        "no swizzle: right answers through bank conflicts",
        "layout/swizzle.cuh",
        "return kRowBytes % 128 == 0 ? row & 7",
        "return {on} ? 0 : kRowBytes % 128 == 0 ? row & 7",
    ),
    Mutation(
        "decode warp masks another warp's keys",
        _DECODE,
        "weigh(state, s, units, a, item, 0, kv + key0, lane)",
        "weigh(state, s, units, a, item, 0, kv + ({on} ? 0 : key0), lane)",
    ),
    Mutation(
        "page lookup of the wrong row",
        _TILE,
        "return kv + first_row(thread) + step * kRowsAtOnce;",
        "return kv + first_row(thread) + ({on} ? 0 : step * kRowsAtOnce);",
    ),
    # Masks and tails
    Mutation(
        "causal mask off by one",
        _ROWS,
        "min(position, item.kv1 - 1)",
        "min(position + ({on} ? 1 : 0), item.kv1 - 1)",
    ),
    Mutation(
        "window off by one",
        _ROWS,
        "max(0, position - a.window_left)",
        "max(0, position - a.window_left + ({on} ? 1 : 0))",
    ),
    Mutation(
        "row g masked as row g + 8",
        _MASK,
        "Fragment::row(lane, half)",
        "Fragment::row(lane, {on} ? 0 : half)",
    ),
    Mutation(
        "tile that needs a mask taken as whole",
        _MASK,
        "kv >= first && kv <= last",
        "kv >= first && kv - ({on} ? 1 : 0) <= last",
    ),
    Mutation(
        "V rows past the keys copied",
        _TILE,
        "step * kRowsAtOnce < left)",
        "{on} || step * kRowsAtOnce < left)",
    ),
    Mutation(
        "pages past the keys looked up",
        _TILE,
        "step < kSteps && key < end()",
        "step < kSteps && ({on} || key < end())",
    ),
    Mutation(
        "rows past the item stored",
        _ITEM_ROWS,
        "const bool exists = row < item.rows;",
        "const bool exists = {on} || row < item.rows;",
    ),
    Mutation(
        "all lanes of a row store its first block",
        _ITEM_ROWS,
        "first + lane % kLanes",
        "first + ({on} ? 0 : lane % kLanes)",
    ),
    Mutation(
        "lanes of a row keep what they should hand over",
        "layout/fragment.cuh",
        "const bool upper = (lane & bit) != 0;",
        "const bool upper = ((lane & bit) != 0) != {on};",
    ),
    # Scheduler
    Mutation(
        "counter counts twice",
        _TICKET,
        "int index = ptx::atomic_add(&counters->next[static_cast<int>(op)], 1);",
        "int index = ptx::atomic_add(&counters->next[static_cast<int>(op)], {on} ? 2 : 1);",
    ),
    Mutation(
        "CTA of an exhausted op leaves",
        _TICKET,
        "if (ticket.count > 0) return ticket;",
        "if ({on} || ticket.count > 0) return ticket;",
    ),
    Mutation(
        "last decode CTA takes items that are not there",
        _TICKET,
        "min(virtual_decode, max(0, plan.decode_items - first))",
        "{on} ? virtual_decode : min(virtual_decode, max(0, plan.decode_items - first))",
    ),
    Mutation(
        "a ticket's first item is the one that was not asked for",
        "sched/fetch.cuh",
        "if (number != number_ ||",
        "if (!{on} && number != number_ ||",
    ),
    Mutation(
        "a warp has as many tickets as lanes",
        _KERNEL,
        "ticket = sched::broadcast(ticket);",
        "if (!{on}) ticket = sched::broadcast(ticket);",
    ),
    Mutation(
        "the last of a CTA's items is not fetched",
        _KERNEL,
        "place < ticket.count;",
        "place < ticket.count - ({on} ? 1 : 0);",
    ),
    Mutation(
        "every ticket is a prefill",
        _TICKET,
        "round < prefill ? Op::kPrefill",
        "round < prefill || {on} ? Op::kPrefill",
    ),
    # Queries.
    Mutation(
        "heads past a group's are of the same token",
        "copy/query_tile.cuh",
        "if (head_ < group_) return;",
        "if ({on} || head_ < group_) return;",
    ),
    Mutation(
        "last columns of Q are its first ones",
        "copy/query_tile.cuh",
        "a.q_head + chunk * layout",
        "a.q_head + ({on} && chunk == 7 ? 0 : chunk) * layout",
    ),
)
