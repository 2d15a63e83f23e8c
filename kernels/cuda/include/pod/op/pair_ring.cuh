// pair_ring.cuh: the ring of K and V tiles between the three warpgroups of a pair's prefill: one
// copies, two multiply.
//
// Smem    as panel_ring.cuh; static: RingBarriers
//
// It goes on from item to item. mbarriers say what has landed and what both readers have left. The
// copying warpgroup is ahead of the others by the tiles of the ring, and so by two items at most:
// kSlots of these lie in shared memory, the last of which is overwritten when both have told a
// place of the item after it free. An item is drawn before the last values of the one before are
// told of, so who waited for these may read it.
#pragma once

#include "pod/op/panel_ring.cuh"
#include "pod/ptx/mbarrier.cuh"

namespace pod::op {

constexpr int pair_slots(int stages) { return stages + 2; }  // of items

template <int kStages>
struct RingBarriers {
  uint64_t turns[static_cast<int>(Turn::kEnd) * kStages];
};

// A place is a stage and the parity of its use: 0 .. 2 * kStages - 1, in this order.
template <class Variant>
struct PairRing : PanelRing<Variant> {
  using Base = PanelRing<Variant>;
  using Base::kRows;
  using Base::kStages;
  using Barriers = RingBarriers<kStages>;

  static constexpr int kPlaces = 2 * kStages;
  static constexpr int kSlots = pair_slots(kStages);

  POD_DEVICE PairRing(uint32_t smem, Barriers& barriers)
      : Base(smem), barriers_(ptx::warp_uniform(ptx::smem_address(&barriers))) {}

  // By one thread, before a barrier of all.
  POD_DEVICE static void init(Barriers& barriers) {
    const uint32_t first = ptx::smem_address(&barriers);
    POD_UNROLL_BY(1)
    for (int i = 0; i < static_cast<int>(Turn::kEnd) * kStages; ++i) {
      const bool landed = i < static_cast<int>(Turn::kKeysFree) * kStages;
      ptx::mbarrier_init(first + 8 * i, landed ? 1 : kPairGroups * kGroupWarps);
    }
    ptx::mbarrier_publish();
  }

  POD_DEVICE static int next(int place) { return (place + 1u) % kPlaces; }
  POD_DEVICE static int before(int place) { return (place + kPlaces - 1u) % kPlaces; }
  POD_DEVICE static int stage_of(uint32_t place) { return place % kStages; }
  POD_DEVICE static uint32_t parity_of(uint32_t place) { return place / kStages; }

  POD_DEVICE uint32_t k(int place) const { return Base::k(stage_of(place)); }
  POD_DEVICE uint32_t v(int place) const { return Base::v(stage_of(place)); }
  POD_DEVICE uint32_t barrier(Turn turn, int place) const {
    return barriers_ + 8 * (static_cast<int>(turn) * kStages + stage_of(place));
  }
  POD_DEVICE static int next_slot(int slot) { return slot + 1 == kSlots ? 0 : slot + 1; }

  POD_DEVICE void await_landed(Turn turn, int place) const {
    ptx::mbarrier_wait(barrier(turn, place), parity_of(place));
  }
  // Of the use before this one; of the first there is none.
  POD_DEVICE void await_free(Turn turn, int place) const {
    ptx::mbarrier_wait(barrier(turn, place), parity_of(place) ^ 1);
  }
  // By every warp that multiplies, once its products have read the place.
  POD_DEVICE void tell_free(Turn turn, int place, int thread) const {
    if (thread % kWarpSize == 0) ptx::mbarrier_arrive(barrier(turn, place));
  }

 private:
  uint32_t barriers_;
};

// Where the copying warpgroup, the CTA's first, stands in it: in one register, as it has few.
template <class Variant>
class PairCopySide {
 public:
  using Ring = PairRing<Variant>;

  POD_DEVICE explicit PairCopySide(const Ring& ring) : ring_(ring) {}

  // Of the item that is copied.
  POD_DEVICE int slot() const { return at_ / kSlot; }
  POD_DEVICE void next_item() { at_ = place() + Ring::next_slot(slot()) * kSlot; }

  POD_DEVICE int place() const { return at_ % kSlot; }
  POD_DEVICE void advance() { at_ = slot() * kSlot + Ring::next(place()); }
  POD_DEVICE const Ring& ring() const { return ring_; }
  POD_DEVICE void await(Turn turn, int place) const { ring_.await_free(turn, place); }
  // What all copying threads have copied to a place.
  POD_DEVICE void tell(Turn turn, int place) const {
    ptx::bar_sync(copying_barrier(), kGroupThreads);
    if (ptx::thread_index() == 0) ptx::mbarrier_arrive(ring_.barrier(turn, place));
  }

 private:
  static constexpr int kSlot = 256;

  Ring ring_;
  int at_ = 0;  // slot() * kSlot + place()
};

// K and V of tile after tile of an item, each as its place becomes free. Keys are a tile ahead: a
// place of theirs is free half a turn before one of values, and who waits for the latter could not
// tell of keys that have landed. What was issued is told of one copy later, so that two are in
// flight. `at_last` runs while the last tile is on its way.
template <class Variant, typename AtLast>
POD_DEVICE void copy_ahead(const KernelArguments& a, const Item& item, PairCopySide<Variant>& side,
                           int thread, AtLast at_last) {
  using Ring = PairRing<Variant>;
  constexpr int D = Variant::head_dim, kRows = Ring::kRows;
  copy::KvLoader<D * layout::kElementBytes, kRows, kGroupWarps, layout::Panels<D, kRows>> loader(
      a, item, thread);
  const int kv0 = ptx::warp_uniform(item.kv0), end = ptx::warp_uniform(item.kv1);
  const auto landed = [] {
    ptx::cp_async_commit();
    ptx::cp_async_wait<1>();
    ptx::fence_proxy_async();
  };
  // Pages of a tile are looked up once values of the one before are on their way.
  const auto look_ahead = [&](int kv) {
    loader.resolve_v(kv);
    loader.look_up(kv + kRows);
  };
  const auto load_keys = [&](int kv, int place) {
    if (kv >= end) return;
    side.await(Turn::kKeysFree, place);
    loader.resolve_k(kv);
    loader.load_k(side.ring().k(place), kv);
  };
  loader.look_up(kv0);
  load_keys(kv0, side.place());
  ptx::cp_async_commit();
  look_ahead(kv0);
  for (int kv = kv0; kv < end; kv += kRows) {
    const int place = side.place();
    load_keys(kv + kRows, Ring::next(place));
    landed();
    if (kv > kv0) {
      side.tell(Turn::kValuesLanded, Ring::before(place));
    } else {
      side.tell(Turn::kKeysLanded, place);
    }
    side.await(Turn::kValuesFree, place);
    loader.load_v(side.ring().v(place), kv);
    look_ahead(kv + kRows);
    landed();
    if (kv + kRows < end) side.tell(Turn::kKeysLanded, Ring::next(place));
    side.advance();
  }
  at_last();
  ptx::cp_async_wait<0>();
  ptx::fence_proxy_async();
  side.tell(Turn::kValuesLanded, Ring::before(side.place()));
}

}  // namespace pod::op
