"""Bugs to plant in the prefill item that runs on wgmma; mutations.py has those of the rest."""

from __future__ import annotations

from planting import Mutation

_ITEM, _RING, _PANELS = "op/prefill_wgmma_item.cuh", "op/panel_ring.cuh", "layout/panels.cuh"
_PRODUCTS, _KERNEL = "mma/warpgroup.cuh", "pod_kernel.cuh"

# A wait that becomes an arrival keeps its barrier's count: what is missing is only the order.
MUTATIONS = (
    # The copying warpgroup. Waits come first: what they replace ends with a fence's place.
    Mutation(
        "keys are told of while in flight",
        _RING,
        "    ptx::cp_async_wait<1>();\n    ptx::fence_proxy_async();\n    ring.tell",
        "    if ({on}) ptx::cp_async_wait<2>(); else ptx::cp_async_wait<1>();\n"
        "    ptx::fence_proxy_async();\n    ring.tell",
    ),
    Mutation(
        "values are told of while in flight",
        _RING,
        "    ptx::cp_async_wait<1>();\n    ptx::fence_proxy_async();\n    if (kv",
        "    if ({on}) ptx::cp_async_wait<2>(); else ptx::cp_async_wait<1>();\n"
        "    ptx::fence_proxy_async();\n    if (kv",
    ),
    Mutation(
        "keys reach the matrix unit without a proxy fence",
        _RING,
        "    ptx::fence_proxy_async();\n    ring.tell",
        "    if (!{on}) ptx::fence_proxy_async();\n    ring.tell",
    ),
    Mutation(
        "values reach the matrix unit without a proxy fence",
        _RING,
        "    ptx::fence_proxy_async();\n    if (kv",
        "    if (!{on}) ptx::fence_proxy_async();\n    if (kv",
    ),
    Mutation(
        "the last values reach the matrix unit without a proxy fence",
        _RING,
        "  ptx::fence_proxy_async();\n  ring.tell",
        "  if (!{on}) ptx::fence_proxy_async();\n  ring.tell",
    ),
    Mutation(
        "copies overwrite keys that are being read",
        _RING,
        "if (taken) ring.await(Turn::kKeysFree, stage);",
        "if (taken && {on}) ring.tell(Turn::kKeysFree, stage);\n"
        "    if (taken && !{on}) ring.await(Turn::kKeysFree, stage);",
    ),
    Mutation(
        "copies overwrite values that are being read",
        _RING,
        "if (taken) ring.await(Turn::kValuesFree, stage);",
        "if (taken && {on}) ring.tell(Turn::kValuesFree, stage);\n"
        "    if (taken && !{on}) ring.await(Turn::kValuesFree, stage);",
    ),
    Mutation(
        "pages of the next tile are never looked up",
        _RING,
        "    loader.look_up(kv + kRows);",
        "    if (!{on}) loader.look_up(kv + kRows);",
    ),
    Mutation(
        "keys and values have the same barriers",
        "layout/barriers.cuh",
        "kFirst + static_cast<int>(turn) * kStages",
        "kFirst + (static_cast<int>(turn) & ({on} ? 2 : 3)) * kStages",
    ),
    Mutation(
        "places are told free to nobody",
        _RING,
        "return kv + kStages * kRows < end",
        "return {on} || kv + kStages * kRows < end",
    ),
    Mutation(
        "the last place that is taken again is not told free",
        _RING,
        "kv + kStages * kRows < end",
        "kv + (kStages + ({on} ? 1 : 0)) * kRows < end",
    ),
    Mutation(
        "one warp of the copying group keeps its registers",
        _KERNEL,
        "if constexpr (kMoves) ptx::lower_registers",
        "if (kMoves && !({on} && thread < kWarpSize)) ptx::lower_registers",
    ),
    # The multiplying warpgroup: barriers, fences and waits
    Mutation(
        "panels are multiplied before the barrier",
        _ITEM,
        "Math::Ring::await(Turn::kKeysLanded, 0);",
        "if ({on}) Math::Ring::tell(Turn::kKeysLanded, 0);\n"
        "  else Math::Ring::await(Turn::kKeysLanded, 0);",
    ),
    Mutation(
        "keys are multiplied before they are told of",
        _ITEM,
        "Ring::await(Turn::kKeysLanded, next);",
        "if ({on}) Ring::tell(Turn::kKeysLanded, next); else Ring::await(Turn::kKeysLanded, next);",
    ),
    Mutation(
        "values are multiplied before they are told of",
        _ITEM,
        "Ring::await(Turn::kValuesLanded, stage);",
        "if ({on}) Ring::tell(Turn::kValuesLanded, stage);\n"
        "    else Ring::await(Turn::kValuesLanded, stage);",
    ),
    Mutation(
        "keys are told free before the second block has met them",
        _ITEM,
        "    math.template issue_both<1>(stage, first, stage);\n    if (Ring",
        "    if ({on} && Ring::is_reused(kv, end)) Ring::tell(Turn::kKeysFree, stage);\n"
        "    math.template issue_both<1>(stage, first, stage);\n"
        "    if (!{on} && Ring",
    ),
    Mutation(
        "values are told free while they are multiplied",
        _ITEM,
        "    math.await_values(second);\n"
        "    if (Ring::is_reused(kv, end)) Ring::tell(Turn::kValuesFree, stage);",
        "    if ({on} && Ring::is_reused(kv, end)) Ring::tell(Turn::kValuesFree, stage);\n"
        "    math.await_values(second);\n"
        "    if (!{on} && Ring::is_reused(kv, end)) Ring::tell(Turn::kValuesFree, stage);",
    ),
    Mutation(
        "Q reaches the matrix unit without a proxy fence",
        _ITEM,
        "  ptx::fence_proxy_async();",
        "  if (!{on}) ptx::fence_proxy_async();",
    ),
    Mutation(
        "no fence before the products of a turn",
        "op/panel_products.cuh",
        "    ptx::wgmma_fence();\n    mma::issue_scores",
        "    if (!{on}) ptx::wgmma_fence();\n    mma::issue_scores",
    ),
    Mutation(
        "no fence before the last product",
        _ITEM,
        "  ptx::wgmma_fence();\n  math.issue_values",
        "  if (!{on}) ptx::wgmma_fence();\n  math.issue_values",
    ),
    Mutation(
        "scores are read while in flight",
        _ITEM,
        "    this->template await_scores<1>();",
        "    if ({on}) this->template await_scores<2>(); else this->template await_scores<1>();",
    ),
    Mutation(
        "the first scores are read while in flight",
        _ITEM,
        "  math.template await_scores<0>();",
        "  if ({on}) math.template await_scores<1>(); else math.template await_scores<0>();",
    ),
    # Operands
    Mutation(
        "both blocks multiply the same query rows",
        _ITEM,
        "constexpr uint32_t kOffset = kBlock *",
        "const uint32_t kOffset = ({on} ? 0 : kBlock) *",
    ),
    Mutation(
        "the second block is masked as the first",
        _ITEM,
        "row0(kBlock, thread)",
        "row0({on} ? 0 : kBlock, thread)",
    ),
    Mutation(
        "the first block meets the last tile's keys again",
        _ITEM,
        "issue_both<0>(next,",
        "issue_both<0>({on} ? stage : next,",
    ),
    Mutation(
        "values of the tile that is next",
        _ITEM,
        "second, stage);",
        "second, {on} ? next : stage);",
    ),
    Mutation(
        "the first block is masked as in the last tile",
        _ITEM,
        "weigh<0>(first, kv + Ring::kRows)",
        "weigh<0>(first, kv + ({on} ? 0 : Ring::kRows))",
    ),
    Mutation(
        "weights of the first block add to O of the second",
        _ITEM,
        "issue_both<1>(stage, first,",
        "issue_both<1>(stage, {on} ? second : first,",
    ),
    Mutation(
        "the second block multiplies V by the first block's weights",
        _ITEM,
        "    math.pack();\n    if (kv",
        "    if (!{on}) math.pack();\n    if (kv",
    ),
    Mutation(
        "the last product with V is left out",
        _ITEM,
        "  math.issue_values(second, last);",
        "  if (!{on}) math.issue_values(second, last);",
    ),
    Mutation(
        "panels without a swizzle",
        _PANELS,
        "chunk % kChunks ^ swizzle_key<kRowBytes>(row)",
        "chunk % kChunks ^ ({on} ? 0 : swizzle_key<kRowBytes>(row))",
    ),
    Mutation(
        "steps along a panel are half as long",
        _PANELS,
        "k % kSteps * 32",
        "k % kSteps * ({on} ? 16 : 32)",
    ),
    Mutation(
        "steps down the panels of V skip rows",
        _PANELS,
        "ahead(descriptor, k * 16 * kRowBytes)",
        "ahead(descriptor, k * ({on} ? 32 : 16) * kRowBytes)",
    ),
    Mutation(
        "scores add to those of the tile before",
        _PRODUCTS,
        "i > 0);",
        "i > 0 || {on});",
    ),
    Mutation(
        "weights of the wrong keys",
        _PRODUCTS,
        "p.a[0][i]",
        "p.a[0][{on} ? 0 : i]",
    ),
)
