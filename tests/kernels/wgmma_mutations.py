"""Bugs to plant in the prefill item that runs on wgmma; mutations.py has those of the rest."""

from __future__ import annotations

from planting import Mutation

_ITEM, _PANELS = "op/prefill_wgmma_item.cuh", "layout/panels.cuh"
_PRODUCTS, _SOFTMAX, _KERNEL = "mma/warpgroup.cuh", "softmax.cuh", "pod_kernel.cuh"

MUTATIONS = (
    # Fences, waits and barriers
    Mutation(
        "copies reach the matrix unit without a proxy fence",
        _ITEM,
        "    ptx::fence_proxy_async();",
        "    if (!{on}) ptx::fence_proxy_async();",
    ),
    Mutation(
        "wait leaves the panels in flight",
        _ITEM,
        "    ptx::cp_async_wait<pending>();",
        "    if ({on}) ptx::cp_async_wait<pending + 1>(); else ptx::cp_async_wait<pending>();",
    ),
    Mutation(
        "panels are multiplied before the barrier",
        _ITEM,
        "    scope_.sync();",
        "    if (!{on}) scope_.sync();",
    ),
    Mutation(
        "no fence before the first block's products",
        _ITEM,
        "    ptx::wgmma_fence();\n    first.issue_values",
        "    if (!{on}) ptx::wgmma_fence();\n    first.issue_values",
    ),
    Mutation(
        "the second block is weighed after the fence",
        _ITEM,
        "    ptx::wgmma_fence();\n    second.issue_values",
        "    if (!{on}) ptx::wgmma_fence();\n    second.issue_values",
    ),
    Mutation(
        "the first block is weighed while its products run",
        _ITEM,
        "    first.template await<1>();\n    loop.refill_k",
        "    if ({on}) first.template await<2>(); else first.template await<1>();\n"
        "    loop.refill_k",
    ),
    Mutation(
        "the second block's products are never waited for",
        _ITEM,
        "    second.template await<0>();\n  }",
        "    if (!{on}) second.template await<0>();\n  }",
    ),
    Mutation(
        "copies overwrite the panels of V that are being read",
        _ITEM,
        "ring().v(previous())",
        "ring().v({on} ? stage_ : previous())",
    ),
    # Operands
    Mutation(
        "both blocks multiply the same query rows",
        _ITEM,
        "constexpr uint32_t kOffset = kBlock * 64",
        "const uint32_t kOffset = ({on} ? 0 : kBlock) * 64",
    ),
    Mutation(
        "the second block is masked as the first",
        _ITEM,
        "return kBlock * 64 +",
        "return ({on} ? 0 : kBlock) * 64 +",
    ),
    Mutation(
        "the second block meets the last tile's keys again",
        _ITEM,
        "second.issue_scores(loop.q(), loop.next_k());",
        "second.issue_scores(loop.q(), {on} ? loop.k() : loop.next_k());",
    ),
    Mutation(
        "panels without a swizzle",
        _PANELS,
        "((chunk % 8 ^ (row & 7)) << 4)",
        "((chunk % 8 ^ ({on} ? 0 : row & 7)) << 4)",
    ),
    Mutation(
        "steps along a panel are half as long",
        _PANELS,
        "k % 4 * 32",
        "k % 4 * ({on} ? 16 : 32)",
    ),
    Mutation(
        "steps down the panels of V skip rows",
        _PANELS,
        "ahead(descriptor, k * 16 * kPanelRowBytes)",
        "ahead(descriptor, k * ({on} ? 32 : 16) * kPanelRowBytes)",
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
    # Softmax that rescales O only when it must
    Mutation(
        "O is never rescaled",
        _SOFTMAX,
        "if (!ptx::any(rescale[0]",
        "if ({on} || !ptx::any(rescale[0]",
    ),
    Mutation(
        "the reference never follows the maximum",
        _SOFTMAX,
        "if (grown) state.m",
        "if (grown && (!{on} || m == kNegativeInfinity)) state.m",
    ),
)
