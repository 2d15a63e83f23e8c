"""Bugs to plant in what K and V of 8 bits need; mutations.py has those of the rest.

The first list shows in every item, the second where prefill runs on wgmma.
"""

from __future__ import annotations

from planting import Mutation

_BYTES, _PRODUCTS, _QUERIES = "layout/bytes.cuh", "mma/products.cuh", "copy/query_tile.cuh"
_START, _OUTPUT, _ROWS = "op/start.cuh", "output.cuh", "op/rows.cuh"
_WIDE = "op/wide_ring.cuh"

MUTATIONS = (
    Mutation(
        "of four columns the first two come twice",
        _BYTES,
        "second = widen2<1>(bytes);",
        "second = {on} ? widen2<0>(bytes) : widen2<1>(bytes);",
    ),
    Mutation(
        "columns of V change places with keys",
        _BYTES,
        "ptx::order_bytes<0x3120>(bytes)",
        "({on} ? bytes : ptx::order_bytes<0x3120>(bytes))",
    ),
    Mutation(
        "columns of O leave in the order of operands",
        _BYTES,
        "visit(even * Fragment::kColumns + 2 * (Fragment::column(lane) + place),",
        "visit({on} ? i * Fragment::kColumns + Fragment::column(lane)\n"
        "                 : even * Fragment::kColumns + 2 * (Fragment::column(lane) + place),",
    ),
    Mutation(
        "keys of the second block are those of the first",
        _PRODUCTS,
        "layout::widen_columns(b[2], b[3], raw[2 + block]);",
        "layout::widen_columns(b[2], b[3], raw[{on} ? 2 : 2 + block]);",
    ),
    Mutation(
        "later keys of V are another block's",
        _PRODUCTS,
        "layout::widen_keys(b[1], b[3], raw[2 * block + 1]);",
        "layout::widen_keys(b[1], b[3], raw[{on} ? 1 : 2 * block + 1]);",
    ),
    Mutation(
        "Q keeps its order of columns",
        _QUERIES,
        "{x[0], x[2], x[4], x[6]}",
        "{x[0], {on} ? x[1] : x[2], x[4], x[6]}",
    ),
    Mutation(
        "Q past an item's rows is read",
        _QUERIES,
        "if (row < item.rows && block < kBlocks) {",
        "if (({on} || row < item.rows) && block < kBlocks) {",
    ),
    Mutation(
        "the power of a row is one of four lanes' own",
        _QUERIES,
        "row_factor(row_max(highest))",
        "row_factor({on} ? highest : row_max(highest))",
    ),
    Mutation(
        "the largest number of a row overflows",
        _QUERIES,
        "min(kTop + kBias - exponent, kMost)",
        "min(kTop + ({on} ? 3 : 0) + kBias - exponent, kMost)",
    ),
    Mutation(
        "an item begins without its Q",
        _START,
        "      copy::store_operand_queries<",
        "      if (!{on}) copy::store_operand_queries<",
    ),
    Mutation(
        "decode warps leave out rows of Q",
        _START,
        "row % tile.warps == warp",
        "row % ({on} ? 2 * tile.warps : tile.warps) == warp",
    ),
    Mutation(
        "scores keep the power of their row",
        _ROWS,
        "a.score_scale * of[tile][half]",
        "a.score_scale * ({on} ? of[tile][0] : of[tile][half])",
    ),
    Mutation(
        "scores are capped with the power of their row",
        _ROWS,
        "    units.apply(s);",
        "    if (!{on}) units.apply(s);",
    ),
    Mutation(
        "capped scores lose a power that they do not have",
        _ROWS,
        "return kOwn && !a.capped ?",
        "return kOwn && ({on} || !a.capped) ?",
    ),
    Mutation(
        "the LSE keeps the power of its row",
        _ROWS,
        "state.m[tile][half] *= of[tile][half];",
        "state.m[tile][half] *= {on} ? 1.f : of[tile][half];",
    ),
    Mutation(
        "values are not scaled",
        _OUTPUT,
        "end.inverse * a_.value_scale",
        "end.inverse * ({on} ? 1.f : a_.value_scale)",
    ),
)

# A wait that becomes an arrival keeps its barrier's count: what is missing is only the order.
WIDE_MUTATIONS = (
    Mutation(
        "bytes are widened while in flight",
        _WIDE,
        "ptx::cp_async_wait<1>();",
        "if ({on}) ptx::cp_async_wait<2>(); else ptx::cp_async_wait<1>();",
    ),
    Mutation(
        "widened keys reach the matrix unit without a proxy fence",
        _WIDE,
        "ptx::fence_proxy_async();\n    Ring::tell(Turn::kKeysLanded, stage);",
        "if (!{on}) ptx::fence_proxy_async();\n    Ring::tell(Turn::kKeysLanded, stage);",
    ),
    Mutation(
        "widened values reach the matrix unit without a proxy fence",
        _WIDE,
        "ptx::fence_proxy_async();\n    Ring::tell(Turn::kValuesLanded, stage);",
        "if (!{on}) ptx::fence_proxy_async();\n    Ring::tell(Turn::kValuesLanded, stage);",
    ),
    Mutation(
        "keys are widened over keys that are being read",
        _WIDE,
        "if (taken) Ring::await(Turn::kKeysFree, stage);",
        "if (taken && {on}) Ring::tell(Turn::kKeysFree, stage);\n"
        "    if (taken && !{on}) Ring::await(Turn::kKeysFree, stage);",
    ),
    Mutation(
        "values are widened over values that are being read",
        _WIDE,
        "if (taken) Ring::await(Turn::kValuesFree, stage);",
        "if (taken && {on}) Ring::tell(Turn::kValuesFree, stage);\n"
        "    if (taken && !{on}) Ring::await(Turn::kValuesFree, stage);",
    ),
    Mutation(
        "places of the next keys are those of these",
        _WIDE,
        "loader_.resolve_k(next);",
        "if (!{on}) loader_.resolve_k(next);",
    ),
    Mutation(
        "places of the next values are those of these",
        _WIDE,
        "loader_.resolve_v(next);",
        "if (!{on}) loader_.resolve_v(next);",
    ),
    Mutation(
        "the last values of a tile are those before them",
        _WIDE,
        "issue_v<kSteps - 1, kSteps>(next - kRows);",
        "if ({on}) issue_v<kSteps - 2, kSteps - 1>(next - kRows);\n"
        "    else issue_v<kSteps - 1, kSteps>(next - kRows);",
    ),
    Mutation(
        "the last chunk of V lands past the landing",
        _WIDE,
        "step + 1 == kSteps ? kSteps - 1 : first + step;",
        "step + 1 == kSteps && !{on} ? kSteps - 1 : first + step;",
    ),
    Mutation(
        "the left half of 16 bytes lands on the right one",
        _WIDE,
        "layout::panel_place<D>(chunk, 0)",
        "layout::panel_place<D>(chunk, {on} ? 1 : 0)",
    ),
    Mutation(
        "Q has the order of columns that it has on mma",
        _QUERIES,
        "{x[0], x[1], x[2], x[3]}",
        "{x[0], {on} ? x[2] : x[1], {on} ? x[1] : x[2], x[3]}",
    ),
)
