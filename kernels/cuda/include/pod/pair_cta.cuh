// pair_cta.cuh: a CTA that holds an SM and runs both ops, item after item: one warpgroup copies and
// two multiply for prefill, and a fourth decodes where they leave it registers (pair_decodes()).
// Those that multiply turn to decode when no prefill is left.
//
// CTA     begins with an item of its own, of each op; when one is done, it draws the next
//         from the counters of the whole launch, which lie in the plan. Without the fourth
//         warpgroup an SM runs one op at a time: the CTA ratio says how many CTAs begin with
//         prefill, by their index, and those that begin with decode draw all their items, and
//         turn to prefill when no decode is left
// Smem    smem.h: a prefill item, then the decode item of the fourth warpgroup; or, while they
//         decode, one of each multiplying warpgroup in the place of the prefill item; static: items
#pragma once

#include "pod/op/decode_item.cuh"
#include "pod/op/decode_wgmma_item.cuh"
#include "pod/op/pair_item.cuh"
#include "pod/op/wide_ring.cuh"
#include "pod/ptx/dependents.cuh"
#include "pod/ptx/registers.cuh"
#include "pod/sched/draw.cuh"
#include "pod/sched/records.cuh"

namespace pod {

// Who is in the CTA beside the pair, and the registers that its threads have.
template <class Variant>
struct Roles {
  static constexpr int kKvBytes = Smem<Variant>::kKvBytes;
  static constexpr bool kDecoder = pair_decodes(Variant::head_dim, kKvBytes);
  static constexpr PairRegisters kRegisters = pair_registers(Variant::head_dim, kKvBytes);
};

// Items that the CTA has drawn, read where they lie: see Work of pod_kernel.cuh.
template <class Variant>
struct PairWork {
  sched::Drawn prefill[op::PairRing<Variant>::kSlots];
  sched::Drawn decode[2];
  sched::Drawn turned[kPairGroups][2];  // of multiplying warpgroups that have turned to decode
  typename op::PairRing<Variant>::Barriers barriers;
};

// CTAs of the launch that begin with prefill, each with the item of its index; the others begin
// with decode.
template <class Variant, bool kDecodes>
POD_DEVICE int prefill_first(const PlanHeader& plan) {
  const int ctas = ptx::cta_count();
  if constexpr (Roles<Variant>::kDecoder || !kDecodes) return ctas;
  const int sum = max(1, plan.ratio_prefill + plan.ratio_decode);
  return (ctas * plan.ratio_prefill + sum - 1) / sum;
}

template <class Variant, bool kDecodes>
POD_DEVICE void draw_prefill(const KernelArguments& a, const PlanHeader& plan, sched::Draw draw,
                             sched::Drawn& drawn, int thread) {
  const int own = prefill_first<Variant, kDecodes>(plan);
  const sched::Draws draws{own, ptx::cta_count() - own};
  if (thread < kWarpSize) sched::draw_item(a, plan, Op::kPrefill, draw, draws, drawn, thread);
}

template <class Variant, bool kDecodes>
POD_DEVICE void copy_items(const KernelArguments& a, const PlanHeader& plan,
                           PairWork<Variant>& work, uint32_t smem, int thread) {
  using Side = op::PairCopySide<Variant>;
  using Ring = typename Side::Ring;
  Side side(Ring(smem, work.barriers));
  const auto drawn = [&]() -> sched::Drawn& { return work.prefill[side.slot()]; };
  while (drawn().item.rows > 0) {
    const Item& item = drawn().item;
    side.next_item();
    const auto draw = [&] {
      draw_prefill<Variant, kDecodes>(a, plan, sched::Draw::kNext, drawn(), thread);
    };
    if constexpr (Roles<Variant>::kKvBytes == kQBytes) {
      op::copy_ahead<Variant>(a, item, side, thread, draw);
    } else {
      op::widen_tiles<Variant>(a, item, side, smem, thread, draw);
    }
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
    if (records) sched::record_begin(a, plan, Op::kPrefill, drawn.number);
    math.run(drawn.item, [&] {
      const Item& next = work.prefill[slot].item;
      if (next.rows > 0) math.load_queries(next);
    });
    if (records) sched::record_end(a, plan, Op::kPrefill, drawn.number);
  }
}

// Of the multiplying warpgroups, those that turn to decode: each has the bytes of a decode item in
// the place of the prefill item, beside which nothing else is there if nobody else decodes.
template <class Variant>
struct Turners {
  static constexpr int kBytes = turned_bytes(Smem<Variant>::decode);
  static constexpr int kPlaces = Smem<Variant>::prefill.bytes / kBytes;
  static constexpr bool kAll = kPlaces >= kPairGroups || !Roles<Variant>::kDecoder;
  static constexpr int kCount = kAll ? kPairGroups : kPlaces;
};

template <class Variant>
POD_DEVICE void draw_decode(const KernelArguments& a, const PlanHeader& plan, sched::Draw draw,
                            sched::Drawn& drawn, int thread) {
  const int ctas = ptx::cta_count();
  const sched::Draws draws{Roles<Variant>::kDecoder ? ctas : 0, Turners<Variant>::kCount * ctas};
  if (thread < kWarpSize) sched::draw_item(a, plan, Op::kDecode, draw, draws, drawn, thread);
}

// One item on a warpgroup; `barrier` is its own.
template <class Variant>
POD_DEVICE void decode_on_group(const KernelArguments& a, const Item& item, uint8_t* smem,
                                int barrier, int thread) {
  if constexpr (Smem<Variant>::kDecodeEngine == DecodeEngine::kWgmma) {
    op::decode_wgmma_item<Variant>(a, item, smem, barrier, thread);
  } else {
    op::decode_item<Variant>(a, item, smem, barrier, thread);
  }
}

template <class Variant>
POD_DEVICE void decode_items(const KernelArguments& a, const PlanHeader& plan,
                             sched::Drawn (&slots)[2], uint8_t* smem, int barrier, int thread) {
  const Scope<kGroupWarps> scope{barrier, thread};
  int slot = 0;
  while (slots[slot].item.rows > 0) {
    const sched::Drawn& drawn = slots[slot];
    if (thread == 0) sched::record_begin(a, plan, Op::kDecode, drawn.number);
    decode_on_group<Variant>(a, drawn.item, smem, barrier, thread);
    if (thread == 0) sched::record_end(a, plan, Op::kDecode, drawn.number);
    slot ^= 1;
    draw_decode<Variant>(a, plan, sched::Draw::kNext, slots[slot], thread);
    scope.sync();
  }
}

// A multiplying warpgroup, in the place of the prefill item: until no decode is left.
template <class Variant>
POD_DEVICE void decode_in_turn(const KernelArguments& a, const PlanHeader& plan,
                               PairWork<Variant>& work, uint8_t* smem, int group, int thread) {
  if (group >= Turners<Variant>::kCount) return;
  const int barrier = group_barrier(group);
  draw_decode<Variant>(a, plan, sched::Draw::kNext, work.turned[group][0], thread);
  ptx::bar_sync(barrier, kGroupThreads);
  decode_items<Variant>(a, plan, work.turned[group], smem + group * Turners<Variant>::kBytes,
                        barrier, thread);
}

// Before multiplying warpgroups turn to decode: neither multiplies what lies there any more, and
// all that was on its way there has landed.
POD_DEVICE void await_pair() { ptx::bar_sync(turning_barrier(), kPairGroups * kGroupThreads); }

// Before a CTA turns to prefill, all of whose warpgroups call it: its memory is free, and the one
// that copies has drawn the first item.
template <class Variant>
POD_DEVICE void turn_to_prefill(const KernelArguments& a, const PlanHeader& plan,
                                PairWork<Variant>& work, bool copies, int thread) {
  constexpr int kThreads = (1 + kPairGroups) * kGroupThreads;
  ptx::bar_sync(turning_barrier(), kThreads);
  if (copies) {
    draw_prefill<Variant, true>(a, plan, sched::Draw::kNext, work.prefill[0], thread);
  }
  ptx::bar_sync(turning_barrier(), kThreads);
}

// Both ops on a multiplying warpgroup, one after the other. `smem` is the prefill item's.
template <class Variant>
POD_DEVICE void multiply_and_decode(const KernelArguments& a, const PlanHeader& plan,
                                    PairWork<Variant>& work, uint8_t* smem, bool decodes_first,
                                    int group, int thread) {
  // Each is in the code once.
  POD_UNROLL_BY(1)
  for (int turn = 0; turn < 2; ++turn) {
    if ((turn == 0) == decodes_first) {
      decode_in_turn(a, plan, work, smem, group, thread);
    } else {
      multiply_items<Variant>(a, plan, work, ptx::smem_address(smem), group, thread);
    }
    if (turn == 1) break;
    if (decodes_first) {
      turn_to_prefill(a, plan, work, false, thread);
    } else {
      await_pair();
    }
  }
}

// All threads of the CTA. If kDecodes both ops run, and warpgroup 3 is there if it is to decode.
template <class Variant, bool kDecodes>
POD_DEVICE void run_pair(const KernelArguments& a, PairWork<Variant>& work, uint8_t* smem) {
  const PlanHeader& plan = *reinterpret_cast<const PlanHeader*>(a.plan);
  const int thread = ptx::thread_index() & (kGroupThreads - 1);
  const int group = ptx::warp_uniform(ptx::thread_index() / kGroupThreads);
  constexpr int kDecoder = 1 + kPairGroups;
  constexpr bool kHasDecoder = kDecodes && Roles<Variant>::kDecoder;
  constexpr bool kInTurn = kDecodes && !Roles<Variant>::kDecoder;
  constexpr PairRegisters kRegisters = Roles<Variant>::kRegisters;
  static_assert(sizeof(PairWork<Variant>) <= kPairStaticBytes, "room for static variables");
  if (ptx::thread_index() == 0) op::PairRing<Variant>::init(work.barriers);
  ptx::let_dependents_start();
  const bool decodes_first = kInTurn && ptx::cta_index() >= prefill_first<Variant, kDecodes>(plan);
  if (group == 0 && !decodes_first) {
    draw_prefill<Variant, kDecodes>(a, plan, sched::Draw::kOwn, work.prefill[0], thread);
  }
  if constexpr (kHasDecoder) {
    if (group == kDecoder) {
      draw_decode<Variant>(a, plan, sched::Draw::kOwn, work.decode[0], thread);
    }
  }
  ptx::sync_cta();
  const uint32_t panels = op::panels_in(smem);
  const uint32_t ahead = panels - ptx::smem_address(smem);
  if (group == 0) {
    ptx::lower_registers<kRegisters.copy>();
    if constexpr (kInTurn) {
      if (decodes_first) turn_to_prefill(a, plan, work, true, thread);
    }
    copy_items<Variant, kDecodes>(a, plan, work, panels, thread);
  } else if (group < kDecoder) {
    ptx::raise_registers<kRegisters.math>();
    if constexpr (kInTurn) {
      multiply_and_decode(a, plan, work, smem + ahead, decodes_first, group - 1, thread);
    } else {
      multiply_items<Variant>(a, plan, work, panels, group - 1, thread);
      // One decoding warpgroup has too few bytes in flight to fill HBM alone.
      if constexpr (kDecodes) {
        await_pair();
        decode_in_turn(a, plan, work, smem + ahead, group - 1, thread);
      }
    }
  } else if constexpr (kHasDecoder) {
    ptx::lower_registers<kRegisters.decode>();
    decode_items<Variant>(a, plan, work.decode, smem + ahead + Smem<Variant>::prefill.bytes,
                          item_barrier(0), thread);
  }
}

}  // namespace pod
