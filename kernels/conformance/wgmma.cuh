// wgmma.cuh: runs the wrappers of ptx/wgmma.cuh, where POD_CONFORMANCE_WGMMA says that the target
// has them.
//
// CTA    one warpgroup and one pair of tiles
// Smem   as in tile_pair.cuh, A K-major
#pragma once

#include "pod/ptx/async_copy.cuh"
#include "pod/ptx/launch.cuh"
#include "pod/ptx/sync.cuh"
#include "pod/ptx/wgmma.cuh"
#include "tile_pair.cuh"

namespace pod {
namespace {

POD_DEVICE void publish() {
  ptx::fence_proxy_async();
  ptx::sync_cta();
}

template <class Pair>
POD_DEVICE void store_a(const Pair& p) {
  for (int i = p.thread; i < kRows * kDepth; i += kThreads) {
    p.put(p.smem, kRows, i / kDepth, i % kDepth, p.a[i]);
  }
}

template <class Pair>
POD_DEVICE void store_b_k_major(const Pair& p, int columns) {
  for (int i = p.thread; i < kDepth * columns; i += kThreads) {
    const int k = i / columns, n = i % columns;
    p.put(p.smem_b(), kColumnsKMajor, n, k, p.b[k * kMaxColumns + n]);
  }
}

template <class Pair>
POD_DEVICE void store_b_n_major(const Pair& p) {
  for (int i = p.thread; i < kDepth * kMaxColumns; i += kThreads) {
    const int k = i / kMaxColumns, n = i % kMaxColumns;
    p.put(p.smem_b(), kDepth, k, n, p.b[i]);
  }
}

template <int kColumns, class Pair>
POD_DEVICE void start_from_c(float (&d)[kColumns][4], const Pair& p) {
  POD_UNROLL
  for (int n = 0; n < kColumns; ++n) {
    POD_UNROLL
    for (int i = 0; i < 4; ++i) d[n][i] = p.c[p.row(i) * kMaxColumns + p.column(n, i)];
  }
}

// out [64, 8 * kColumns]
template <int kColumns, class Pair>
POD_DEVICE void dump_sums(uint32_t* out, const float (&d)[kColumns][4], const Pair& p) {
  POD_UNROLL
  for (int n = 0; n < kColumns; ++n) {
    POD_UNROLL
    for (int i = 0; i < 4; ++i) out[p.row(i) * 8 * kColumns + p.column(n, i)] = bits_of(d[n][i]);
  }
}

template <int kColumns>
POD_DEVICE void finish(float (&d)[kColumns][4]) {
  ptx::wgmma_commit();
  ptx::wgmma_wait<0>();
  ptx::hold(d);
}

template <typename T, int kColumns, class Pair>
POD_DEVICE void issue_ss(float (&d)[kColumns][4], const Pair& p, bool accumulate) {
  POD_UNROLL
  for (int step = 0; step < kDepth / 16; ++step) {
    ptx::wgmma_ss<T>(d, p.a_descriptor(step), p.b_descriptor_k_major(step), accumulate || step > 0);
  }
}

// Odd pairs start from nothing: what d holds must not matter then.
template <typename T, int kColumns, class Pair>
POD_DEVICE void dump_ss(uint32_t* out, const Pair& p, int tile) {
  float d[kColumns][4];
  start_from_c(d, p);
  ptx::hold(d);
  ptx::wgmma_fence();
  issue_ss<T>(d, p, tile % 2 == 0);
  finish(d);
  dump_sums(out + tile * kRows * 8 * kColumns, d, p);
}

// Fragments of A in registers, all steps along k.
struct FragmentsOfA {
  uint32_t words[kDepth / 16][4];

  template <class Pair>
  POD_DEVICE explicit FragmentsOfA(const Pair& p) {
    const uint32_t* pairs = reinterpret_cast<const uint32_t*>(p.a);
    POD_UNROLL
    for (int step = 0; step < kDepth / 16; ++step) {
      POD_UNROLL
      for (int i = 0; i < 4; ++i) {
        const int k = 16 * step + p.thread % 4 * 2 + i / 2 * 8;
        words[step][i] = pairs[(p.row(i % 2 * 2) * kDepth + k) / 2];
      }
    }
  }
};

template <typename T, int kColumns, class Pair>
POD_DEVICE void issue_rs(float (&d)[kColumns][4], const FragmentsOfA& a, const Pair& p) {
  POD_UNROLL
  for (int step = 0; step < kDepth / 16; ++step) {
    ptx::wgmma_rs<T>(d, a.words[step], p.b_descriptor_n_major(step));
  }
}

template <typename T, int kColumns, class Pair>
POD_DEVICE void dump_rs(uint32_t* out, const Pair& p, int tile) {
  float d[kColumns][4];
  start_from_c(d, p);
  const FragmentsOfA a(p);
  ptx::hold(d);
  ptx::wgmma_fence();
  issue_rs<T>(d, a, p);
  finish(d);
  dump_sums(out + tile * kRows * 8 * kColumns, d, p);
}

POD_DEVICE void dump_descriptors(const ConformanceArguments& a, int thread) {
  const uint32_t number = static_cast<uint32_t>(thread);
  const auto dump = [&](uint32_t* out, uint64_t descriptor) {
    out[2 * thread] = static_cast<uint32_t>(descriptor);
    out[2 * thread + 1] = static_cast<uint32_t>(descriptor >> 32);
  };
  const uint32_t start = number * 2000 & ~15u, leading = number * 1040;
  const uint32_t stride = 0x3fff0 - number * 16;
  dump(section<kWgmmaDescriptor>(a), ptx::wgmma_descriptor<128>(start, leading, stride));
  dump(section<kWgmmaDescriptorRows64>(a), ptx::wgmma_descriptor<64>(start, leading, stride));
  float d[2][4];
  for (int i = 0; i < 8; ++i) d[i / 4][i % 4] = float_of(a.words[8 * thread + i]);
  ptx::hold(d);
  for (int i = 0; i < 8; ++i) section<kHold>(a)[8 * thread + i] = bits_of(d[i / 4][i % 4]);
}

// Copies that only the proxy fence makes visible, into a buffer that is used again and again.
POD_DEVICE void dump_copied(const ConformanceArguments& a, const TilePair<128>& p) {
  float d[8][4];
  start_from_c(d, p);
  const FragmentsOfA fragments(p);
  for (int panel = 0; panel < kMaxColumns / 64; ++panel) {
    for (int i = p.thread; i < kDepth * 8; i += kThreads) {
      const int k = i / 8, chunk = i % 8;
      const uint32_t target = ptx::smem_address(p.smem_b()) + k * 128 + (chunk ^ k % 8) * 16;
      ptx::cp_async_16(target, p.b + k * kMaxColumns + panel * 64 + chunk * 8, true);
    }
    ptx::cp_async_commit();
    ptx::cp_async_wait<0>();
    publish();
    ptx::hold(d);
    ptx::wgmma_fence();
    issue_rs<bf16>(d, fragments, p);
    finish(d);
    ptx::sync_cta();
  }
  dump_sums(section<kFenceProxyAsync>(a), d, p);
}

// Accumulators that other instructions change before each fence.
POD_DEVICE void dump_fenced(const ConformanceArguments& a, const TilePair<128>& p) {
  float d[8][4];
  start_from_c(d, p);
  for (int round = 0; round < 4; ++round) {
    POD_UNROLL
    for (int n = 0; n < 8; ++n) {
      POD_UNROLL
      for (int i = 0; i < 4; ++i) d[n][i] = d[n][i] * 0.5f + 1.f;
    }
    ptx::hold(d);
    ptx::wgmma_fence();
    issue_ss<bf16>(d, p, true);
    finish(d);
  }
  dump_sums(section<kWgmmaFence>(a), d, p);
}

// Two groups in flight: the older one's sums after a wait for all but one, then the newer one's.
POD_DEVICE void dump_groups(const ConformanceArguments& a, const TilePair<128>& p) {
  float older[8][4], newer[8][4];
  start_from_c(newer, p);
  ptx::hold(older);
  ptx::hold(newer);
  ptx::wgmma_fence();
  issue_ss<bf16>(older, p, false);
  ptx::wgmma_commit();
  issue_ss<bf16>(newer, p, true);
  ptx::wgmma_commit();
  ptx::wgmma_wait<1>();
  ptx::hold(older);
  dump_sums(section<kWgmmaWait>(a), older, p);
  ptx::wgmma_wait<0>();
  ptx::hold(newer);
  dump_sums(section<kWgmmaCommit>(a), newer, p);
}

template <typename T>
POD_GLOBAL(kThreads, 1)
products_kernel(const POD_GRID_CONSTANT ConformanceArguments a) {
  POD_DYNAMIC_SMEM(smem);
  constexpr bool is_fp16 = kTypeIndex<T> == 1;
  const int tile = ptx::cta_index();
  const auto p = tile_pair<T>(a, smem, tile);
  store_a(p);
  store_b_k_major(p, 128);
  publish();
  dump_ss<T, 8>(section<is_fp16 ? kSsFp16N64 : kSsBf16N64>(a), p, tile);
  dump_ss<T, 12>(section<is_fp16 ? kSsFp16N96 : kSsBf16N96>(a), p, tile);
  dump_ss<T, 16>(section<is_fp16 ? kSsFp16N128 : kSsBf16N128>(a), p, tile);
  ptx::sync_cta();
  store_b_n_major(p);
  publish();
  dump_rs<T, 8>(section<is_fp16 ? kRsFp16N64 : kRsBf16N64>(a), p, tile);
  dump_rs<T, 16>(section<is_fp16 ? kRsFp16N128 : kRsBf16N128>(a), p, tile);
  dump_rs<T, 32>(section<is_fp16 ? kRsFp16N256 : kRsBf16N256>(a), p, tile);
}

template <typename T>
POD_GLOBAL(kThreads, 1)
order_kernel(const POD_GRID_CONSTANT ConformanceArguments a) {
  POD_DYNAMIC_SMEM(smem);
  const auto p = tile_pair<T>(a, smem, 0);
  dump_descriptors(a, p.thread);
  store_a(p);
  store_b_k_major(p, 64);
  publish();
  dump_fenced(a, p);
  dump_groups(a, p);
  ptx::sync_cta();
  dump_copied(a, p);
}

// Nothing without wgmma: what is not instantiated is not compiled.
template <int tiles = kTiles>
ptx::Error launch_wgmma(const ConformanceArguments& a) {
  ptx::Error code{};
  if constexpr (tiles > 0) {
    code = launch_tiles(a, products_kernel<bf16>, products_kernel<fp16>);
    if (!code) code = ptx::launch(order_kernel<bf16>, 1, kThreads, kWgmmaSmem, a.stream, a);
  }
  return code;
}

}  // namespace
}  // namespace pod
