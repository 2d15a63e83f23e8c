"""Bugs to plant in what K and V of 8 bits need; mutations.py has those of the rest.

The first list shows in every item, the second where prefill runs on wgmma.
"""

from __future__ import annotations

from planting import Mutation

_BYTES, _PRODUCTS, _QUERIES = "layout/bytes.cuh", "mma/products.cuh", "copy/query_tile.cuh"
_START, _OUTPUT, _WIDE = "op/start.cuh", "output.cuh", "op/wide_ring.cuh"

MUTATIONS = (
    Mutation(
        "even columns are taken from odd bytes",
        _BYTES,
        "even = widen2<T>(bytes << 8);",
        "even = widen2<T>(bytes << ({on} ? 0 : 8));",
    ),
    Mutation(
        "a bit of the mantissa is masked",
        _BYTES,
        "(x >> 4 & 0x07f007f0u)",
        "(x >> 4 & ({on} ? 0x07e007e0u : 0x07f007f0u))",
    ),
    Mutation(
        "negative numbers lose their sign",
        _BYTES,
        "mul2<bf16>((x & 0x80008000u)",
        "mul2<bf16>((x & ({on} ? 0u : 0x80008000u))",
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
        "layout::widen<T>(b[2], b[3], raw[2 + block]);",
        "layout::widen<T>(b[2], b[3], raw[{on} ? 2 : 2 + block]);",
    ),
    Mutation(
        "later keys of V are another block's",
        _PRODUCTS,
        "layout::widen<T>(b[1], b[3], raw[2 * block + 1]);",
        "layout::widen<T>(b[1], b[3], raw[{on} ? 1 : 2 * block + 1]);",
    ),
    Mutation(
        "Q keeps its order of columns",
        _QUERIES,
        "{layout::low_halves(left.x, left.y), layout::low_halves(left.z, left.w),",
        "{{on} ? left.x : layout::low_halves(left.x, left.y),\n"
        "                       layout::low_halves(left.z, left.w),",
    ),
    Mutation(
        "Q past an item's rows is read",
        _QUERIES,
        "Int4 left{}, right{};\n    if (row < item.rows) {",
        "Int4 left{}, right{};\n    if ({on} || row < item.rows) {",
    ),
    Mutation(
        "an item begins without its Q",
        _START,
        "    copy::store_split_queries",
        "    if (!{on}) copy::store_split_queries",
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
        "ptx::cp_async_wait<kPlaces - 1>();",
        "if ({on}) ptx::cp_async_wait<kPlaces>(); else ptx::cp_async_wait<kPlaces - 1>();",
    ),
    Mutation(
        "widened keys reach the matrix unit without a proxy fence",
        _WIDE,
        "widener.widen_k(kv, stage);\n    ptx::fence_proxy_async();",
        "widener.widen_k(kv, stage);\n    if (!{on}) ptx::fence_proxy_async();",
    ),
    Mutation(
        "widened values reach the matrix unit without a proxy fence",
        _WIDE,
        "widener.widen_v(kv, stage);\n    ptx::fence_proxy_async();",
        "widener.widen_v(kv, stage);\n    if (!{on}) ptx::fence_proxy_async();",
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
        "the next tile's places are this one's",
        _WIDE,
        "loader_.resolve(kv + kRows);",
        "loader_.resolve({on} ? kv : kv + kRows);",
    ),
    Mutation(
        "the last values of a tile are those before them",
        _WIDE,
        "issue(kPlaces, kv);",
        "issue({on} ? kPlaces - 1 : kPlaces, kv);",
    ),
    Mutation(
        "odd columns are stored as even ones",
        _WIDE,
        "<< (8 - 8 * odd)",
        "<< (8 - 8 * ({on} ? 0 : odd))",
    ),
)
