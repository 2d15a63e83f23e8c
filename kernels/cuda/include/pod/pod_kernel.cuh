// pod_kernel.cuh: one launch attends a hybrid batch (prefill chunks + decode tokens).
//
// CTA     draws a ticket from its SM's counter, runs one prefill item or virtual_decode decode
//         items, exits. On wgmma, a second warpgroup copies for a prefill item. A pair's CTA stays
//         and runs items of both ops (pair_cta.cuh)
// In      q [T, Hq, D], k/v [P, S, Hkv, D], page_indices int32, page_starts [B], plan
// Out     out [T, Hq, D] and lse [T, Hq] natural log; of split rows partial_o [rows, D] fp32 and
//         partial_sums [rows], which combine.cuh merges
// Smem    smem.h; static: the ticket and items
// Needs   sm_80+, sm_90a where prefill or decode run on wgmma; counters zeroed on the launch
//         stream where tickets are drawn; either side may be empty
// Source  Kamath et al., POD-Attention, ASPLOS 2025, arXiv:2410.18038
#pragma once

#include "pod/op/decode_item.cuh"
#include "pod/op/decode_wgmma_item.cuh"
#include "pod/op/prefill_engine.cuh"
#include "pod/pair_cta.cuh"
#include "pod/ptx/dependents.cuh"
#include "pod/ptx/registers.cuh"
#include "pod/sched/ticket.cuh"

namespace pod {

// Which ops a launch runs: both in the CTA ratio, or one for `serial` and `streams`.
enum class Ops { kPrefill, kDecode, kBoth };

template <class Variant, Ops kOps>
struct KernelShape {
  static constexpr PodConfig config = Variant::config;
  static constexpr int kDecodeWarps = config.virtual_decode * config.decode.warps;
  static constexpr int kPrefillSmem = Smem<Variant>::kPrefillCta;
  static constexpr int kDecodeSmem = Smem<Variant>::kDecodeCta;
  static constexpr int kSmem = kOps == Ops::kPrefill  ? kPrefillSmem
                               : kOps == Ops::kDecode ? kDecodeSmem
                                                      : Smem<Variant>::kCta;
  static constexpr int kWarps = kOps == Ops::kPrefill  ? config.prefill.warps
                                : kOps == Ops::kDecode ? kDecodeWarps
                                                       : cta_warps(config);
  static constexpr int kCopyThreads = kOps == Ops::kDecode ? 0 : op::Prefill<Variant>::kCopyThreads;
  // Whether CTAs stay for as many items as there are.
  static constexpr bool kStays =
      kOps != Ops::kDecode && Variant::prefill_engine == PrefillEngine::kPair;
  // And whether one of their warpgroups only decodes.
  static constexpr bool kDecoder =
      kStays && kOps == Ops::kBoth && pair_decodes(Variant::head_dim, Smem<Variant>::kKvBytes);
  static constexpr int kDecodeThreads = kDecoder ? kDecodeWarps * kWarpSize : 0;
  static constexpr int kThreads = kWarps * kWarpSize + kCopyThreads + kDecodeThreads;
};

// What a CTA works on, in static shared memory: the items are read there all along, so neither
// their fields nor a pointer to them takes registers from the accumulators.
template <class Variant>
struct Work {
  sched::Ticket ticket;
  Item items[Variant::config.virtual_decode];
};

// One warp's part of it. One op alone needs no ticket: its CTAs are all alike.
template <class Variant, Ops kOps>
POD_DEVICE void fetch_work(Work<Variant>& work, const KernelArguments& a, const PlanHeader& plan,
                           int lane) {
  constexpr int kVirtual = Variant::config.virtual_decode;
  constexpr Op kAlone = kOps == Ops::kPrefill ? Op::kPrefill : Op::kDecode;
  constexpr bool kDraws = kOps == Ops::kBoth;
  const int index = ptx::cta_index(), first = kAlone == Op::kPrefill ? index : index * kVirtual;
  const auto fetch = kDraws ? sched::Fetch::starts(a, lane) : sched::Fetch::item(a, first, lane);
  sched::Ticket ticket{};
  if (!kDraws) {
    ticket = sched::ticket_of(plan, kAlone, index, kVirtual, -1);
  } else {
    if (lane == 0) ticket = sched::draw(a, plan, kVirtual);
    ticket = sched::broadcast(ticket);
  }
  const int offset = sched::items_offset(plan, ticket.op);
  POD_UNROLL_BY(1)
  for (int place = 0; place < ticket.count; ++place) {
    fetch.finish(a, offset, ticket.first + place, work.items[place], lane);
  }
  if (lane == 0) work.ticket = ticket;
}

template <class Variant, Ops kOps>
POD_DEVICE void take_work(Work<Variant>& work, const KernelArguments& a, const PlanHeader& plan) {
  const int thread = ptx::thread_index();
  if (thread < kWarpSize) fetch_work<Variant, kOps>(work, a, plan, thread);
  ptx::sync_cta();
}

// Splits a CTA in two: false in the warpgroup that copies, whose work is done then.
template <class Variant>
POD_DEVICE bool is_left_to_run(const KernelArguments& a, const Work<Variant>& work, uint8_t* smem) {
  constexpr bool kMoves = Variant::config.ctas_per_sm > 1;
  constexpr bool kWidens = sizeof(typename Variant::KvElement) == 1;
  const int thread = ptx::thread_index() - kGroupThreads;
  if (thread < 0) {
    if constexpr (kMoves) ptx::raise_registers<kWidens ? kWideMathRegisters : kMathRegisters>();
    return true;
  }
  if constexpr (kMoves) ptx::lower_registers<kWidens ? kWidenRegisters : kCopyRegisters>();
  if (work.ticket.count > 0 && work.ticket.op == Op::kPrefill) {
    op::Prefill<Variant>::copy(a, work.items[0], smem, thread);
  }
  return false;
}

// Warps past those that an op's tile uses leave at once: no barrier of an item counts them.
template <class Variant>
POD_DEVICE void run_prefill(const KernelArguments& a, const Work<Variant>& work, uint8_t* smem) {
  const int thread = ptx::thread_index();
  if (thread >= Variant::config.prefill.warps * kWarpSize) return;
  op::Prefill<Variant>::run(a, work.items[0], smem, thread);
}

template <class Variant>
POD_DEVICE void run_decode(const KernelArguments& a, const Work<Variant>& work, uint8_t* smem) {
  constexpr int kItemThreads = Variant::config.decode.warps * kWarpSize;
  const int thread = ptx::thread_index();
  const int place =
      Variant::config.virtual_decode == 1 ? 0 : ptx::warp_uniform(thread / kItemThreads);
  if (place >= work.ticket.count || thread >= Variant::config.virtual_decode * kItemThreads) return;
  if constexpr (Smem<Variant>::kDecodeEngine == DecodeEngine::kWgmma) {
    const uint32_t ahead = op::panels_in(smem) - ptx::smem_address(smem);
    op::decode_wgmma_item<Variant>(a, work.items[0], smem + ahead, item_barrier(0), thread);
  } else {
    op::decode_item<Variant>(a, work.items[place], smem + place * Smem<Variant>::decode.bytes,
                             item_barrier(place), thread % kItemThreads);
  }
}

// Thread 0's view of its CTA, where a record is wanted. `offset` is the number of CTAs in an
// earlier launch of the call.
POD_DEVICE CtaRecord* record_of(const KernelArguments& a, int offset) {
  const bool wanted = a.records != nullptr && ptx::thread_index() == 0;
  return wanted ? a.records + offset + ptx::cta_index() : nullptr;
}

template <class Variant, Ops kOps>
POD_DEVICE void run_cta(const KernelArguments& a, Work<Variant>& work, uint8_t* smem) {
  constexpr bool kPrefills = kOps != Ops::kDecode, kDecodes = kOps != Ops::kPrefill;
  const PlanHeader& plan = *reinterpret_cast<const PlanHeader*>(a.plan);
  const int offset = kPrefills ? 0 : a.prefill_ctas;
  const uint64_t begin_ns = a.records != nullptr ? ptx::globaltimer() : 0;

  ptx::let_dependents_start();
  take_work<Variant, kOps>(work, a, plan);
  const sched::Ticket& ticket = work.ticket;
  if (CtaRecord* record = record_of(a, offset)) {
    *record = {static_cast<int>(ptx::smid()),
               static_cast<int>(ticket.op),
               ticket.first,
               ticket.count,
               ticket.number,
               0,
               begin_ns,
               0};
  }
  if constexpr (KernelShape<Variant, kOps>::kCopyThreads > 0) {
    if (!is_left_to_run<Variant>(a, work, smem)) return;
  }
  if (ticket.count > 0) {
    if (kPrefills && ticket.op == Op::kPrefill) {
      if constexpr (kPrefills) run_prefill<Variant>(a, work, smem);
    } else {
      if constexpr (kDecodes) run_decode<Variant>(a, work, smem);
    }
  }
  if (CtaRecord* record = record_of(a, offset)) record->end_ns = ptx::globaltimer();
}

template <class Variant, Ops kOps>
POD_GLOBAL((KernelShape<Variant, kOps>::kThreads), (Variant::config.ctas_per_sm))
pod_kernel(const POD_GRID_CONSTANT KernelArguments a) {
  POD_DYNAMIC_SMEM(smem);
  if constexpr (KernelShape<Variant, kOps>::kStays) {
    POD_STATIC_SMEM(PairWork<Variant>, work);
    run_pair<Variant, kOps == Ops::kBoth>(a, work, smem);
  } else {
    POD_STATIC_SMEM(Work<Variant>, work);
    run_cta<Variant, kOps>(a, work, smem);
  }
}

}  // namespace pod
