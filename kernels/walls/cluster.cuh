// cluster.cuh: CTAs of a cluster, which reach each other's shared memory, in instructions that only
// measurements use (sm_90).
//
// Shared memory of a cluster has addresses of its own: at_rank() gives that of the same place in
// another CTA, for the functions here that take one.
#pragma once

#include "bulk.cuh"

namespace pod::walls {

// %cluster_ctarank: 0 .. CTAs of the cluster - 1.
POD_DEVICE uint32_t cluster_rank() {
  uint32_t rank;
  asm volatile("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
  return rank;
}

// mapa: a place in shared memory, as it is in the CTA of this rank.
POD_DEVICE uint32_t at_rank(uint32_t smem, uint32_t rank) {
  uint32_t there;
  asm volatile("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(there) : "r"(smem), "r"(rank));
  return there;
}

// barrier.cluster: all threads of all CTAs; what was written before is seen after.
POD_DEVICE void sync_cluster() {
  asm volatile(
      "barrier.cluster.arrive.release;\n"
      "barrier.cluster.wait.acquire;" ::
          : "memory");
}

// mbarrier.arrive at a barrier of any CTA of the cluster. Of what the thread wrote it says nothing
// to other CTAs: release.cluster would wait for all of its memory accesses.
POD_DEVICE void arrive_at(uint32_t there) {
  asm volatile("mbarrier.arrive.shared::cluster.b64 _, [%0];" ::"r"(there) : "memory");
}

// st of a word into any CTA of the cluster.
POD_DEVICE void store_at(uint32_t there, int value) {
  asm volatile("st.relaxed.cluster.shared::cluster.u32 [%0], %1;" ::"r"(there), "r"(value)
               : "memory");
}

// cp.async.bulk from this CTA's shared memory to another's, whose barrier counts the bytes.
POD_DEVICE void forward(uint32_t there, uint32_t smem, uint32_t bytes, uint32_t barrier_there) {
  asm volatile(
      "cp.async.bulk.shared::cluster.shared::cta.mbarrier::complete_tx::bytes "
      "[%0], [%1], %2, [%3];" ::"r"(there),
      "r"(smem), "r"(bytes), "r"(barrier_there)
      : "memory");
}

// copy_box() into the same place of each CTA whose bit is set; each one's barrier counts it.
POD_DEVICE void copy_box_to_all(uint32_t smem, const CUtensorMap* map, int column, int row,
                                uint32_t barrier, uint16_t ranks, uint64_t policy) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes"
      ".multicast::cluster.L2::cache_hint [%0], [%1, {%3, %4}], [%2], %5, %6;" ::"r"(smem),
      "l"(map), "r"(barrier), "r"(column), "r"(row), "h"(ranks), "l"(policy)
      : "memory");
}

}  // namespace pod::walls
