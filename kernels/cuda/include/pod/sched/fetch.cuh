// fetch.cuh: how a warp reads an item out of the plan, a lane per word.
//
// The header says where items lie, an item whose request it is of, and that where its pages are
// listed: three reads of memory, one after the other, before a CTA's first copy. They are one where
// the warp asks at once for what it will most likely need: the item of its CTA's number as if its
// op's were the first in the plan, and the page starts of the first requests, a lane each. What was
// guessed wrong is read again.
#pragma once

#include <cstddef>

#include "pod/arguments.h"
#include "pod/config.h"
#include "pod/ptx/sync.cuh"

namespace pod::sched {

POD_DEVICE int items_offset(const PlanHeader& plan, Op op) {
  return op == Op::kPrefill ? plan.prefill_offset : plan.decode_offset;
}

// One warp calls its functions.
class Fetch {
 public:
  static_assert(offsetof(Item, request) == 0 && offsetof(Item, first_page) == 4 * (kItemWords - 1),
                "a lane per word");

  // Nothing is asked for yet; or page starts; or also item `number`, if there is one: a plan's
  // buffer has room for an item of every CTA.
  POD_DEVICE static Fetch none() { return {kNoItem, 0, false, 0}; }
  POD_DEVICE static Fetch starts(const KernelArguments& a, int lane) {
    return {kNoItem, 0, true, start_of(a, lane)};
  }
  POD_DEVICE static Fetch item(const KernelArguments& a, int number, int lane) {
    return {number, ptx::forget(word_of(a, kGuess, number, lane)), true, start_of(a, lane)};
  }

  // Reads item `number` of those at `offset` from the header, which exists. What it writes others
  // see after a barrier.
  POD_DEVICE void finish(const KernelArguments& a, int offset, int number, Item& item,
                         int lane) const {
    int word = word_;
    if (number != number_ || offset != kGuess) word = word_of(a, offset, number, lane);
    const int request = ptx::shfl(word, 0);
    int start = has_starts_ ? ptx::shfl(start_, request % kWarpSize) : 0;
    if (!has_starts_ || request >= kWarpSize) start = static_cast<int>(a.page_starts[request]);
    if (lane == kItemWords - 1) word = start;
    if (lane < kItemWords) reinterpret_cast<int32_t*>(&item)[lane] = word;
  }

 private:
  static constexpr int kGuess = kHeaderWords, kNoItem = -1;

  POD_DEVICE Fetch(int number, int word, bool has_starts, int start)
      : number_(number), word_(word), start_(start), has_starts_(has_starts) {}

  POD_DEVICE static int word_of(const KernelArguments& a, int offset, int number, int lane) {
    return lane < kItemWords ? a.plan[offset + number * kItemWords + lane] : 0;
  }
  // Asked for where it is called, whatever becomes of it.
  POD_DEVICE static int start_of(const KernelArguments& a, int lane) {
    return ptx::forget(lane < a.requests ? static_cast<int>(a.page_starts[lane]) : 0);
  }

  int number_, word_, start_;
  bool has_starts_;
};

}  // namespace pod::sched
