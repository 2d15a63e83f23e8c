// swizzle.cuh: where a 16-byte chunk of a tile [rows, D] of 16-bit elements lies in shared memory.
//
// Rows are packed without padding. Chunk c of row r lies at place c ^ key(r) of its row, so that
// the eight rows which one ldmatrix phase reads at the same c fall into eight different bank
// groups: rows of a multiple of 128 bytes need three bits of the row for that, rows of an odd
// multiple of 64 bytes alternate between two halves by themselves and need two.
#pragma once

#include "pod/config.h"
#include "pod/ptx/platform.cuh"

namespace pod::layout {

constexpr int kElementBytes = 2;  // of Q, K and V, as the matrix units take them
static_assert(kQBytes == kElementBytes && kKvBytes == kElementBytes, "nothing converts yet");
constexpr int kChunkBytes = 16, kChunkElements = kChunkBytes / kElementBytes;

template <int D>
POD_DEVICE uint32_t swizzle_key(int row) {
  static_assert(D % 32 == 0, "rows are multiples of 64 bytes");
  return D % 64 == 0 ? row & 7 : row >> 1 & 3;
}

// Address of chunk `chunk` of row `row`.
template <int D>
POD_DEVICE uint32_t chunk_address(uint32_t tile, int row, int chunk) {
  return tile + row * (D * kElementBytes) + ((chunk ^ swizzle_key<D>(row)) << 4);
}

// Tiles as ldmatrix reads them, for the copies; layout/panels.cuh has the warpgroup's.
template <int D>
struct Rows {
  static constexpr uint32_t kRowBytes = D * kElementBytes;
  static constexpr int kAtOnce = 8;  // addresses that a copy holds: all

  POD_DEVICE static uint32_t chunk_address(uint32_t tile, int row, int chunk) {
    return layout::chunk_address<D>(tile, row, chunk);
  }
};

// One lane's row of a tile as ldmatrix walks it: 16 rows down, 16 columns along. A key changes
// chunks only within a span of the row, so all spans share the few addresses that need a register.
template <int D>
struct LaneRow {
  static constexpr int kSpanColumns = D % 64 == 0 ? 64 : 32;
  uint32_t row;    // address of the lane's row
  uint32_t chunk;  // swizzled byte offset of its first chunk

  // `half` selects the left or right 8 of 16 columns.
  POD_DEVICE LaneRow(uint32_t tile, int lane_row, int half)
      : row(tile + lane_row * (D * kElementBytes)), chunk((half ^ swizzle_key<D>(lane_row)) << 4) {}

  POD_DEVICE uint32_t at(int rows16, int columns16) const {
    const int span = columns16 * 16 / kSpanColumns, inside = columns16 * 16 % kSpanColumns;
    return row + (chunk ^ inside * kElementBytes) +
           (rows16 * (16 * D) + span * kSpanColumns) * kElementBytes;
  }
};

// Lanes 0-15 give rows 0-15 of the left 8 columns, lanes 16-31 those of the right: the A operand,
// and (transposed) the B operand of V.
template <int D>
POD_DEVICE LaneRow<D> lane_row_a(uint32_t tile, int lane) {
  return LaneRow<D>(tile, lane & 15, lane >> 4);
}

// Lanes 0-7 and 8-15 give rows 0-7 left and right, lanes 16-31 rows 8-15: the B operand of K.
template <int D>
POD_DEVICE LaneRow<D> lane_row_b(uint32_t tile, int lane) {
  return LaneRow<D>(tile, (lane & 7) | (lane >> 4 << 3), lane >> 3 & 1);
}

}  // namespace pod::layout
