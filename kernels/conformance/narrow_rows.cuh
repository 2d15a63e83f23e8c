// narrow_rows.cuh: runs the wrappers of ptx/wgmma.cuh on panels whose rows have 64 bytes, where
// POD_CONFORMANCE_WGMMA says that the target has them.
//
// CTA    one warpgroup and one pair of tiles
// Smem   as in tile_pair.cuh, A K-major, then M-major
#pragma once

#include "swapped.cuh"

namespace pod {
namespace {

template <typename T>
POD_GLOBAL(kThreads, 1)
narrow_rows_kernel(const POD_GRID_CONSTANT ConformanceArguments a) {
  POD_DYNAMIC_SMEM(smem);
  constexpr bool is_fp16 = kTypeIndex<T> == 1;
  const int tile = ptx::cta_index();
  const auto p = tile_pair<T, 64>(a, smem, tile);
  store_a(p);
  store_b_k_major(p, kColumnsKMajor);
  publish();
  dump_ss<T, 16>(section<is_fp16 ? kSsFp16Rows64 : kSsBf16Rows64>(a), p, tile);
  ptx::sync_cta();
  store_a_m_major(p);
  publish();
  dump_transposed<T, 2>(section<is_fp16 ? kTransposedFp16Rows64 : kTransposedBf16Rows64>(a), p,
                        tile);
  ptx::sync_cta();
  store_b_n_major(p);
  publish();
  dump_rs<T, 12>(section<is_fp16 ? kRsFp16Rows64 : kRsBf16Rows64>(a), p, tile);
}

// Nothing without wgmma: what is not instantiated is not compiled.
template <int tiles = kTiles>
ptx::Error launch_narrow_rows(const ConformanceArguments& a) {
  ptx::Error code{};
  if constexpr (tiles > 0) {
    code = launch_tiles(a, narrow_rows_kernel<bf16>, narrow_rows_kernel<fp16>);
  }
  return code;
}

}  // namespace
}  // namespace pod
