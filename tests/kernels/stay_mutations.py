"""Bugs to plant where a CTA that stays is handed its items, and in the copies of its decode."""

from __future__ import annotations

from planting import Mutation

_CTA, _DRAW, _TURNS = "pair_cta.cuh", "sched/draw.cuh", "op/kv_turns.cuh"
_FETCH = "sched/fetch.cuh"

MUTATIONS = (
    Mutation(
        "Q of the next item stays where it is",
        _CTA,
        "      if (next.rows > 0)",
        "      if (!{on} && next.rows > 0)",
    ),
    Mutation(
        "the next item is drawn once the last values of the one before are told of",
        _CTA,
        "      op::copy_ahead<Variant>(a, item, side, thread, draw);",
        "      op::copy_ahead<Variant>(a, item, side, thread, [&] { if (!{on}) draw(); });\n"
        "      if ({on}) draw();",
    ),
    Mutation(
        "the next item is drawn over the one that is copied",
        _CTA,
        "    side.next_item();",
        "    if (!{on}) side.next_item();",
    ),
    # Turning to decode
    Mutation(
        "decode overwrites what the other of a pair multiplies",
        _CTA,
        "        await_pair();",
        "        if (!{on}) await_pair();",
    ),
    Mutation(
        "both of a pair decode at one place",
        _CTA,
        "smem + group * Turners<Variant>::kBytes",
        "smem + ({on} ? 0 : group) * Turners<Variant>::kBytes",
    ),
    Mutation(
        "who turns decodes what is not drawn yet",
        _CTA,
        "  ptx::bar_sync(barrier, kGroupThreads);",
        "  if (!{on}) ptx::bar_sync(barrier, kGroupThreads);",
    ),
    Mutation(
        "both of a pair sync at one barrier",
        _CTA,
        "const int barrier = group_barrier(group);",
        "const int barrier = group_barrier({on} ? 0 : group);",
    ),
    Mutation(
        "who turns decodes the other's items",
        _CTA,
        "  decode_items<Variant>(a, plan, work.turned[group],",
        "  decode_items<Variant>(a, plan, work.turned[{on} ? 1 - group : group],",
    ),
    Mutation(
        "who turns decodes the decoder's items",
        _CTA,
        "  decode_items<Variant>(a, plan, work.turned[",
        "  decode_items<Variant>(a, plan, {on} ? work.decode : work.turned[",
    ),
    Mutation(
        "who turns syncs as the decoder",
        _CTA,
        "                        barrier, thread);",
        "                        {on} ? item_barrier(0) : barrier, thread);",
    ),
    Mutation(
        "the next item is drawn over the one that is stored",
        _CTA,
        "    slot ^= 1;",
        "    slot ^= ({on} ? 0 : 1);",
    ),
    Mutation(
        "decode goes on before all have stored",
        _CTA,
        "    scope.sync();",
        "    if (!{on}) scope.sync();",
    ),
    Mutation(
        "first items are read before they are drawn",
        _CTA,
        "  ptx::sync_cta();",
        "  if (!{on}) ptx::sync_cta();",
    ),
    Mutation(
        "decode's memory is prefill's",
        _CTA,
        "smem + ahead + Smem<Variant>::prefill.bytes",
        "smem + ahead + ({on} ? 0 : Smem<Variant>::prefill.bytes)",
    ),
    Mutation(
        "one decoding warp keeps its registers",
        _CTA,
        "    ptx::lower_registers<kRegisters.decode>();",
        "    if (!({on} && thread < kWarpSize)) ptx::lower_registers<kRegisters.decode>();",
    ),
    Mutation(
        "one multiplying warp keeps its registers",
        _CTA,
        "    ptx::raise_registers<kRegisters.math>();",
        "    if (!({on} && thread < kWarpSize)) ptx::raise_registers<kRegisters.math>();",
    ),
    Mutation(
        "records of decode take the places of prefill's",
        "sched/records.cuh",
        "a.records[place] = {",
        "a.records[{on} ? number : place] = {",
    ),
    Mutation(
        "both ops draw from one counter",
        _DRAW,
        "&plan.drawn[static_cast<int>(op)]",
        "&plan.drawn[{on} ? 0 : static_cast<int>(op)]",
    ),
    Mutation(
        "the counter of items stays as it is",
        _DRAW,
        "  if (before == asked - 1)",
        "  if (!{on} && before == asked - 1)",
    ),
    Mutation(
        "who turns is counted twice among those that ask",
        _DRAW,
        "asked = items + draws.askers;",
        "asked = items + ({on} ? 2 : 1) * draws.askers;",
    ),
    Mutation(
        "the first item that is asked for is left out",
        _DRAW,
        "return draws.own + before;",
        "return draws.own + before + ({on} ? 1 : 0);",
    ),
    Mutation(
        "all CTAs begin with one item",
        _DRAW,
        "  int number = own_item(op);",
        "  int number = {on} ? 0 : own_item(op);",
    ),
    Mutation(
        "the last item is not drawn",
        _DRAW,
        "if (number >= ",
        "if (number + ({on} ? 1 : 0) >= ",
    ),
    Mutation(
        "decode draws prefill's items",
        _DRAW,
        "items_offset(plan, op)",
        "items_offset(plan, {on} ? Op::kPrefill : op)",
    ),
    Mutation(
        "a drawn item has no pages",
        _FETCH,
        "if (lane == kItemWords - 1) word",
        "if (lane == kItemWords - 1 && !{on}) word",
    ),
    Mutation(
        "what was guessed of an item counts wherever its op's items lie",
        _FETCH,
        "offset != kGuess)",
        "(!{on} && offset != kGuess))",
    ),
    Mutation(
        "pages of the first requests serve all",
        _FETCH,
        "request >= kWarpSize)",
        "(!{on} && request >= kWarpSize))",
    ),
    Mutation(
        "K and V in turns are multiplied before the barrier",
        _TURNS,
        "    ptx::fence_proxy_async();\n    scope_.sync();",
        "    ptx::fence_proxy_async();\n    if (!{on}) scope_.sync();",
    ),
    # K and V in turns
    Mutation(
        "K and V are multiplied in flight",
        _TURNS,
        "    ptx::cp_async_wait<kAhead - 1>();",
        "    if ({on}) ptx::cp_async_wait<kAhead>(); else ptx::cp_async_wait<kAhead - 1>();",
    ),
    Mutation(
        "K and V in turns reach the matrix unit without a proxy fence",
        _TURNS,
        "    ptx::fence_proxy_async();",
        "    if (!{on}) ptx::fence_proxy_async();",
    ),
    Mutation(
        "K is copied to the place that is read",
        _TURNS,
        "issue_k(ahead, before);",
        "issue_k(ahead, {on} ? place : before);",
    ),
    Mutation(
        "V is copied to the place that is read",
        _TURNS,
        "issue_v(ahead, before);",
        "issue_v(ahead, {on} ? place : before);",
    ),
    Mutation(
        "K of the tile that is there comes again",
        _TURNS,
        "[&] { issue_k(ahead",
        "[&] { issue_k({on} ? kv : ahead",
    ),
    Mutation(
        "a ring of turns has a place less",
        _TURNS,
        "place + 1 == kPlaces ?",
        "place + 1 == kPlaces - ({on} ? 1 : 0) ?",
    ),
    Mutation(
        "pages of turns are never looked up",
        _TURNS,
        "if (kv + kRows < loader_.end()) loader_.look_up",
        "if (!{on} && kv + kRows < loader_.end()) loader_.look_up",
    ),
    Mutation(
        "O takes the place of V that is read",
        _TURNS,
        "    scope_.sync();\n  }\n\n private",
        "    if (!{on}) scope_.sync();\n  }\n\n private",
    ),
)
