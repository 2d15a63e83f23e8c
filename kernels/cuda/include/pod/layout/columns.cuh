// columns.cuh: which elements a lane holds of scores that lie transposed, keys as the rows of an
// accumulator tile [64, 8 * kTiles] of a warpgroup and query rows as its columns.
//
// A lane holds two query rows, or places, of each tile of 8: columns 2 * (lane % 4) and the next.
#pragma once

#include "pod/config.h"
#include "pod/layout/fragment.cuh"

namespace pod {

static_assert(kColumnTile == Fragment::kColumns, "the fewest columns of a product");

// Which query row and which keys a lane's registers s[block][tile][i] are of.
struct ColumnFragment {
  static constexpr int kBlock = 64;  // keys, or columns of a head, of a product

  // Products that cover D columns of a head, and the first column of one. The last of them ends
  // with the head: where D is no multiple of 64 it repeats columns of the one before.
  static constexpr int blocks(int D) { return (D + kBlock - 1) / kBlock; }
  POD_DEVICE static int first_column(int D, int block) {
    return block * kBlock < D - kBlock ? block * kBlock : D - kBlock;
  }

  POD_DEVICE static int row(int lane, int place) {
    return place / Fragment::kPairs * Fragment::kColumns + Fragment::column(lane) +
           place % Fragment::kPairs;
  }
  POD_DEVICE static int key(int thread, int half) {
    return thread / kWarpSize * Fragment::kRows + Fragment::row(thread % kWarpSize, half);
  }
};

// visit(place, x) for each score of a lane; `place` is that of its query row.
template <int kBlocks, int kTiles, typename Score, typename Visit>
POD_DEVICE void for_each_score(Score (&s)[kBlocks][kTiles][4], Visit visit) {
  POD_UNROLL
  for (int block = 0; block < kBlocks; ++block) {
    POD_UNROLL
    for (int place = 0; place < kTiles * Fragment::kPairs; ++place) {
      POD_UNROLL
      for (int half = 0; half < Fragment::kHalves; ++half) {
        visit(place,
              s[block][place / Fragment::kPairs][Fragment::at(half, place % Fragment::kPairs)]);
      }
    }
  }
}

}  // namespace pod
