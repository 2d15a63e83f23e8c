// bulk.cuh: barriers in shared memory, and the copies that complete on them (sm_90).
//
// One instruction per function, as in pod/ptx; here because only measurements use them so far.
#pragma once

#include <cuda.h>

#include "pod/ptx/async_copy.cuh"
#include "pod/ptx/platform.cuh"

namespace pod::walls {

// What L2 keeps: encodings of createpolicy with a fraction of 1, as CUTLASS's cache hints have
// them.
constexpr uint64_t kEvictNormal = 0x1000000000000000, kEvictFirst = 0x12F0000000000000,
                   kEvictLast = 0x14F0000000000000;

POD_DEVICE void barrier_init(uint32_t barrier, int arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(arrivals) : "memory");
}

// Makes initialised barriers visible to the copy engine; a barrier of threads follows.
POD_DEVICE void barrier_publish() {
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}

POD_DEVICE void barrier_arrive(uint32_t barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory");
}

// Arrives, and lets the phase end only after so many bytes more.
POD_DEVICE void barrier_expect(uint32_t barrier, uint32_t bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes)
               : "memory");
}

// Waits for the end of the phase of this parity.
POD_DEVICE void barrier_wait(uint32_t barrier, uint32_t parity) {
  asm volatile(
      "{ .reg .pred p;\n"
      "wait: mbarrier.try_wait.parity.shared::cta.b64 p, [%0], %1;\n"
      "@p bra done;\n"
      "bra wait;\n"
      "done: }" ::"r"(barrier),
      "r"(parity)
      : "memory");
}

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

}  // namespace pod::walls
