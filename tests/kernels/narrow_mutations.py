"""Bugs to plant in decode on wgmma with tiles of 8 query rows: what is as wide as the tile."""

from __future__ import annotations

from planting import Mutation

_ITEM, _PRODUCTS = "op/column_math.cuh", "mma/columns.cuh"
_LOAD = (
    "copy::load_queries<Math::D, Math::kQueryRows{}, kGroupThreads, typename Math::QueryPanels>("
)

MUTATIONS = (
    Mutation(
        "weights of 8 query rows are stored in another order",
        _PRODUCTS,
        "chunk_address(panels, lane % 8, chunk), matrices",
        "chunk_address(panels, {on} ? 7 - lane % 8 : lane % 8, chunk), matrices",
    ),
    Mutation(
        "weights of the two matrices of a warp change places",
        _PRODUCTS,
        "const int tile = i / 2, half = i % 2;",
        "const int tile = i / 2, half = {on} ? 1 - i % 2 : i % 2;",
    ),
    Mutation(
        "half of a tile's query rows do not come",
        "op/decode_wgmma_item.cuh",
        _LOAD.format(""),
        f"if ({{on}}) {_LOAD.format(' / 2')}q_tile, a, item, thread);\n  else {_LOAD.format('')}",
    ),
    Mutation(
        "a row of O is stored by as many threads as one of 16 has",
        _ITEM,
        "const int row = scope_.thread / kThreads,",
        "const int row = scope_.thread / ({on} ? kThreads / 2 : kThreads),",
    ),
    Mutation(
        "references of all rows lie on the last row of O",
        _ITEM,
        "scratch() + kQueryRows * kStride;",
        "scratch() + ({on} ? kQueryRows - 1 : kQueryRows) * kStride;",
    ),
    Mutation(
        "half of a tile's query rows tell no sum",
        _ITEM,
        "if (lane() < 4) notes()",
        "if (lane() < ({on} ? 2 : 4)) notes()",
    ),
)
