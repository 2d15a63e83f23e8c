// columns.cuh: the two matrix products of attention on a warpgroup with operands swapped: 64 keys,
// or 64 columns of the head, are the rows of a product, 8 * kTiles packed query rows its columns.
// Issued and not waited for, as warpgroup.cuh has it.
#pragma once

#include "pod/layout/columns.cuh"
#include "pod/layout/panels.cuh"
#include "pod/ptx/ldmatrix.cuh"

namespace pod::mma {

// s[kBlocks * 64, 8 * kTiles] = K Q^T; descriptors by Panels::columns_descriptor.
template <typename T, int D, class KeyPanels, class QueryPanels, int kBlocks, int kTiles>
POD_DEVICE void issue_column_scores(float (&s)[kBlocks][kTiles][4], uint64_t k, uint64_t q) {
  POD_UNROLL
  for (int block = 0; block < kBlocks; ++block) {
    POD_UNROLL
    for (int i = 0; i < D / 16; ++i) {
      const uint64_t keys =
          KeyPanels::rows_at(KeyPanels::columns_at(k, i), block * ColumnFragment::kBlock / 16);
      ptx::wgmma_ss<T>(s[block], keys, QueryPanels::columns_at(q, i), i > 0);
    }
  }
}

// o[D, 8 * kTiles] += V^T P^T of kRows keys; v by Panels::rows_descriptor, p by columns_descriptor.
template <typename T, int D, int kRows, class ValuePanels, class WeightPanels, int kBlocks,
          int kTiles>
POD_DEVICE void issue_column_values(float (&o)[kBlocks][kTiles][4], uint64_t v, uint64_t p) {
  POD_UNROLL
  for (int i = 0; i < kRows / 16; ++i) {
    POD_UNROLL
    for (int block = 0; block < kBlocks; ++block) {
      const uint64_t values = ValuePanels::columns_at(ValuePanels::rows_at(v, i),
                                                      ColumnFragment::first_column(D, block) / 16);
      ptx::wgmma_ss_transposed<T>(o[block], values, WeightPanels::columns_at(p, i));
    }
  }
}

// Weights of block `block` into panels [8 * kTiles, keys], rounded; `thread` of the warpgroup.
template <typename T, class WeightPanels, int kTiles>
POD_DEVICE void store_weights(const float (&p)[kTiles][4], uint32_t panels, int block, int thread) {
  static_assert(kTiles == 1 || kTiles == 2, "stmatrix stores two or four matrices");
  constexpr int kMatrices = kTiles * Fragment::kHalves;
  const int lane = thread % kWarpSize, warp = thread / kWarpSize;
  const int chunk = block * 8 + warp * 2 + lane / 8 % 2;
  uint32_t matrices[kMatrices];
  POD_UNROLL
  for (int i = 0; i < kMatrices; ++i) {
    const int tile = i / 2, half = i % 2;
    matrices[i] = ptx::pack2<T>(p[tile][Fragment::at(half, 0)], p[tile][Fragment::at(half, 1)]);
  }
  if constexpr (kTiles == 2) {
    const int row = lane / 16 * 8 + lane % 8;
    ptx::stmatrix_x4_trans(WeightPanels::chunk_address(panels, row, chunk), matrices);
  } else {
    ptx::stmatrix_x2_trans(WeightPanels::chunk_address(panels, lane % 8, chunk), matrices);
  }
}

}  // namespace pod::mma
