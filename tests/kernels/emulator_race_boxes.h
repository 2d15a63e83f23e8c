// emulator_race_boxes.h: what kernels for ThreadSanitizer share: a tile, and boxes that fill it.
#pragma once

#include "pod/ptx/async_copy.cuh"
#include "pod/ptx/box_copy.cuh"
#include "pod/ptx/mbarrier.cuh"
#include "pod/ptx/sync.cuh"

namespace race_boxes {

using namespace pod;
using ptx::thread_index;

constexpr int kThreads = 128;
constexpr uint32_t kTileBytes = 64 * 128;
alignas(16) inline uint16_t pool[8 * 64];

inline void use(int value) { [[maybe_unused]] volatile int local = value; }

inline uint8_t* tile() {
  POD_DYNAMIC_SMEM(smem);
  return smem + (1024 - ptx::smem_address(smem) % 1024) % 1024;
}

struct Barriers {
  uint64_t full, free;
};

// Two mbarriers: thread 0 tells of a box, the others that they have read it.
inline Barriers& start_barriers() {
  POD_STATIC_SMEM(Barriers, barriers);
  if (thread_index() == 0) {
    ptx::mbarrier_init(ptx::smem_address(&barriers.full), 1);
    ptx::mbarrier_init(ptx::smem_address(&barriers.free), kThreads);
    ptx::mbarrier_publish();
  }
  ptx::sync_cta();
  return barriers;
}

// The eight rows of `pool` to the first of the tile.
inline void issue_box(Barriers& barriers) {
  ptx::TensorMap map;
  ptx::encode_boxes(&map, {pool, 1, 8, 1, 64, 1024, 128, 128}, 8);
  ptx::mbarrier_expect(ptx::smem_address(&barriers.full), 1024);
  ptx::copy_box(ptx::smem_address(tile()), map, 0, 0, 0, 0, ptx::smem_address(&barriers.full));
}

// Boxes that the whole CTA reads, one after the other into one place.
inline void read_boxes(uint32_t rounds) {
  Barriers& barriers = start_barriers();
  for (uint32_t round = 0; round < rounds; ++round) {
    if (thread_index() == 0) {
      if (round > 0) ptx::mbarrier_wait(ptx::smem_address(&barriers.free), round % 2 ^ 1);
      issue_box(barriers);
    }
    ptx::mbarrier_wait(ptx::smem_address(&barriers.full), round % 2);
    use(tile()[thread_index()]);
    ptx::mbarrier_arrive(ptx::smem_address(&barriers.free));
  }
}

}  // namespace race_boxes
