// columns.cuh: which elements a lane holds of scores that lie transposed, keys as the rows of an
// accumulator tile [64, 16] of a warpgroup and query rows as its columns.
//
// A lane holds four query rows: columns 2 * (lane % 4) and the next of each of two tiles of 8.
#pragma once

#include "pod/config.h"
#include "pod/layout/fragment.cuh"

namespace pod {

// Which query row and which keys a lane's registers s[block][tile][i] are of.
struct ColumnFragment {
  static constexpr int kTiles = kDecodeRows / Fragment::kColumns;
  static constexpr int kRows = kTiles * Fragment::kPairs;  // query rows of a lane
  static constexpr int kBlock = 64;                        // keys of a product

  POD_DEVICE static int row(int lane, int place) {
    return place / Fragment::kPairs * Fragment::kColumns + Fragment::column(lane) +
           place % Fragment::kPairs;
  }
  POD_DEVICE static int key(int thread, int half) {
    return thread / kWarpSize * Fragment::kRows + Fragment::row(thread % kWarpSize, half);
  }
};

// visit(place, x) for each score of a lane; `place` is that of its query row.
template <int kBlocks, typename Score, typename Visit>
POD_DEVICE void for_each_score(Score (&s)[kBlocks][ColumnFragment::kTiles][4], Visit visit) {
  POD_UNROLL
  for (int block = 0; block < kBlocks; ++block) {
    POD_UNROLL
    for (int place = 0; place < ColumnFragment::kRows; ++place) {
      POD_UNROLL
      for (int half = 0; half < Fragment::kHalves; ++half) {
        visit(place,
              s[block][place / Fragment::kPairs][Fragment::at(half, place % Fragment::kPairs)]);
      }
    }
  }
}

}  // namespace pod
