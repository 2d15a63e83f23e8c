// records.cuh: what CTAs that stay leave of each item, where a trace of the launch is wanted.
#pragma once

#include "pod/arguments.h"
#include "pod/config.h"
#include "pod/ptx/sync.cuh"

namespace pod::sched {

// A record per item, as if each had a CTA: prefill items first. One thread of those that run it.
POD_DEVICE void record_begin(const KernelArguments& a, const PlanHeader& plan, Op op, int number) {
  if (a.records == nullptr) return;
  const int place = op == Op::kPrefill ? number : plan.prefill_items + number;
  a.records[place] = {
      static_cast<int>(ptx::smid()), static_cast<int>(op), number, 1, -1, 0, ptx::globaltimer(), 0};
}
POD_DEVICE void record_end(const KernelArguments& a, const PlanHeader& plan, Op op, int number) {
  if (a.records == nullptr) return;
  const int place = op == Op::kPrefill ? number : plan.prefill_items + number;
  a.records[place].end_ns = ptx::globaltimer();
}

}  // namespace pod::sched
