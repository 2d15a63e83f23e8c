// box_copy.cuh: boxes of a paged pool into shared memory, by the copy engine (sm_90).
//
// A map (tensor_map.cuh) says what the pool looks like and how large a box is: 64 columns of one
// head in some slots of one page. Row r of a box, 128 bytes, lands at smem + 128 * r with the
// 128-byte swizzle that wgmma.cuh reads, so rows of several boxes, one after the other, are a
// panel.
//
// One thread issues; the bytes are counted by an mbarrier of which it, or another thread, has said
// that they will come. Who waits for that phase sees them, with either kind of access: no proxy
// fence. What is overwritten must have been read: wait for an mbarrier at which the readers
// arrived. What threads wrote there since needs their fence_proxy_async() and a barrier before.
#pragma once

#include "pod/ptx/tensor_map.cuh"

namespace pod::ptx {

// What L2 keeps first and last: encodings of createpolicy with a fraction of 1, as CUTLASS's cache
// hints have them.
constexpr uint64_t kEvictNormal = 0x1000000000000000, kEvictFirst = 0x12F0000000000000,
                   kEvictLast = 0x14F0000000000000;

#ifdef __CUDACC__

// cp.async.bulk.tensor: the map's box at (column, head, slot, page), all of it inside of the pool,
// to `smem`, a multiple of 1024. `map` is a kernel's parameter (POD_GRID_CONSTANT).
POD_DEVICE void copy_box(uint32_t smem, const TensorMap& map, int column, int head, int slot,
                         int page, uint32_t barrier) {
  asm volatile(
      "cp.async.bulk.tensor.4d.shared::cluster.global.tile.mbarrier::complete_tx::bytes "
      "[%0], [%1, {%3, %4, %5, %6}], [%2];" ::"r"(smem),
      "l"(&map), "r"(barrier), "r"(column), "r"(head), "r"(slot), "r"(page)
      : "memory");
}

// The same with one of the policies above.
POD_DEVICE void copy_box(uint32_t smem, const TensorMap& map, int column, int head, int slot,
                         int page, uint32_t barrier, uint64_t policy) {
  asm volatile(
      "cp.async.bulk.tensor.4d.shared::cluster.global.tile.mbarrier::complete_tx::bytes"
      ".L2::cache_hint [%0], [%1, {%3, %4, %5, %6}], [%2], %7;" ::"r"(smem),
      "l"(&map), "r"(barrier), "r"(column), "r"(head), "r"(slot), "r"(page), "l"(policy)
      : "memory");
}

// prefetch.tensormap: brings the map itself near, before the first box.
POD_DEVICE void prefetch_map(const TensorMap& map) {
  asm volatile("prefetch.tensormap [%0];" ::"l"(&map) : "memory");
}

#else

inline void copy_box(uint32_t smem, const TensorMap& map, int column, int head, int slot, int page,
                     uint32_t barrier) {
  emulator::copy_box(smem, map, {column, head, slot, page}, barrier);
}
inline void copy_box(uint32_t smem, const TensorMap& map, int column, int head, int slot, int page,
                     uint32_t barrier, uint64_t policy) {
  emulator::require_policy(policy, {kEvictNormal, kEvictFirst, kEvictLast});
  emulator::copy_box(smem, map, {column, head, slot, page}, barrier);
}
inline void prefetch_map(const TensorMap& map) { emulator::prefetch_map(map); }

#endif

}  // namespace pod::ptx
