// barriers.cuh: the named barriers of a CTA, all of them.
//
// A CTA runs decode items, or one prefill item: whoever has the CTA has its numbers, so the ring
// of a prefill item on wgmma begins where items begin. Nobody there has a Scope to sync(). In a
// pair's CTA the warpgroup that only decodes does so at the first item's; the second is that of the
// copying one, then come those of the multiplying ones, which decode at these. Its ring has
// mbarriers.
#pragma once

#include "pod/config.h"
#include "pod/ptx/platform.cuh"

namespace pod {

enum class Barrier : int {
  kCta,      // all threads, by ptx::sync_cta(), before items run
  kItem,     // + place of the decode item in its CTA; a prefill item on mma has the first
  kEnd = 16  // what hardware has
};

// What is told through the ring of a prefill item on wgmma; each turn has a barrier per stage.
enum class Turn : int { kKeysLanded, kValuesLanded, kKeysFree, kValuesFree, kEnd };

POD_DEVICE constexpr int item_barrier(int place) {
  return static_cast<int>(Barrier::kItem) + place;
}

// Of a pair's CTA: among the copying threads, those of a multiplying warpgroup, and of both.
POD_DEVICE constexpr int copying_barrier() { return item_barrier(1); }
POD_DEVICE constexpr int group_barrier(int group) { return item_barrier(2) + group; }
POD_DEVICE constexpr int turning_barrier() { return group_barrier(kPairGroups); }

template <int kStages>
POD_DEVICE constexpr int turn_barrier(Turn turn, int stage) {
  constexpr int kFirst = static_cast<int>(Barrier::kItem);
  static_assert(kFirst + static_cast<int>(Turn::kEnd) * kStages <= static_cast<int>(Barrier::kEnd),
                "a CTA has 16 barriers");
  return kFirst + static_cast<int>(turn) * kStages + stage;
}

}  // namespace pod
