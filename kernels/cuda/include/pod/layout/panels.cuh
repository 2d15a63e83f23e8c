// panels.cuh: tiles [rows, D] as the warpgroup's matrix unit reads them: panels of 64 columns, or
// of 32 where D is no multiple of 64, one after the other, each [rows, 64] or [rows, 32] without
// padding, so that a row of a panel has 128 or 64 bytes.
//
// Chunk c of row r lies at place c ^ key(r) of its row (swizzle.cuh): the unit's own swizzle of as
// many bytes, which makes both the copies and its reads free of bank conflicts. It counts rows from
// multiples of 1024 or 512 bytes, so panels start there.
// Source: PTX ISA, asynchronous warpgroup-level matrix instructions, shared memory layout.
#pragma once

#include "pod/layout/swizzle.cuh"
#include "pod/ptx/wgmma.cuh"

namespace pod::layout {

template <int D, int kRows>
struct Panels {
  static constexpr int kColumns = D % 64 == 0 ? 64 : 32;  // of a panel
  static_assert(D % kColumns == 0 && kRows % 8 == 0, "whole panels, whole swizzles");
  static constexpr uint32_t kRowBytes = kColumns * kElementBytes;
  static constexpr bool kIsAsync = true;
  static constexpr uint32_t kPanelBytes = kRows * kRowBytes;
  // A copy takes a row in pieces, one of each panel, which lie kPieceStride apart.
  static constexpr int kPieces = D / kColumns;
  static constexpr uint32_t kPieceStride = kPanelBytes;

  POD_DEVICE static uint32_t chunk_address(uint32_t tile, int row, int chunk) {
    const uint32_t place = chunk % kChunks ^ swizzle_key<kRowBytes>(row);
    return tile + chunk / kChunks * kPanelBytes + row * kRowBytes + (place << 4);
  }

  // Descriptor of the tile as an operand whose 16 columns at a time are summed over: Q, K.
  POD_DEVICE static uint64_t columns_descriptor(uint32_t tile) {
    return ptx::wgmma_descriptor<kRowBytes>(tile, 16, 8 * kRowBytes);
  }
  // The same, `k` column blocks of 16 further along.
  POD_DEVICE static uint64_t columns_at(uint64_t descriptor, int k) {
    return ahead(descriptor, k / kSteps * kPanelBytes + k % kSteps * 32);
  }

  // Descriptor of the tile as an operand whose 16 rows at a time are summed over: V.
  POD_DEVICE static uint64_t rows_descriptor(uint32_t tile) {
    return ptx::wgmma_descriptor<kRowBytes>(tile, kPanelBytes, 8 * kRowBytes);
  }
  POD_DEVICE static uint64_t rows_at(uint64_t descriptor, int k) {
    return ahead(descriptor, k * 16 * kRowBytes);
  }

 private:
  static constexpr int kChunks = kColumns / kChunkElements, kSteps = kColumns / 16;

  // Addresses end within the lower half: adding there alone takes one instruction.
  POD_DEVICE static uint64_t ahead(uint64_t descriptor, uint32_t bytes) {
    return descriptor >> 32 << 32 | (static_cast<uint32_t>(descriptor) + (bytes >> 4));
  }
};

}  // namespace pod::layout
