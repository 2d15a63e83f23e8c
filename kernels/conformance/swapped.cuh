// swapped.cuh: runs the wrappers that products with swapped operands need, where
// POD_CONFORMANCE_WGMMA says that the target has them: few columns, A M-major, stmatrix.
//
// CTA    one warpgroup and one pair of tiles
// Smem   A [64, 64] K-major, then M-major | B [64, 16], of which products also take 8 columns
#pragma once

#include "pod/ptx/ldmatrix.cuh"
#include "wgmma.cuh"

namespace pod {
namespace {

constexpr int kFewColumns = 16;

template <class Pair>
POD_DEVICE void store_a_m_major(const Pair& p) {
  for (int i = p.thread; i < kRows * kDepth; i += kThreads) {
    p.put(p.smem, kDepth, i % kDepth, i / kDepth, p.a[i]);
  }
}

// D += A B, A M-major.
template <typename T, int kColumns, class Pair>
POD_DEVICE void dump_transposed(uint32_t* out, const Pair& p, int tile) {
  float d[kColumns][4];
  start_from_c(d, p);
  ptx::hold(d);
  ptx::wgmma_fence();
  POD_UNROLL
  for (int step = 0; step < kDepth / 16; ++step) {
    ptx::wgmma_ss_transposed<T>(d, p.a_descriptor_m_major(step), p.b_descriptor_k_major(step));
  }
  finish(d);
  dump_sums(out + tile * kRows * 8 * kColumns, d, p);
}

template <typename T>
POD_GLOBAL(kThreads, 1)
swapped_kernel(const POD_GRID_CONSTANT ConformanceArguments a) {
  POD_DYNAMIC_SMEM(smem);
  constexpr bool is_fp16 = kTypeIndex<T> == 1;
  const int tile = ptx::cta_index();
  const auto p = tile_pair<T>(a, smem, tile);
  store_a(p);
  store_b_k_major(p, kFewColumns);
  publish();
  dump_ss<T, 1>(section<is_fp16 ? kSsFp16N8 : kSsBf16N8>(a), p, tile);
  dump_ss<T, 2>(section<is_fp16 ? kSsFp16N16 : kSsBf16N16>(a), p, tile);
  ptx::sync_cta();
  store_a_m_major(p);
  publish();
  dump_transposed<T, 1>(section<is_fp16 ? kTransposedFp16N8 : kTransposedBf16N8>(a), p, tile);
  dump_transposed<T, 2>(section<is_fp16 ? kTransposedFp16N16 : kTransposedBf16N16>(a), p, tile);
}

// A warp's four matrices into rows at permuted places, then all 512 bytes; and two into 256, by the
// addresses of half a warp.
template <int threads>
POD_GLOBAL(threads, 1)
stmatrix_kernel(const POD_GRID_CONSTANT ConformanceArguments a) {
  POD_DYNAMIC_SMEM(bytes);
  uint32_t* smem = reinterpret_cast<uint32_t*>(bytes);
  const int thread = ptx::thread_index();
  uint32_t tiles[4];
  POD_UNROLL
  for (int i = 0; i < 4; ++i) tiles[i] = a.words[i * threads + thread];
  ptx::stmatrix_x4_trans(ptx::smem_address(smem + (thread * 5 + 3) % threads * 4), tiles);
  ptx::sync_warp();
  POD_UNROLL
  for (int i = 0; i < 4; ++i) {
    section<kStmatrixX4Trans>(a)[i * threads + thread] = smem[i * threads + thread];
  }
  ptx::sync_warp();
  constexpr int half = threads / 2;
  const int place = thread < half ? (thread * 5 + 3) % half : thread;
  ptx::stmatrix_x2_trans(ptx::smem_address(smem + place * 4), {tiles[0], tiles[1]});
  ptx::sync_warp();
  POD_UNROLL
  for (int i = 0; i < 2; ++i) {
    section<kStmatrixX2Trans>(a)[i * threads + thread] = smem[i * threads + thread];
  }
}

// Nothing without wgmma: what is not instantiated is not compiled.
template <int tiles = kTiles>
ptx::Error launch_swapped(const ConformanceArguments& a) {
  ptx::Error code{};
  if constexpr (tiles > 0) {
    code = launch_tiles(a, swapped_kernel<bf16>, swapped_kernel<fp16>);
    if (!code) code = ptx::launch(stmatrix_kernel<kWarpSize>, 1, kWarpSize, 512, a.stream, a);
  }
  return code;
}

}  // namespace
}  // namespace pod
