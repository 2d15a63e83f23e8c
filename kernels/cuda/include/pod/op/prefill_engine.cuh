// prefill_engine.cuh: what each engine of prefill asks of a CTA, and how it runs an item.
//
// Another engine is another specialization, and its place in PrefillEngine and smem.h.
#pragma once

#include "pod/op/pair_item.cuh"
#include "pod/op/prefill_item.cuh"
#include "pod/op/prefill_wgmma_item.cuh"
#include "pod/op/wide_ring.cuh"

namespace pod::op {

// kCopyThreads  threads of a CTA beside those that run items, which copy for a prefill item
// kSuits        whether the variant's tiles are the engine's
// run           the item, by the prefill warps
// copy          by the copying threads, thread 0 .. kCopyThreads - 1
//
// A pair's CTA is one of its own (pair_cta.cuh), which runs item after item.
template <class Variant, PrefillEngine kEngine = Variant::prefill_engine>
struct Prefill;

template <class Variant>
struct Prefill<Variant, PrefillEngine::kMma> {
  static constexpr int kCopyThreads = 0;
  static constexpr bool kSuits = true;

  POD_DEVICE static void run(const KernelArguments& a, const Item& item, uint8_t* smem,
                             int thread) {
    prefill_item<Variant>(a, item, ptx::smem_address(smem), thread);
  }
};

template <class Variant>
struct Prefill<Variant, PrefillEngine::kWgmma> {
  static constexpr int kCopyThreads = kGroupThreads;
  // One warpgroup runs items, and at most two CTAs share the registers.
  static constexpr bool kSuits =
      cta_warps(Variant::config) == kGroupWarps && Variant::config.ctas_per_sm <= 2;

  POD_DEVICE static void run(const KernelArguments& a, const Item& item, uint8_t* smem,
                             int thread) {
    prefill_wgmma_item<Variant>(a, item, panels_in(smem), thread);
  }
  POD_DEVICE static void copy(const KernelArguments& a, const Item& item, uint8_t* smem,
                              int thread) {
    if constexpr (sizeof(typename Variant::KvElement) > 1) {
      copy_panels<Variant>(a, item, panels_in(smem), thread);
    } else {
      widen_panels<Variant>(a, item, panels_in(smem), thread);
    }
  }
};

template <class Variant>
struct Prefill<Variant, PrefillEngine::kPair> {
  static constexpr int kCopyThreads = kGroupThreads;
  // Of bytes its warpgroups decode on mma, where they are widened as operands.
  static constexpr bool kDecodes = Smem<Variant>::kDecodeEngine == DecodeEngine::kWgmma ||
                                   sizeof(typename Variant::KvElement) == 1;
  static constexpr bool kSuits = runs_both(Variant::config) && kDecodes &&
                                 Variant::config.prefill.q_rows == kPairGroups * kBlockRows;
};

}  // namespace pod::op
