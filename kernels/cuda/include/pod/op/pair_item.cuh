// pair_item.cuh: prefill_item on one of a pair of warpgroups: 64 of an item's 128 rows.
//
// Scope   one warpgroup; another has the other rows, a third copies for both (pair_ring.cuh)
// Smem    Q | K x stages | V x stages, as panel_ring.cuh has it
// Out     as prefill_item
//
// FlashAttention-3's loop. Scores of a tile of keys and values of the one before are in flight
// together, and while the first become weights the unit works on the second:
//
//   unit    Q K(j + 1) | P V(j)           |
//   warps              | maxima of j + 1  | weights of j + 1, packed as P
//
// Maxima take as long as values of the tile before. What the other warpgroup does fills the unit in
// between: weights take longer than the products of one. So between the wait for scores and the
// next issue there is one run of instructions for a tile that no limit cuts. Nothing is in flight
// from one turn of the loop to the next, or ptxas runs the unit in lockstep with the warps.
#pragma once

#include "pod/copy/query_tile.cuh"
#include "pod/op/pair_ring.cuh"
#include "pod/op/panel_products.cuh"
#include "pod/op/rows.cuh"

namespace pod::op {

template <class Variant>
class PairMath : public PanelProducts<Variant, PairRing<Variant>> {
 public:
  using T = typename Variant::Element;
  using Base = PanelProducts<Variant, PairRing<Variant>>;
  using Ring = typename Base::Ring;
  using Base::D;
  static constexpr bool kWidened = sizeof(typename Variant::KvElement) == 1;

  // `thread` is 0 .. 127 of warpgroup `group` of the pair.
  POD_DEVICE PairMath(const KernelArguments& a, const Ring& ring, int group, int thread)
      : Base(ring), a_(a), group_(group), thread_(thread) {}

  // Sets the warpgroup's rows of Q on their way, once none of its warps reads those of an earlier
  // item. Those beside K of bytes pass through registers and are there when it returns.
  POD_DEVICE void load_queries(const Item& item) {
    sync();
    if constexpr (kWidened) {
      const int thread = ptx::forget(thread_);
      copy::store_operand_queries<T, D, layout::Order::kPanels, typename Base::QueryPanels>(
          this->ring().q(), a_, item, row0(thread), thread & 31, units_.of[0],
          [](int) { return true; });
    } else {
      copy::load_queries<D, kBlockRows, kGroupThreads, typename Base::QueryPanels>(
          this->ring().q(), a_, item, thread_, group_ * kBlockRows);
      ptx::cp_async_commit();
    }
  }

  // One item whose Q is on its way. `at_last` runs beside its last product, when all of its scores
  // are done.
  template <typename AtLast>
  POD_DEVICE void run(const Item& item, AtLast at_last) {
    RowState<D, 1> state;
    const WholeTiles whole(item, Ring::kRows);
    int kv = ptx::warp_uniform(item.kv0);
    const int end = ptx::warp_uniform(item.kv1);
    ptx::cp_async_wait<0>();
    ptx::fence_proxy_async();
    sync();
    await(Turn::kKeysLanded, place_);
    issue_scores();
    this->template await_scores<0>();
    tell_free(Turn::kKeysFree, place_);
    weigh(state, item, kv, whole.holds(kv), [] {});
    this->pack();
    for (kv += Ring::kRows; kv < end; kv += Ring::kRows) {
      const int before = place_;
      place_ = Ring::next(place_);
      const bool is_whole = whole.holds(kv);
      await(Turn::kKeysLanded, place_);
      ptx::hold(state.o[0]);
      issue_scores();
      await(Turn::kValuesLanded, before);
      this->issue_values(state, before);
      this->template await_scores<1>();
      tell_free(Turn::kKeysFree, place_);
      weigh(state, item, kv, is_whole, [&] { this->await_values(state); });
      tell_free(Turn::kValuesFree, before);
      this->pack();
    }
    await(Turn::kValuesLanded, place_);
    ptx::hold(state.o[0]);
    ptx::wgmma_fence();
    this->issue_values(state, place_);
    // The next item has units of its own.
    units_.settle(state, a_);
    at_last();
    this->await_values(state);
    tell_free(Turn::kValuesFree, place_);
    place_ = Ring::next(place_);
    constexpr auto kOrder = kWidened ? layout::Order::kPanels : layout::Order::kPlain;
    store_rows<T, kOrder>(state, a_, item, row0(thread_), thread_ & 31);
  }

 private:
  // The warp's first row of the item.
  POD_DEVICE int row0(int thread) const {
    return group_ * kBlockRows + (thread >> 5) * Fragment::kRows;
  }
  POD_DEVICE void await(Turn turn, int place) const { this->ring().await_landed(turn, place); }
  POD_DEVICE void tell_free(Turn turn, int place) const {
    this->ring().tell_free(turn, place, ptx::forget(thread_));
  }
  // Among the warpgroup's threads.
  POD_DEVICE void sync() const { ptx::bar_sync(group_barrier(group_), kGroupThreads); }
  POD_DEVICE void issue_scores() {
    const uint32_t ahead = group_ * kBlockRows * Base::QueryPanels::kRowBytes;
    Base::issue_scores(this->ring().q() + ahead, place_);
  }

  // Scores of keys kv .. become weights; `await_output()` waits for O.
  template <typename AwaitOutput>
  POD_DEVICE void weigh(RowState<D, 1>& state, const Item& item, int kv, bool whole,
                        AwaitOutput await_output) {
    limit_scores(this->s_, units_, a_, item, kv, whole, [&] {
      const int thread = ptx::forget(thread_);
      return Place{row0(thread), thread & 31};
    });
    softmax_step_lazily(
        state, this->s_, [&](int tile, int half) { return units_.scale(a_, tile, half); },
        await_output);
  }

  const KernelArguments& a_;
  int group_, thread_, place_ = 0;
  UnitsOf<Variant, 1> units_;
};

}  // namespace pod::op
