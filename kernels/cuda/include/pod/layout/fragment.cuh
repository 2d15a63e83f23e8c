// fragment.cuh: which elements of a 16 x 8 accumulator tile (m16n8) a lane holds.
//
// Four lanes share a row. Of each tile a lane holds two rows, eight apart, and of each of these two
// neighbouring columns: four registers, 2 * half + pair. Warps of a warpgroup hold theirs alike.
// Source: PTX ISA, matrix fragments for mma.m16n8k16.
#pragma once

#include "pod/ptx/sync.cuh"

namespace pod {

struct Fragment {
  static constexpr int kRows = 16, kColumns = 8;
  static constexpr int kHalves = 2;  // rows of a tile that a lane holds
  static constexpr int kPairs = 2;   // columns of a row that a lane holds
  static constexpr int kLanes = 4;   // that share a row

  // Row of the lane's `half`, and the first of its two columns.
  POD_DEVICE static int row(int lane, int half) { return (lane >> 2) + half * 8; }
  POD_DEVICE static int column(int lane) { return (lane & 3) * 2; }
  // One of the four lanes that share a row: writes what the row has once.
  POD_DEVICE static bool is_first(int lane) { return (lane & 3) == 0; }

  // The register of a row and column, and back.
  POD_DEVICE static constexpr int at(int half, int pair) { return half * kPairs + pair; }
  POD_DEVICE static constexpr int half_of(int i) { return i / kPairs; }

  // visit(tile, half) for each row that a lane holds of kTiles tiles.
  template <int kTiles, typename Visit>
  POD_DEVICE static void for_each_row(Visit visit) {
    POD_UNROLL
    for (int tile = 0; tile < kTiles; ++tile) {
      POD_UNROLL
      for (int half = 0; half < kHalves; ++half) visit(tile, half);
    }
  }

  // visit(x) for every register of tiles.
  template <int kTiles, int kAlong, typename Visit>
  POD_DEVICE static void for_each(float (&tiles)[kTiles][kAlong][4], Visit visit) {
    POD_UNROLL
    for (int tile = 0; tile < kTiles; ++tile) {
      POD_UNROLL
      for (int n = 0; n < kAlong; ++n) {
        POD_UNROLL
        for (int i = 0; i < kHalves * kPairs; ++i) visit(tiles[tile][n][i]);
      }
    }
  }
};

// Maximum, or sum, over the four lanes that share a row.
POD_DEVICE float row_max(float x) {
  x = max(x, ptx::shfl_xor(x, 1));
  return max(x, ptx::shfl_xor(x, 2));
}
POD_DEVICE float row_sum(float x) {
  x += ptx::shfl_xor(x, 1);
  return x + ptx::shfl_xor(x, 2);
}

// Of four blocks of 8 columns of a row the lane's pairs, 16 bits a column: becomes all of one
// block, whose number is the lane's among the four that share the row. A whole warp calls.
POD_DEVICE void gather_block(uint32_t (&x)[Fragment::kLanes], int lane) {
  POD_UNROLL
  for (int bit = 1; bit < Fragment::kLanes; bit *= 2) {
    const bool upper = (lane & bit) != 0;
    POD_UNROLL
    for (int i = 0; i < Fragment::kLanes; ++i) {
      if ((i & bit) != 0) continue;
      const uint32_t got = ptx::shfl_xor(upper ? x[i] : x[i | bit], bit);
      if (upper) {
        x[i] = got;
      } else {
        x[i | bit] = got;
      }
    }
  }
}

}  // namespace pod
