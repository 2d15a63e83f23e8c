"""Bugs to plant where a pair's CTA widens K and V of 8 bits and decodes them on mma."""

from __future__ import annotations

from planting import Mutation

_WIDE, _ITEM, _CTA = "op/wide_ring.cuh", "op/pair_item.cuh", "pair_cta.cuh"

MUTATIONS = (
    Mutation(
        "keys widened for a pair reach the matrix unit without a proxy fence",
        _WIDE,
        "ptx::fence_proxy_async();\n    side.tell(Turn::kKeysLanded, place);",
        "if (!{on}) ptx::fence_proxy_async();\n    side.tell(Turn::kKeysLanded, place);",
    ),
    Mutation(
        "values widened for a pair reach the matrix unit without a proxy fence",
        _WIDE,
        "ptx::fence_proxy_async();\n    if (kv + Ring::kRows >= end) at_last();",
        "if (!{on}) ptx::fence_proxy_async();\n    if (kv + Ring::kRows >= end) at_last();",
    ),
    Mutation(
        "keys are widened over keys that one of a pair multiplies",
        _WIDE,
        "side.await(Turn::kKeysFree, place);",
        "if (!{on}) side.await(Turn::kKeysFree, place);",
    ),
    Mutation(
        "values are widened over values that one of a pair multiplies",
        _WIDE,
        "side.await(Turn::kValuesFree, place);",
        "if (!{on}) side.await(Turn::kValuesFree, place);",
    ),
    Mutation(
        "an item is drawn when its pair has gone on",
        _WIDE,
        "if (kv + Ring::kRows >= end) at_last();\n    side.tell(Turn::kValuesLanded, place);",
        "if (!{on} && kv + Ring::kRows >= end) at_last();\n"
        "    side.tell(Turn::kValuesLanded, place);\n"
        "    if ({on} && kv + Ring::kRows >= end) at_last();",
    ),
    Mutation(
        "rows are settled by the powers of the next item's",
        _ITEM,
        "    units_.settle(state, a_);\n    at_last();\n",
        "    if (!{on}) units_.settle(state, a_);\n    at_last();\n"
        "    if ({on}) units_.settle(state, a_);\n",
    ),
    Mutation(
        "both of a pair store the first rows of Q",
        _ITEM,
        "a_, item, row0(thread), thread & 31,",
        "a_, item, row0(thread) % ({on} ? kBlockRows : 128), thread & 31,",
    ),
    Mutation(
        "who decodes on mma meets at another's barrier",
        _CTA,
        "op::decode_item<Variant>(a, item, smem, barrier, thread);",
        "op::decode_item<Variant>(a, item, smem, {on} ? group_barrier(0) : barrier, thread);",
    ),
)
