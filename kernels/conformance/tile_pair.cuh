// tile_pair.cuh: the tiles of a CTA that runs wrappers of ptx/wgmma.cuh, and where they lie.
//
// Smem   A [64, 64] | B [64, 256], from a multiple of 1024 on, both in panels whose rows have 128
//        bytes, or 64
#pragma once

#include "pod/ptx/launch.cuh"
#include "pod/ptx/wgmma.cuh"
#include "sections.cuh"

namespace pod {
namespace {

constexpr int kTileA = kRows * kDepth * 2;
constexpr int kWgmmaSmem = 1024 + kTileA + kDepth * kMaxColumns * 2;
constexpr int kColumnsKMajor = 128;  // of B, at most

// The tiles of a CTA and what it multiplies; rows of panels have kRowBytes.
template <int kRowBytes>
struct TilePair {
  static constexpr int kElements = kRowBytes / 2;  // of a panel's row
  static constexpr uint32_t kAtom = 8 * kRowBytes;

  const uint16_t *a, *b;  // [64, 64], [64, 256]
  const float* c;         // [64, 256]
  uint8_t* smem;          // of A; B follows
  int thread;

  POD_DEVICE uint8_t* smem_b() const { return smem + kTileA; }
  // Of step `step` along k.
  POD_DEVICE uint64_t a_descriptor(int step) const { return k_major(smem, kRows, step); }
  POD_DEVICE uint64_t b_descriptor_k_major(int step) const {
    return k_major(smem_b(), kColumnsKMajor, step);
  }
  POD_DEVICE uint64_t a_descriptor_m_major(int step) const { return n_major(smem, step); }
  POD_DEVICE uint64_t b_descriptor_n_major(int step) const { return n_major(smem_b(), step); }
  POD_DEVICE int row(int i) const {
    return thread / kWarpSize * 16 + thread % kWarpSize / 4 + i / 2 * 8;
  }
  POD_DEVICE int column(int n, int i) const { return 8 * n + thread % 4 * 2 + i % 2; }

  // Element `element` of row `row` of a tile of `rows` rows.
  POD_DEVICE static void put(uint8_t* tile, int rows, int row, int element, uint16_t bits) {
    uint8_t* panel = tile + element / kElements * rows * kRowBytes;
    const int key = kRowBytes == 128 ? row % 8 : row / 2 % 4;
    const int chunk = element % kElements / 8 ^ key;
    *reinterpret_cast<uint16_t*>(panel + row * kRowBytes + chunk * 16 + element % 8 * 2) = bits;
  }

 private:
  POD_DEVICE static uint64_t k_major(const uint8_t* tile, int rows, int step) {
    const int element = 16 * step, panel = element / kElements;
    const uint32_t at = panel * rows * kRowBytes + element % kElements * 2;
    return ptx::wgmma_descriptor<kRowBytes>(ptx::smem_address(tile) + at, 16, kAtom);
  }
  POD_DEVICE static uint64_t n_major(const uint8_t* tile, int step) {
    return ptx::wgmma_descriptor<kRowBytes>(ptx::smem_address(tile) + step * 2 * kAtom,
                                            kDepth * kRowBytes, kAtom);
  }
};

template <typename T>
constexpr int kTypeIndex = 0;
template <>
constexpr int kTypeIndex<fp16> = 1;

template <typename T, int kRowBytes = 128>
POD_DEVICE TilePair<kRowBytes> tile_pair(const ConformanceArguments& a, uint8_t* smem, int tile) {
  constexpr int kType = kTypeIndex<T>;
  return {reinterpret_cast<const uint16_t*>(a.a[kType]) + tile * kRows * kDepth,
          reinterpret_cast<const uint16_t*>(a.b[kType]) + tile * kDepth * kMaxColumns,
          a.c + tile * kRows * kMaxColumns, smem + (1024 - ptx::smem_address(smem) % 1024) % 1024,
          ptx::thread_index()};
}

// A CTA for each pair of tiles, of bf16 and then of fp16.
template <typename Kernel>
ptx::Error launch_tiles(const ConformanceArguments& a, Kernel of_bf16, Kernel of_fp16) {
  const ptx::Error code = ptx::launch(of_bf16, kTiles, kThreads, kWgmmaSmem, a.stream, a);
  return code ? code : ptx::launch(of_fp16, kTiles, kThreads, kWgmmaSmem, a.stream, a);
}

}  // namespace
}  // namespace pod
