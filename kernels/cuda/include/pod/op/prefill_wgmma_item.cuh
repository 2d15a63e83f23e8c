// prefill_wgmma_item.cuh: prefill_item on Hopper's warpgroup matrix unit.
//
// Scope   two warpgroups: copy_panels fills the ring for this one, which multiplies. It owns
//         q_rows = 128 rows as two blocks of 64
// Smem    Q | K x stages | V x stages, as panel_ring.cuh has it
// Out     as prefill_item
//
// The unit works on its own, so the two blocks take turns; per tile j of keys:
//
//   unit    B: Q K(j) | A: P V(j)           | A: Q K(j + 1) | B: P V(j)
//   warps             | softmax B(j)        |               | softmax A(j + 1)
//
// While the warps wait for scores, the unit belongs to the SM's other CTA. One set of scores and
// of weights serves both blocks: so the accumulators fit what is left of the register file beside
// the copying warpgroup, twice per SM. Nothing is in flight from one turn of the loop to the next,
// or ptxas runs the unit in lockstep with the warps.
#pragma once

#include "pod/copy/query_tile.cuh"
#include "pod/op/panel_products.cuh"
#include "pod/op/panel_ring.cuh"
#include "pod/op/rows.cuh"

namespace pod::op {

template <class Variant>
class PanelMath : public PanelProducts<Variant, PanelRing<Variant>> {
 public:
  using T = typename Variant::Element;
  using Base = PanelProducts<Variant, PanelRing<Variant>>;
  using Ring = typename Base::Ring;
  using Base::await_scores;
  using Base::D;

  POD_DEVICE PanelMath(const KernelArguments& a, const Item& item, const Ring& ring, int thread)
      : Base(ring), a_(a), item_(item), thread_(thread) {}

  // The warp's first row in a block.
  POD_DEVICE static int row0(int block, int thread) {
    return block * kBlockRows + (thread >> 5) * Fragment::kRows;
  }

  template <int kBlock>
  POD_DEVICE void issue_scores(int stage) {
    constexpr uint32_t kOffset = kBlock * kBlockRows * Base::QueryPanels::kRowBytes;
    Base::issue_scores(this->ring().q() + kOffset, stage);
  }

  // Scores of `block` and values of `other`; returns when the scores are done.
  template <int kBlock>
  POD_DEVICE void issue_both(int scores_stage, RowState<D, 1>& other, int values_stage) {
    ptx::hold(other.o[0]);
    issue_scores<kBlock>(scores_stage);
    this->issue_values(other, values_stage);
    this->template await_scores<1>();
  }

  // Scores of keys kv .. become weights of `block`, whose O is not in flight.
  template <int kBlock>
  POD_DEVICE void weigh(RowState<D, 1>& state, int kv) {
    const bool whole = WholeTiles(item_, Ring::kRows).holds(kv);
    limit_scores(this->s_, units_[kBlock], a_, item_, kv, whole, [&] {
      const int thread = ptx::forget(thread_);
      return Place{row0(kBlock, thread), thread & 31};
    });
    softmax_step_lazily(state, this->s_,
                        [&](int tile, int half) { return units_[kBlock].scale(a_, tile, half); });
  }

  // Of a block's rows, for who stores Q.
  POD_DEVICE UnitsOf<Variant, 1>& units(int block) { return units_[block]; }

 private:
  const KernelArguments& a_;
  const Item& item_;
  int thread_;
  UnitsOf<Variant, 1> units_[2];
};

// All tiles, from the first block's weights of the first on; the second block's last product with V
// is left. Returns the stage of the last tile.
template <class Variant>
POD_DEVICE int run_tiles(PanelMath<Variant>& math, RowState<Variant::head_dim, 1>& first,
                         RowState<Variant::head_dim, 1>& second, const Item& item) {
  using Ring = PanelRing<Variant>;
  const int end = ptx::warp_uniform(item.kv1);
  int kv = ptx::warp_uniform(item.kv0), stage = 0;
  while (true) {
    Ring::await(Turn::kValuesLanded, stage);
    math.template issue_both<1>(stage, first, stage);
    if (Ring::is_reused(kv, end)) Ring::tell(Turn::kKeysFree, stage);
    math.template weigh<1>(second, kv);
    math.await_values(first);
    math.pack();
    if (kv + Ring::kRows >= end) return stage;
    const int next = Ring::next(stage);
    Ring::await(Turn::kKeysLanded, next);
    math.template issue_both<0>(next, second, stage);
    math.template weigh<0>(first, kv + Ring::kRows);
    math.await_values(second);
    if (Ring::is_reused(kv, end)) Ring::tell(Turn::kValuesFree, stage);
    math.pack();
    kv += Ring::kRows;
    stage = next;
  }
}

// `thread` is 0 .. 127, of the warpgroup that multiplies.
template <class Variant>
POD_DEVICE void prefill_wgmma_item(const KernelArguments& a, const Item& item, uint32_t smem,
                                   int thread) {
  using Math = PanelMath<Variant>;
  using T = typename Variant::Element;
  using Kv = typename Variant::KvElement;
  constexpr int D = Variant::head_dim;
  constexpr TileConfig tile = Variant::config.prefill;
  static_assert(tile.q_rows == 2 * kBlockRows && tile.warps == kGroupWarps, "two blocks of rows");
  constexpr bool kWidened = sizeof(Kv) == 1;
  if constexpr (!kWidened) {
    copy::load_queries<D, tile.q_rows, kGroupThreads, typename Math::QueryPanels>(smem, a, item,
                                                                                  thread);
    ptx::cp_async_commit();
  }
  RowState<D, 1> first, second;
  Math math(a, item, typename Math::Ring(smem), thread);
  if constexpr (kWidened) {
    POD_UNROLL
    for (int block = 0; block < 2; ++block) {
      copy::store_operand_queries<T, D, layout::Order::kPanels, typename Math::QueryPanels>(
          smem, a, item, math.row0(block, thread), thread & 31, math.units(block).of[0],
          [](int) { return true; });
    }
  }
  ptx::cp_async_wait<0>();
  ptx::fence_proxy_async();
  // Makes the warps' Q each other's too.
  Math::Ring::await(Turn::kKeysLanded, 0);
  math.template issue_scores<0>(0);
  math.template await_scores<0>();
  math.template weigh<0>(first, ptx::warp_uniform(item.kv0));
  math.pack();
  const int last = run_tiles(math, first, second, item);
  ptx::hold(second.o[0]);
  ptx::wgmma_fence();
  math.issue_values(second, last);
  math.await_values(second);
  constexpr auto kOrder = kWidened ? layout::Order::kPanels : layout::Order::kPlain;
  math.units(0).settle(first, a);
  math.units(1).settle(second, a);
  store_rows<T, kOrder>(first, a, item, math.row0(0, thread), thread & 31);
  store_rows<T, kOrder>(second, a, item, math.row0(1, thread), thread & 31);
}

}  // namespace pod::op
