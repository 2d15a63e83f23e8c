// sync.cuh: shuffles, barriers, atomics and special registers.
#pragma once

#include "pod/ptx/platform.cuh"

namespace pod::ptx {

#ifdef __CUDACC__

// shfl.sync.bfly over the whole warp.
POD_DEVICE float shfl_xor(float value, int mask) { return __shfl_xor_sync(~0u, value, mask); }
POD_DEVICE uint32_t shfl_xor(uint32_t value, int mask) { return __shfl_xor_sync(~0u, value, mask); }

// shfl.sync.idx over the whole warp: the value of `lane`.
POD_DEVICE int shfl(int value, int lane) { return __shfl_sync(~0u, value, lane); }
POD_DEVICE float shfl(float value, int lane) { return __shfl_sync(~0u, value, lane); }

// The same within segments of `width` lanes, a power of two: the value of lane `index` of one's own
// segment.
template <int width>
POD_DEVICE int shfl_segment(int value, int index) {
  return __shfl_sync(~0u, value, index, width);
}

// vote.sync.any: whether some lane of the warp says so.
POD_DEVICE bool any(bool here) { return __any_sync(~0u, here); }

// Orders shared-memory accesses of one warp.
POD_DEVICE void sync_warp() { __syncwarp(); }

// bar.sync 0: all threads of the CTA.
POD_DEVICE void sync_cta() { __syncthreads(); }

// bar.sync id, threads: `threads` (a multiple of 32) threads of the CTA that name barrier `id`.
POD_DEVICE void bar_sync(int id, int threads) {
  asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
}

// bar.arrive id, threads: the warp counts at barrier `id` as in bar_sync() and goes on. What it
// wrote before is seen by those that bar_sync() there; it must not come again before the barrier
// opened.
POD_DEVICE void bar_arrive(int id, int threads) {
  asm volatile("bar.arrive %0, %1;" ::"r"(id), "r"(threads) : "memory");
}

// Relaxed, device scope; the old value.
POD_DEVICE int atomic_add(int* gmem, int value) { return atomicAdd(gmem, value); }

// %smid: ids may have gaps (PTX ISA), so bound-check before indexing.
POD_DEVICE uint32_t smid() {
  uint32_t id;
  asm volatile("mov.u32 %0, %%smid;" : "=r"(id));
  return id;
}

// %nsmid: may exceed the number of SMs, or on sm_90 fall short of it; for reports only.
POD_DEVICE uint32_t nsmid() {
  uint32_t count;
  asm volatile("mov.u32 %0, %%nsmid;" : "=r"(count));
  return count;
}

// %globaltimer, ns since an arbitrary start, the same on all SMs; its step may be 1 us or less.
POD_DEVICE uint64_t globaltimer() {
  uint64_t ns;
  asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(ns));
  return ns;
}

#else

inline float shfl_xor(float value, int mask) { return emulator::shfl_xor(value, mask); }
inline uint32_t shfl_xor(uint32_t value, int mask) { return emulator::shfl_xor(value, mask); }
inline int shfl(int value, int lane) { return emulator::shfl(value, lane); }
inline float shfl(float value, int lane) { return emulator::shfl(value, lane); }
template <int width>
inline int shfl_segment(int value, int index) {
  return emulator::shfl(value, (thread_index() & 31 & -width) + index);
}
inline bool any(bool here) {
  float count = here ? 1.f : 0.f;
  for (int mask = 1; mask < kWarpSize; mask *= 2) count += emulator::shfl_xor(count, mask);
  return count > 0.f;
}
inline void sync_warp() { emulator::sync_warp(); }
inline void sync_cta() { emulator::sync_cta(); }
inline void bar_sync(int id, int threads) { emulator::bar_sync(id, threads); }
inline void bar_arrive(int id, int threads) { emulator::bar_arrive(id, threads); }
inline int atomic_add(int* gmem, int value) { return emulator::atomic_add(gmem, value); }
inline uint32_t smid() { return emulator::smid(); }
inline uint32_t nsmid() { return emulator::nsmid(); }
inline uint64_t globaltimer() { return emulator::globaltimer(); }

#endif

}  // namespace pod::ptx
