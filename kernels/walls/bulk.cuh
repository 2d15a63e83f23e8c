// bulk.cuh: copies of the copy engine that only measurements use, and a clock (sm_90).
//
// One instruction per function, as in pod/ptx.
#pragma once

#include <cuda.h>

#include "pod/ptx/async_copy.cuh"
#include "pod/ptx/box_copy.cuh"
#include "pod/ptx/mbarrier.cuh"
#include "pod/ptx/platform.cuh"

namespace pod::walls {

using ptx::kEvictNormal;
using ptx::mbarrier_arrive, ptx::mbarrier_expect, ptx::mbarrier_init, ptx::mbarrier_publish;

// cp.async.bulk: a run of bytes, a multiple of 16 at multiples of 16.
POD_DEVICE void copy_bulk(uint32_t smem, const void* gmem, uint32_t bytes, uint32_t barrier,
                          uint64_t policy) {
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint "
      "[%0], [%1], %2, [%3], %4;" ::"r"(smem),
      "l"(gmem), "r"(bytes), "r"(barrier), "l"(policy)
      : "memory");
}

// cp.async.bulk.tensor: the map's box from (column, row) on.
POD_DEVICE void copy_box(uint32_t smem, const CUtensorMap* map, int column, int row,
                         uint32_t barrier, uint64_t policy) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint "
      "[%0], [%1, {%3, %4}], [%2], %5;" ::"r"(smem),
      "l"(map), "r"(barrier), "r"(column), "r"(row), "l"(policy)
      : "memory");
}

// cp.async of 16 bytes with a policy for L2.
POD_DEVICE void copy_16(uint32_t smem, const void* gmem, uint64_t policy) {
  asm volatile("cp.async.cg.shared.global.L2::cache_hint [%0], [%1], 16, %2;" ::"r"(smem),
               "l"(gmem), "l"(policy)
               : "memory");
}

POD_DEVICE long long clock() {
  long long cycles;
  asm volatile("mov.u64 %0, %%clock64;" : "=l"(cycles));
  return cycles;
}

// %clock_hi: counts 2^32 cycles of the SM, more than two seconds.
POD_DEVICE uint32_t clock_high() {
  uint32_t high;
  asm volatile("mov.u32 %0, %%clock_hi;" : "=r"(high));
  return high;
}

// mbarrier.try_wait.parity: whether the phase of this parity has ended; false after a while.
POD_DEVICE bool mbarrier_try(uint32_t barrier, uint32_t parity) {
  uint32_t ended;
  asm volatile(
      "{ .reg .pred p;\n"
      "mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2;\n"
      "selp.u32 %0, 1, 0, p; }"
      : "=r"(ended)
      : "r"(barrier), "r"(parity)
      : "memory");
  return ended;
}

// Until the phase of this parity has ended. Launches take milliseconds: who waits for seconds waits
// for ever, so the launch fails instead.
POD_DEVICE void mbarrier_wait(uint32_t barrier, uint32_t parity) {
  if (mbarrier_try(barrier, parity)) return;
  const uint32_t began = clock_high();
  while (!mbarrier_try(barrier, parity)) {
    if (clock_high() - began > 1) asm volatile("trap;");
  }
}

}  // namespace pod::walls
