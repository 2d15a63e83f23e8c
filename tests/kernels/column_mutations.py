"""Bugs to plant in the decode item that runs on wgmma; mutations.py has those of the rest."""

from __future__ import annotations

from planting import Mutation

_ITEM, _SOFTMAX, _PRODUCTS = "op/column_math.cuh", "column_softmax.cuh", "mma/columns.cuh"
_LOOP, _KERNEL = "op/kv_loop.cuh", "pod_kernel.cuh"

MUTATIONS = (
    # What the warps tell each other.
    Mutation(
        "a warp's higher scores move nobody's reference",
        _ITEM,
        "    if (grown) raise(turn);",
        "    if (grown && !{on}) raise(turn);",
    ),
    Mutation(
        "a warp asks only itself whether references move",
        _ITEM,
        "grown |= notes().grown[turn][warp] != 0;",
        "grown |= notes().grown[turn][{on} ? scope_.warp() : warp] != 0;",
    ),
    Mutation(
        "references move to the scores of one's own warp",
        _ITEM,
        "notes().of_rows[warp][ColumnFragment::row(lane(), place)]",
        "notes().of_rows[{on} ? scope_.warp() : warp][ColumnFragment::row(lane(), place)]",
    ),
    Mutation(
        "sums of the other warps are left out",
        _ITEM,
        "l += notes().of_rows[warp][row];",
        "l += {on} && warp > 0 ? 0.f : notes().of_rows[warp][row];",
    ),
    Mutation(
        "sums over a lane's keys instead of its warp's",
        _ITEM,
        "x += ptx::shfl_xor(x, mask);",
        "x += {on} ? 0.f : ptx::shfl_xor(x, mask);",
    ),
    Mutation(
        "maxima over a lane's keys instead of its warp's",
        _ITEM,
        "x = max(x, ptx::shfl_xor(x, mask));",
        "x = {on} ? x : max(x, ptx::shfl_xor(x, mask));",
    ),
    Mutation(
        "a tile's sums are forgotten",
        _ITEM,
        "state_.add(place, 1.f, sums_[place]);",
        "state_.add(place, 1.f, {on} && place == 3 ? 0.f : sums_[place]);",
    ),
    # Order.
    Mutation(
        "weights reach the matrix unit without a proxy fence",
        _ITEM,
        "    ptx::fence_proxy_async();",
        "    if (!{on}) ptx::fence_proxy_async();",
    ),
    Mutation(
        "tiles reach the matrix unit without a proxy fence",
        _LOOP,
        "if constexpr (Layout::kIsAsync) ptx::fence_proxy_async();",
        "if constexpr (Layout::kIsAsync) { if (!{on}) ptx::fence_proxy_async(); }",
    ),
    Mutation(
        "weights made again are read before all are there",
        _ITEM,
        "    weigh(turn);\n    scope_.sync();",
        "    weigh(turn);\n    if (!{on}) scope_.sync();",
    ),
    Mutation(
        "values are overwritten while the unit reads them",
        _ITEM,
        "    ptx::wgmma_wait<0>();",
        "    if (!{on}) ptx::wgmma_wait<0>();",
    ),
    Mutation(
        "scores are read before the unit has them",
        _ITEM,
        "    await_scores<0>();",
        "    if (!{on}) await_scores<0>();",
    ),
    Mutation(
        "O is read before all warps wrote theirs",
        _ITEM,
        "    write_output();\n    scope_.sync();",
        "    write_output();\n    if (!{on}) scope_.sync();",
    ),
    # Places.
    Mutation(
        "panels of decode begin anywhere",
        _KERNEL,
        "work.items[0], smem + ahead,",
        "work.items[0], smem + ({on} ? 0 : ahead),",
    ),
    Mutation(
        "the reference of a row is written to its neighbour's place",
        _ITEM,
        "ends()[row] = state_.m[place];",
        "ends()[{on} ? row ^ 1 : row] = state_.m[place];",
    ),
    Mutation(
        "O's upper and lower eight columns are exchanged",
        _ITEM,
        "ColumnFragment::first_column(D, block) + ColumnFragment::key(scope_.thread, half);",
        "ColumnFragment::first_column(D, block) +\n"
        "              ColumnFragment::key(scope_.thread, {on} ? 1 - half : half);",
    ),
    Mutation(
        "weights of the two halves of a warp's keys are exchanged",
        _PRODUCTS,
        "warp * 2 + lane / 8 % 2;",
        "warp * 2 + ({on} ? 1 - lane / 8 % 2 : lane / 8 % 2);",
    ),
    Mutation(
        "weights of the two tiles of query rows are exchanged",
        _PRODUCTS,
        "const int row = lane / 16 * 8 + lane % 8;",
        "const int row = ({on} ? 1 - lane / 16 : lane / 16) * 8 + lane % 8;",
    ),
    Mutation(
        "scores of a later block are those of the first",
        _PRODUCTS,
        "block * ColumnFragment::kBlock / 16",
        "({on} ? 0 : block) * ColumnFragment::kBlock / 16",
    ),
    Mutation(
        "values of the first keys take all weights",
        _PRODUCTS,
        "ValuePanels::rows_at(v, i)",
        "ValuePanels::rows_at(v, {on} ? 0 : i)",
    ),
    Mutation(
        "the first keys are weighed with the limits of the next",
        "op/decode_wgmma_item.cuh",
        "loop.run([&](uint32_t k_tile, int kv) { math.on_keys(k_tile, kv, [] {}); },\n"
        "             [&](uint32_t v_tile)",
        "loop.run([&](uint32_t k_tile, int kv) {"
        " math.on_keys(k_tile, {on} ? kv + Math::kRows : kv, [] {}); },\n"
        "             [&](uint32_t v_tile)",
    ),
    # Softmax.
    Mutation(
        "O stays behind the reference",
        _SOFTMAX,
        "x *= rescale[place];",
        "x *= {on} ? 1.f : rescale[place];",
    ),
    Mutation(
        "l stays behind the reference",
        _SOFTMAX,
        "add(i, rescale[i], 0.f);",
        "add(i, {on} ? 1.f : rescale[i], 0.f);",
    ),
    Mutation(
        "large scores of decode are not centred",
        _SOFTMAX,
        "far = ptx::any(furthest > kFar);",
        "far = !{on} && ptx::any(furthest > kFar);",
    ),
    Mutation(
        "keys of a block are masked eight too early",
        _SOFTMAX,
        "kv + ColumnFragment::key(thread, half) - keys.first;",
        "kv + ColumnFragment::key(thread, half) - keys.first + ({on} ? 8 : 0);",
    ),
    Mutation(
        "later blocks are masked as the first",
        _SOFTMAX,
        "static_cast<unsigned>(start + block * ColumnFragment::kBlock);",
        "static_cast<unsigned>(start + ({on} ? 0 : block) * ColumnFragment::kBlock);",
    ),
    Mutation(
        "limits of the neighbouring query row",
        _SOFTMAX,
        "ColumnFragment::row(thread % kWarpSize, place));",
        "ColumnFragment::row(thread % kWarpSize, {on} ? 3 - place : place));",
    ),
)
