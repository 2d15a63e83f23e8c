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

// How a launch gives out the items of an op. `own` CTAs begin with that of their index; all others
// are asked for. Who has run an item asks for one more, and `askers` ask although they had none.
struct Draws {
  int own, askers;
};

// So the launch knows the last to ask, who leaves the counter to the next launch with the same
// plan.
POD_DEVICE int ask(const PlanHeader& plan, Op op, int items, const Draws& draws) {
  int* drawn = const_cast<int*>(&plan.drawn[static_cast<int>(op)]);
  const int before = ptx::atomic_add(drawn, 1), asked = items + draws.askers;
  if (before == asked - 1) ptx::atomic_add(drawn, -asked);
  return draws.own + before;
}

// Where a CTA's draws begin: with the item of its own index, or with one that is asked for.
enum class Draw { kOwn, kNext };

// One warp calls it. What it writes others see after a barrier.
POD_DEVICE void draw_item(const KernelArguments& a, const PlanHeader& plan, Op op, Draw draw,
                          const Draws& draws, Drawn& drawn, int lane) {
  static_assert(offsetof(Item, request) == 0 && offsetof(Item, first_page) == 4 * (kItemWords - 1),
                "a lane per word");
  const bool prefill = op == Op::kPrefill;
  const int items = prefill ? plan.prefill_items : plan.decode_items;
  int number = ptx::cta_index();
  if (draw == Draw::kNext) {
    if (lane == 0) number = ask(plan, op, items, draws);
    number = ptx::shfl(number, 0);
  }
  if (number >= items) {
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
