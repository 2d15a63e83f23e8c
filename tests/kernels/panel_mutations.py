"""Bugs to plant in panels, in copies of rows in pieces, and in blocks of a head that overlap."""

from __future__ import annotations

from planting import Mutation

_PANELS, _COLUMNS, _MATH = "layout/panels.cuh", "layout/columns.cuh", "op/column_math.cuh"
_KV, _QUERIES = "copy/kv_tile.cuh", "copy/query_tile.cuh"

MUTATIONS = (
    Mutation(
        "steps along a tile stay in its first panel",
        _PANELS,
        "k / kSteps * kPanelBytes",
        "({on} ? 0 : k / kSteps * kPanelBytes)",
    ),
    Mutation(
        "columns of V repeat its first panel",
        _PANELS,
        "ptx::wgmma_descriptor<kRowBytes>(tile, kPanelBytes, 8 * kRowBytes)",
        "ptx::wgmma_descriptor<kRowBytes>(tile, {on} ? 0 : kPanelBytes, 8 * kRowBytes)",
    ),
    Mutation(
        "rows of a panel lie as far apart as in wide ones",
        _PANELS,
        "ptx::wgmma_descriptor<kRowBytes>(tile, 16, 8 * kRowBytes)",
        "ptx::wgmma_descriptor<kRowBytes>(tile, 16, {on} ? 1024 : 8 * kRowBytes)",
    ),
    Mutation(
        "every piece of a row of K and V is its first",
        _KV,
        "row + piece * kPieceBytes",
        "row + ({on} ? 0 : piece) * kPieceBytes",
    ),
    Mutation(
        "pieces of K and V land where those of panels half as far apart do",
        _KV,
        "piece * Layout::kPieceStride",
        "piece * Layout::kPieceStride / ({on} ? 2 : 1)",
    ),
    Mutation(
        "every piece of a query row is its first",
        _QUERIES,
        "from + piece * kPieceBytes",
        "from + ({on} ? 0 : piece) * kPieceBytes",
    ),
    Mutation(
        "pieces of query rows land where those of panels half as far apart do",
        _QUERIES,
        "piece * Layout::kPieceStride",
        "piece * Layout::kPieceStride / ({on} ? 2 : 1)",
    ),
    Mutation(
        "the last block of a head begins where the one before ends",
        _COLUMNS,
        "return block * kBlock < D - kBlock ?",
        "return {on} || block * kBlock < D - kBlock ?",
    ),
    Mutation(
        "the first column of a block is left to the one before",
        _MATH,
        "column < block * ColumnFragment::kBlock) continue;",
        "column < block * ColumnFragment::kBlock + ({on} ? 1 : 0)) continue;",
    ),
    Mutation(
        "what a block repeats is stored as columns of its own",
        _MATH,
        "ColumnFragment::first_column(D, block) +",
        "({on} ? block * ColumnFragment::kBlock : ColumnFragment::first_column(D, block)) +",
    ),
    Mutation(
        "the second block of query rows is looked for as in wide panels",
        "op/prefill_wgmma_item.cuh",
        "this->ring().q() + kOffset, stage);",
        "this->ring().q() + ({on} ? 2 : 1) * kOffset, stage);",
    ),
)
