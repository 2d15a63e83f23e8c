// columns.cuh: the two matrix products of attention on a warpgroup with operands swapped: 64 keys,
// or 64 columns of the head, are the rows of a product, 16 packed query rows its columns. Issued
// and not waited for, as warpgroup.cuh has it.
#pragma once

#include "pod/layout/columns.cuh"
#include "pod/layout/panels.cuh"
#include "pod/ptx/ldmatrix.cuh"

namespace pod::mma {

// s[kBlocks * 64, 16] = K Q^T; descriptors by Panels::columns_descriptor.
template <typename T, int D, class KeyPanels, class QueryPanels, int kBlocks>
POD_DEVICE void issue_column_scores(float (&s)[kBlocks][ColumnFragment::kTiles][4], uint64_t k,
                                    uint64_t q) {
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

// o[D, 16] += V^T P^T of kRows keys; v by Panels::rows_descriptor, p by columns_descriptor.
template <typename T, int kRows, class ValuePanels, class WeightPanels, int kBlocks>
POD_DEVICE void issue_column_values(float (&o)[kBlocks][ColumnFragment::kTiles][4], uint64_t v,
                                    uint64_t p) {
  POD_UNROLL
  for (int i = 0; i < kRows / 16; ++i) {
    POD_UNROLL
    for (int block = 0; block < kBlocks; ++block) {
      const uint64_t values = ValuePanels::columns_at(ValuePanels::rows_at(v, i), 4 * block);
      ptx::wgmma_ss_transposed<T>(o[block], values, WeightPanels::columns_at(p, i));
    }
  }
}

// Weights of block `block` into panels [16, keys], rounded; `thread` of the warpgroup.
template <typename T, class WeightPanels>
POD_DEVICE void store_weights(const float (&p)[ColumnFragment::kTiles][4], uint32_t panels,
                              int block, int thread) {
  const int lane = thread % kWarpSize, warp = thread / kWarpSize;
  const int row = lane / 16 * 8 + lane % 8;
  const int chunk = block * 8 + warp * 2 + lane / 8 % 2;
  uint32_t tiles[4];
  POD_UNROLL
  for (int i = 0; i < 4; ++i) {
    const int tile = i / 2, half = i % 2;
    tiles[i] = ptx::pack2<T>(p[tile][Fragment::at(half, 0)], p[tile][Fragment::at(half, 1)]);
  }
  ptx::stmatrix_x4_trans(WeightPanels::chunk_address(panels, row, chunk), tiles);
}

}  // namespace pod::mma
