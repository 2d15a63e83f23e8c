// pod_kernel.cuh: one launch attends a hybrid batch (prefill chunks + decode tokens).
//
// CTA     draws a ticket from its SM's counter, runs one prefill item or virtual_decode decode
//         items, exits
// In      q [T, Hq, D], k/v [P, S, Hkv, D], page_indices int32, page_starts [B], plan
// Out     out [T, Hq, D] and lse [T, Hq] natural log; of split rows partial_o [rows, D] fp32 and
//         partial_lse [rows] fp32 base 2, which combine.cuh merges
// Smem    Q | (K, V) x stages of the item, or of each decode item; static: the ticket
// Needs   sm_80+; counters zeroed on the launch stream; either side may be empty
// Source  Kamath et al., POD-Attention, ASPLOS 2025, arXiv:2410.18038
#pragma once

#include "pod/op/decode_item.cuh"
#include "pod/op/prefill_item.cuh"
#include "pod/sched/ticket.cuh"

namespace pod {

// Which ops a launch runs: both in the CTA ratio, or one for `serial` and `streams`.
enum class Ops { kPrefill, kDecode, kBoth };

template <class Variant, Ops kOps>
struct KernelShape {
  static constexpr PodConfig config = Variant::config;
  static constexpr int kDim = Variant::head_dim;
  static constexpr int kPrefillSmem = prefill_smem_bytes(config.prefill, kDim);
  static constexpr int kDecodeItemSmem = decode_smem_bytes(config.decode, kDim);
  static constexpr int kDecodeSmem = config.virtual_decode * kDecodeItemSmem;
  static constexpr int kDecodeWarps = config.virtual_decode * config.decode.warps;
  static constexpr int kSmem = kOps == Ops::kPrefill  ? kPrefillSmem
                               : kOps == Ops::kDecode ? kDecodeSmem
                                                      : larger(kPrefillSmem, kDecodeSmem);
  static constexpr int kWarps = kOps == Ops::kPrefill  ? config.prefill.warps
                                : kOps == Ops::kDecode ? kDecodeWarps
                                                       : cta_warps(config);
};

// Warps past those that an op's tile uses leave at once: no barrier of an item counts them.
template <class Variant>
POD_DEVICE void run_prefill(const LaunchArguments& a, const PlanHeader& plan, int index,
                            uint8_t* smem) {
  const int thread = ptx::thread_index();
  if (thread >= Variant::config.prefill.warps * kWarpSize) return;
  const auto* items = reinterpret_cast<const Item*>(a.plan + plan.prefill_offset);
  op::prefill_item<typename Variant::Element, Variant::head_dim, Variant>(
      a, items[index], ptx::smem_address(smem), thread);
}

template <class Variant>
POD_DEVICE void run_decode(const LaunchArguments& a, const PlanHeader& plan,
                           const sched::Ticket& ticket, uint8_t* smem) {
  constexpr int kItemThreads = Variant::config.decode.warps * kWarpSize;
  const int thread = ptx::thread_index();
  const int place =
      Variant::config.virtual_decode == 1 ? 0 : ptx::warp_uniform(thread / kItemThreads);
  if (place >= ticket.count) return;
  const auto* items = reinterpret_cast<const Item*>(a.plan + plan.decode_offset);
  op::decode_item<typename Variant::Element, Variant::head_dim, Variant>(
      a, items[ticket.first + place],
      smem + place * KernelShape<Variant, Ops::kDecode>::kDecodeItemSmem, kItems + place,
      thread % kItemThreads);
}

template <class Variant, Ops kOps>
POD_DEVICE sched::Ticket take_ticket(const LaunchArguments& a, const PlanHeader& plan,
                                     sched::Ticket& shared) {
  if constexpr (kOps == Ops::kBoth) {
    if (ptx::thread_index() == 0) {
      shared = sched::draw(a, plan, Variant::config.virtual_decode);
    }
    ptx::sync_cta();
    return shared;
  } else {
    constexpr Op op = kOps == Ops::kPrefill ? Op::kPrefill : Op::kDecode;
    return sched::ticket_of(plan, op, ptx::cta_index(), Variant::config.virtual_decode);
  }
}

// Thread 0's view of its CTA, where a record is wanted. `offset` is the number of CTAs in an
// earlier launch of the call.
POD_DEVICE CtaRecord* record_of(const LaunchArguments& a, int offset) {
  const bool wanted = a.records != nullptr && ptx::thread_index() == 0;
  return wanted ? a.records + offset + ptx::cta_index() : nullptr;
}

template <class Variant, Ops kOps>
POD_GLOBAL((KernelShape<Variant, kOps>::kWarps * kWarpSize), (Variant::config.ctas_per_sm))
pod_kernel(const POD_GRID_CONSTANT LaunchArguments a) {
  POD_DYNAMIC_SMEM(smem);
  POD_STATIC_SMEM(sched::Ticket, shared);
  const PlanHeader& plan = *reinterpret_cast<const PlanHeader*>(a.plan);
  constexpr bool kPrefills = kOps != Ops::kDecode, kDecodes = kOps != Ops::kPrefill;
  const int offset = kPrefills ? 0 : a.prefill_ctas;
  const uint64_t begin_ns = a.records != nullptr ? ptx::globaltimer() : 0;

  const sched::Ticket ticket = take_ticket<Variant, kOps>(a, plan, shared);
  if (CtaRecord* record = record_of(a, offset)) {
    *record = {static_cast<int>(ptx::smid()),
               static_cast<int>(ticket.op),
               ticket.first,
               ticket.count,
               begin_ns,
               0};
  }
  if (ticket.count > 0) {
    if (kPrefills && ticket.op == Op::kPrefill) {
      if constexpr (kPrefills) run_prefill<Variant>(a, plan, ticket.first, smem);
    } else {
      if constexpr (kDecodes) run_decode<Variant>(a, plan, ticket, smem);
    }
  }
  if (CtaRecord* record = record_of(a, offset)) record->end_ns = ptx::globaltimer();
}

}  // namespace pod
