// stamp.cuh: when a captured graph gets to a place, for the traces of its replays.
//
// Events inside a graph count as pending from the moment that its next replay is queued, which
// under overlapped scheduling is before they can be read. A stamp goes to the row of a ring that
// the replayed plan names, so a replay overwrites nothing that is still to be read.
//
// CTA     one warp, of which one lane writes
// Out     ring [slots, width], %globaltimer in ns at `index` of row plan->stamp - 1
#pragma once

#include "pod/arguments.h"
#include "pod/ptx/sync.cuh"

namespace pod {

struct StampArguments {
  const PlanHeader* plan;
  uint64_t* ring;
  int width, index;
};

POD_GLOBAL(kWarpSize, 1)
stamp_kernel(const POD_GRID_CONSTANT StampArguments a) {
  if (ptx::thread_index() != 0 || a.plan->stamp == 0) return;
  a.ring[int64_t{a.plan->stamp - 1} * a.width + a.index] = ptx::globaltimer();
}

}  // namespace pod
