// swizzle.cuh: where a 16-byte chunk of a tile's row lies in shared memory.
//
// Rows are packed without padding. Chunk c of row r lies at place c ^ key(r) of its row, so that
// the eight rows which one ldmatrix phase reads at the same c fall into eight different bank
// groups: rows of a multiple of 128 bytes need three bits of the row for that; rows of an odd
// multiple of 64 or 32 bytes alternate between two or four places by themselves and need two or
// one.
#pragma once

#include "pod/config.h"
#include "pod/ptx/platform.cuh"

namespace pod::layout {

constexpr int kElementBytes = 2;  // of operands, as the matrix units take them
static_assert(kQBytes == kElementBytes, "Q is an operand as it is");
constexpr int kChunkBytes = 16, kChunkElements = kChunkBytes / kElementBytes;

template <int kRowBytes>
POD_DEVICE uint32_t swizzle_key(int row) {
  static_assert(kRowBytes % 32 == 0, "rows are multiples of 32 bytes");
  return kRowBytes % 128 == 0 ? row & 7 : kRowBytes % 64 == 0 ? row >> 1 & 3 : row >> 2 & 1;
}

// Tiles as ldmatrix reads them, for the copies; layout/panels.cuh has the warpgroup's.
template <int kBytes>
struct Rows {
  static constexpr uint32_t kRowBytes = kBytes;
  static constexpr bool kIsAsync = false;  // whether a unit of its own reads them
  static constexpr int kPieces = 1;        // of a row: a copy takes it whole
  static constexpr uint32_t kPieceStride = kBytes;

  POD_DEVICE static uint32_t chunk_address(uint32_t tile, int row, int chunk) {
    return tile + row * kBytes + ((chunk ^ swizzle_key<kBytes>(row)) << 4);
  }
};

// One lane's row of a tile as ldmatrix walks it: 16 rows down, two chunks along. A key changes
// chunks only within a span of the row, so all spans share the few addresses that need a register.
template <int kRowBytes>
struct LaneRow {
  static constexpr int kSpan = kRowBytes % 128 == 0 ? 128 : kRowBytes % 64 == 0 ? 64 : 32;
  static constexpr int kStep = 2 * kChunkBytes;
  uint32_t row;    // address of the lane's row
  uint32_t chunk;  // swizzled byte offset of its first chunk

  // `half` selects the left or right chunk of a step.
  POD_DEVICE LaneRow(uint32_t tile, int lane_row, int half)
      : row(tile + lane_row * kRowBytes), chunk((half ^ swizzle_key<kRowBytes>(lane_row)) << 4) {}

  POD_DEVICE uint32_t at(int rows16, int step) const {
    const int span = step * kStep / kSpan, inside = step * kStep % kSpan;
    return row + (chunk ^ inside) + rows16 * (16 * kRowBytes) + span * kSpan;
  }
};

// Lanes 0-15 give rows 0-15 of the left chunks, lanes 16-31 those of the right: the A operand, and
// (transposed) the B operand of V.
template <int kRowBytes>
POD_DEVICE LaneRow<kRowBytes> lane_row_a(uint32_t tile, int lane) {
  return LaneRow<kRowBytes>(tile, lane & 15, lane >> 4);
}

// Lanes 0-7 and 8-15 give rows 0-7 left and right, lanes 16-31 rows 8-15: the B operand of K.
template <int kRowBytes>
POD_DEVICE LaneRow<kRowBytes> lane_row_b(uint32_t tile, int lane) {
  return LaneRow<kRowBytes>(tile, (lane & 7) | (lane >> 4 << 3), lane >> 3 & 1);
}

}  // namespace pod::layout
