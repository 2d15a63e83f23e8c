// scope.cuh: the warps that work on one item together.
#pragma once

#include "pod/ptx/sync.cuh"

namespace pod {

// Named barriers of a CTA. Prefill and decode items never share a CTA, so they share numbers;
// concurrent decode items take kItems, kItems + 1, ...
enum Barrier : int { kTicket = 0, kItems = 1 };

template <int kWarps>
struct Scope {
  static constexpr int kThreads = kWarps * kWarpSize;
  int barrier;
  int thread;  // 0 .. kThreads - 1

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
