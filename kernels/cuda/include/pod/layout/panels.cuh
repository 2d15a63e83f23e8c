// panels.cuh: tiles [rows, D] as the warpgroup's matrix unit reads them: panels of 64 columns, one
// after the other, each [rows, 64] without padding, so that a row of a panel has 128 bytes.
//
// Chunk c of row r lies at place c ^ (r & 7) of its row: the unit's own 128-byte swizzle, which
// makes both the copies and its reads free of bank conflicts. It counts rows from multiples of 1024
// bytes, so panels start there.
// Source: PTX ISA, asynchronous warpgroup-level matrix instructions, shared memory layout.
#pragma once

#include "pod/layout/swizzle.cuh"
#include "pod/ptx/wgmma.cuh"

namespace pod::layout {

constexpr int kPanelColumns = 64;
constexpr uint32_t kPanelRowBytes = kPanelColumns * kElementBytes;
constexpr uint32_t kPanelRow8Bytes = 8 * kPanelRowBytes;

template <int D, int kRows>
struct Panels {
  static_assert(D % kPanelColumns == 0 && kRows % 8 == 0, "whole panels, whole swizzles");
  static constexpr uint32_t kRowBytes = kPanelRowBytes;
  // Addresses that a copy holds at once: accumulators fill the registers of those who read panels.
  static constexpr int kAtOnce = 2;
  static constexpr bool kIsAsync = true;
  static constexpr uint32_t kPanelBytes = kRows * kPanelRowBytes;

  POD_DEVICE static uint32_t chunk_address(uint32_t tile, int row, int chunk) {
    return tile + chunk / 8 * kPanelBytes + row * kPanelRowBytes + ((chunk % 8 ^ (row & 7)) << 4);
  }

  // Descriptor of the tile as an operand whose 16 columns at a time are summed over: Q, K.
  POD_DEVICE static uint64_t columns_descriptor(uint32_t tile) {
    return ptx::wgmma_descriptor(tile, 16, kPanelRow8Bytes);
  }
  // The same, `k` column blocks of 16 further along.
  POD_DEVICE static uint64_t columns_at(uint64_t descriptor, int k) {
    return ahead(descriptor, k / 4 * kPanelBytes + k % 4 * 32);
  }

  // Descriptor of the tile as an operand whose 16 rows at a time are summed over: V.
  POD_DEVICE static uint64_t rows_descriptor(uint32_t tile) {
    return ptx::wgmma_descriptor(tile, kPanelBytes, kPanelRow8Bytes);
  }
  POD_DEVICE static uint64_t rows_at(uint64_t descriptor, int k) {
    return ahead(descriptor, k * 16 * kPanelRowBytes);
  }

 private:
  // Addresses end within the lower half: adding there alone takes one instruction.
  POD_DEVICE static uint64_t ahead(uint64_t descriptor, uint32_t bytes) {
    return descriptor >> 32 << 32 | (static_cast<uint32_t>(descriptor) + (bytes >> 4));
  }
};

}  // namespace pod::layout
