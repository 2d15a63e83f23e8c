// warpgroup.cuh: the two matrix products of attention on a warpgroup (four warps, 64 query rows),
// issued and not waited for. Accumulators and weights have the layout of products.cuh: a warp owns
// 16 of the 64 rows.
//
// Between an issue and the wait for it, neither the accumulators nor the weights may be touched;
// the caller fences before the first issue and commits after the last.
#pragma once

#include "pod/layout/panels.cuh"
#include "pod/mma/products.cuh"

namespace pod::mma {

// s[64, kColumns * 8] = Q K^T; descriptors by Panels::columns_descriptor.
template <typename T, int D, class QueryPanels, class KeyPanels, int kColumns>
POD_DEVICE void issue_scores(float (&s)[kColumns][4], uint64_t q, uint64_t k) {
  POD_UNROLL
  for (int i = 0; i < D / 16; ++i) {
    ptx::wgmma_ss<T, kColumns>(s, QueryPanels::columns_at(q, i), KeyPanels::columns_at(k, i),
                               i > 0);
  }
}

// o[64, D] += P V; the descriptor by Panels::rows_descriptor.
template <typename T, int D, class ValuePanels, int kColumns>
POD_DEVICE void issue_values(float (&o)[D / 8][4], const Weights<1, kColumns>& p, uint64_t v) {
  POD_UNROLL
  for (int i = 0; i < kColumns / 2; ++i) {
    ptx::wgmma_rs<T, D / 8>(o, p.a[0][i], ValuePanels::rows_at(v, i));
  }
}

}  // namespace pod::mma
