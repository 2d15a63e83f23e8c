// draw.cuh: items for warps that stay: who needs one takes the next of its op.
#pragma once

#include <cstddef>

#include "pod/arguments.h"
#include "pod/config.h"
#include "pod/ptx/sync.cuh"

namespace pod::sched {

// An item and its place in the plan's list of its op; no rows: none was left.
struct Drawn {
  Item item;
  int number;
};

// One warp calls it. Counters are zero when the launch begins. What it writes others see after a
// barrier.
POD_DEVICE void draw_item(const KernelArguments& a, const PlanHeader& plan, Op op, Drawn& drawn,
                          int lane) {
  static_assert(offsetof(Item, request) == 0 && offsetof(Item, first_page) == 4 * (kItemWords - 1),
                "a lane per word");
  const bool prefill = op == Op::kPrefill;
  auto* counters = reinterpret_cast<Counters*>(a.counters);
  int number = 0;
  if (lane == 0) number = ptx::atomic_add(&counters->next[static_cast<int>(op)], 1);
  number = ptx::shfl(number, 0);
  if (number >= (prefill ? plan.prefill_items : plan.decode_items)) {
    if (lane == 0) drawn.item.rows = 0;
    return;
  }
  const int offset = prefill ? plan.prefill_offset : plan.decode_offset;
  const int32_t* words = a.plan + offset + number * kItemWords;
  int word = lane < kItemWords ? words[lane] : 0;
  const int request = ptx::shfl(word, 0);
  if (lane == kItemWords - 1) word = static_cast<int>(a.page_starts[request]);
  if (lane < kItemWords) reinterpret_cast<int32_t*>(&drawn.item)[lane] = word;
  if (lane == 0) drawn.number = number;
}

}  // namespace pod::sched
