// scope.cuh: the warps that work on one item together.
#pragma once

#include "pod/layout/barriers.cuh"
#include "pod/ptx/sync.cuh"

namespace pod {

template <int kWarps>
struct Scope {
  static constexpr int kThreads = kWarps * kWarpSize;
  int barrier;  // item_barrier() of its place
  int thread;   // 0 .. kThreads - 1

  POD_DEVICE int warp() const { return thread >> 5; }
  POD_DEVICE int lane() const { return thread & 31; }

  // Shared-memory writes of the scope before it are seen by the scope after it.
  POD_DEVICE void sync() const {
    if constexpr (kWarps == 1) {
      ptx::sync_warp();
    } else {
      ptx::bar_sync(barrier, kThreads);
    }
  }
};

}  // namespace pod
