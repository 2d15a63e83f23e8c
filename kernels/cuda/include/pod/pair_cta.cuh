// pair_cta.cuh: a CTA that holds an SM and runs both ops at once, item after item: one warpgroup
// copies and two multiply for prefill, a fourth decodes. Those that multiply turn to decode when
// no prefill is left.
//
// CTA     the first item of each op is that of its own index; when one is done, it draws the next
//         from the counters of the whole launch, which lie in the plan
// Smem    smem.h: a prefill item, then a decode item; in the end decode items in the place of the
//         prefill item, too; static: items
#pragma once

#include "pod/op/decode_wgmma_item.cuh"
#include "pod/op/pair_item.cuh"
#include "pod/ptx/dependents.cuh"
#include "pod/ptx/registers.cuh"
#include "pod/sched/draw.cuh"

namespace pod {

// Items that the CTA has drawn, read where they lie: see Work of pod_kernel.cuh.
template <class Variant>
struct PairWork {
  sched::Drawn prefill[op::PairRing<Variant>::kSlots];
  sched::Drawn decode[2];
  sched::Drawn turned[kPairGroups][2];  // of multiplying warpgroups that have turned to decode
  typename op::PairRing<Variant>::Barriers barriers;
};

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

template <class Variant>
POD_DEVICE void copy_items(const KernelArguments& a, const PlanHeader& plan,
                           PairWork<Variant>& work, uint32_t smem, int thread) {
  using Side = op::PairCopySide<Variant>;
  using Ring = typename Side::Ring;
  Side side(Ring(smem, work.barriers));
  const auto drawn = [&]() -> sched::Drawn& { return work.prefill[side.slot()]; };
  while (drawn().item.rows > 0) {
    const Item& item = drawn().item;
    side.next_item();
    op::copy_ahead<Variant>(a, item, side, thread, [&] {
      if (thread < kWarpSize) {
        sched::draw_item(a, plan, Op::kPrefill, sched::Draw::kNext, 0, drawn(), thread);
      }
    });
  }
}

template <class Variant>
POD_DEVICE void multiply_items(const KernelArguments& a, const PlanHeader& plan,
                               PairWork<Variant>& work, uint32_t smem, int group, int thread) {
  using Math = op::PairMath<Variant>;
  using Ring = typename Math::Ring;
  Math math(a, Ring(smem, work.barriers), group, thread);
  const bool records = group == 0 && thread == 0;
  int slot = 0;
  if (work.prefill[0].item.rows > 0) math.load_queries(work.prefill[0].item);
  while (work.prefill[slot].item.rows > 0) {
    const sched::Drawn& drawn = work.prefill[slot];
    slot = Ring::next_slot(slot);
    if (records) record_begin(a, plan, Op::kPrefill, drawn.number);
    math.run(drawn.item, [&] {
      const Item& next = work.prefill[slot].item;
      if (next.rows > 0) math.load_queries(next);
    });
    if (records) record_end(a, plan, Op::kPrefill, drawn.number);
  }
}

// Of the multiplying warpgroups, those that turn to decode: each has the bytes of a decode item in
// the place of the prefill item.
template <class Variant>
struct Turners {
  static constexpr int kBytes =
      (Smem<Variant>::decode.bytes + kPanelAlignment - 1) / kPanelAlignment * kPanelAlignment;
  static constexpr int kPlaces = Smem<Variant>::prefill.bytes / kBytes;
  static constexpr int kCount = kPlaces < kPairGroups ? kPlaces : kPairGroups;
};

template <class Variant>
POD_DEVICE void draw_decode(const KernelArguments& a, const PlanHeader& plan, sched::Draw draw,
                            sched::Drawn& drawn, int thread) {
  const int askers = Turners<Variant>::kCount * ptx::cta_count();
  if (thread < kWarpSize) {
    sched::draw_item(a, plan, Op::kDecode, draw, askers, drawn, thread);
  }
}

template <class Variant>
POD_DEVICE void decode_items(const KernelArguments& a, const PlanHeader& plan,
                             sched::Drawn (&slots)[2], uint8_t* smem, int barrier, int thread) {
  const Scope<kGroupWarps> scope{barrier, thread};
  int slot = 0;
  while (slots[slot].item.rows > 0) {
    const sched::Drawn& drawn = slots[slot];
    if (thread == 0) record_begin(a, plan, Op::kDecode, drawn.number);
    op::decode_wgmma_item<Variant>(a, drawn.item, smem, barrier, thread);
    if (thread == 0) record_end(a, plan, Op::kDecode, drawn.number);
    slot ^= 1;
    draw_decode<Variant>(a, plan, sched::Draw::kNext, slots[slot], thread);
    scope.sync();
  }
}

// A multiplying warpgroup that has no item left: one decoding warpgroup has too few bytes in flight
// to fill HBM alone. `smem` is the prefill item's.
template <class Variant>
POD_DEVICE void turn_to_decode(const KernelArguments& a, const PlanHeader& plan,
                               PairWork<Variant>& work, uint8_t* smem, int group, int thread) {
  // Neither multiplies what lies there any more, and all that was on its way there has landed.
  ptx::bar_sync(turning_barrier(), kPairGroups * kGroupThreads);
  if (group >= Turners<Variant>::kCount) return;
  const int barrier = group_barrier(group);
  draw_decode<Variant>(a, plan, sched::Draw::kNext, work.turned[group][0], thread);
  ptx::bar_sync(barrier, kGroupThreads);
  decode_items<Variant>(a, plan, work.turned[group], smem + group * Turners<Variant>::kBytes,
                        barrier, thread);
}

// All threads of the CTA; warpgroup 3 is there if kDecodes.
template <class Variant, bool kDecodes>
POD_DEVICE void run_pair(const KernelArguments& a, PairWork<Variant>& work, uint8_t* smem) {
  const PlanHeader& plan = *reinterpret_cast<const PlanHeader*>(a.plan);
  const int thread = ptx::thread_index() & (kGroupThreads - 1);
  const int group = ptx::warp_uniform(ptx::thread_index() / kGroupThreads);
  constexpr int kDecoder = 1 + kPairGroups;
  static_assert(sizeof(PairWork<Variant>) <= kPairStaticBytes, "room for static variables");
  if (ptx::thread_index() == 0) op::PairRing<Variant>::init(work.barriers);
  ptx::let_dependents_start();
  if (group == 0 && thread < kWarpSize) {
    sched::draw_item(a, plan, Op::kPrefill, sched::Draw::kOwn, 0, work.prefill[0], thread);
  }
  if constexpr (kDecodes) {
    if (group == kDecoder) {
      draw_decode<Variant>(a, plan, sched::Draw::kOwn, work.decode[0], thread);
    }
  }
  ptx::sync_cta();
  const uint32_t panels = op::panels_in(smem);
  const uint32_t ahead = panels - ptx::smem_address(smem);
  if (group == 0) {
    ptx::lower_registers<kPairCopyRegisters>();
    copy_items<Variant>(a, plan, work, panels, thread);
  } else if (group < kDecoder) {
    ptx::raise_registers<kPairMathRegisters>();
    multiply_items<Variant>(a, plan, work, panels, group - 1, thread);
    if constexpr (kDecodes) turn_to_decode(a, plan, work, smem + ahead, group - 1, thread);
  } else if constexpr (kDecodes) {
    ptx::lower_registers<kPairDecodeRegisters>();
    decode_items<Variant>(a, plan, work.decode, smem + ahead + Smem<Variant>::prefill.bytes,
                          item_barrier(0), thread);
  }
}

}  // namespace pod
