// draw.cuh: items for warps that stay: who needs one takes the next of its op.
#pragma once

#include "pod/sched/fetch.cuh"

namespace pod::sched {

// An item and its place in the plan's list of its op; no rows: none was left.
struct Drawn {
  Item item;
  int number;
};

// How a launch gives out the items of an op. `own` CTAs begin with that of own_item(); all others
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

// Where a CTA's draws begin: with own_item(), or with one that is asked for.
enum class Draw { kOwn, kNext };

// Decodes are given out from the last CTA on: the longest of them then lie beside the shortest
// items of prefill, where memory is not shared with products for long.
POD_DEVICE int own_item(Op op) {
  const int cta = ptx::cta_index();
  return op == Op::kPrefill ? cta : ptx::cta_count() - 1 - cta;
}

// One warp calls it. What it writes others see after a barrier.
POD_DEVICE void draw_item(const KernelArguments& a, const PlanHeader& plan, Op op, Draw draw,
                          const Draws& draws, Drawn& drawn, int lane) {
  const bool own = draw == Draw::kOwn;
  int number = own_item(op);
  const Fetch fetch = own ? Fetch::item(a, number, lane) : Fetch::none();
  const int items = op == Op::kPrefill ? plan.prefill_items : plan.decode_items;
  if (!own) {
    if (lane == 0) number = ask(plan, op, items, draws);
    number = ptx::shfl(number, 0);
  }
  if (number >= items) {
    if (lane == 0) drawn.item.rows = 0;
    return;
  }
  fetch.finish(a, items_offset(plan, op), number, drawn.item, lane);
  if (lane == 0) drawn.number = number;
}

}  // namespace pod::sched
