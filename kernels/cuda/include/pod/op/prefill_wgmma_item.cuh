// prefill_wgmma_item.cuh: prefill_item on Hopper's warpgroup matrix unit.
//
// Scope   one warpgroup; it owns q_rows = 128 rows as two blocks of 64
// Smem    Q [q_rows, D] | K [kv_rows, D] x stages | V [kv_rows, D] x stages, all in panels
// Out     as prefill_item
//
// The unit works on its own, so the two blocks take turns: while the warps turn one block's scores
// into weights, the unit multiplies for the other. Per tile j of keys:
//
//   warps   softmax B(j)             softmax A(j + 1)
//   unit    A: P V(j), Q K(j + 1)    B: P V(j), Q K(j + 1)
//
// Nothing is in flight from one turn of the loop to the next: ptxas runs the unit in lockstep with
// the warps where it cannot tell within one turn which products are done.
#pragma once

#include "pod/config.h"
#include "pod/copy/query_tile.cuh"
#include "pod/mma/warpgroup.cuh"
#include "pod/op/prefill_item.cuh"

namespace pod::op {

// What the 64 query rows of block `kBlock` need beside K and V.
template <typename T, int D, class Variant, int kBlock>
struct QueryBlock {
  static constexpr int kColumns = Variant::config.prefill.kv_rows / 8;
  using QueryPanels = layout::Panels<D, Variant::config.prefill.q_rows>;
  using KeyPanels = layout::Panels<D, Variant::config.prefill.kv_rows>;

  RowState<D, 1> state;
  float s[1][kColumns][4];
  mma::Weights<1, kColumns> p;

  // The warp's first row.
  POD_DEVICE static int row0(int thread) { return kBlock * 64 + (thread >> 5) * 16; }

  POD_DEVICE void issue_scores(uint32_t q_tile, uint32_t k_tile) {
    constexpr uint32_t kOffset = kBlock * 64 * layout::kPanelRowBytes;
    mma::issue_scores<T, D, QueryPanels, KeyPanels>(
        s[0], QueryPanels::columns_descriptor(q_tile + kOffset),
        KeyPanels::columns_descriptor(k_tile));
  }
  POD_DEVICE void issue_values(uint32_t v_tile) {
    mma::issue_values<T, D, KeyPanels>(state.o[0], p, KeyPanels::rows_descriptor(v_tile));
  }

  // The block's products are done where at most `pending` newer groups are in flight.
  template <int pending>
  POD_DEVICE void await() {
    ptx::wgmma_wait<pending>();
    ptx::hold(s[0]);
    ptx::hold(state.o[0]);
  }

  POD_DEVICE void weigh(const LaunchArguments& a, const Item& item, int kv, int thread) {
    if (a.capped) cap_scores(s, a.cap_argument);
    if (is_cut(item, kv, kColumns * 8)) {
      thread = ptx::forget(thread);
      mask_scores(s, a, item, row0(thread), kv, thread & 31);
    }
    softmax_step_lazily(state, s, a.score_scale);
    mma::pack_weights<T>(p, s);
  }
};

// The ring, and the copies that fill it: K a tile ahead of V, one group for V(j) and K(j + 1).
template <int D, int kQueryRows, int kRows, int kStages, int kWarps>
class PanelLoop {
 public:
  static_assert(kStages >= 2, "K(j + 1) and V(j) are read while K(j) still is");
  POD_DEVICE PanelLoop(const LaunchArguments& a, const Item& item, const Scope<kWarps>& scope,
                       uint32_t smem)
      : loader_(a, item, scope),
        ring_{ptx::warp_uniform(smem) + kQueryRows * D * 2},
        scope_(scope),
        kv_(ptx::warp_uniform(item.kv0)),
        end_(ptx::warp_uniform(item.kv1)) {}

  // Closes a group of what was issued before and K(0), then fills the ring but for its last V.
  POD_DEVICE void start() {
    loader_.look_up(kv_);
    loader_.resolve(kv_);
    loader_.load_k(ring_.k(0), kv_);
    ptx::cp_async_commit();
    POD_UNROLL
    for (int stage = 0; stage + 1 < kStages; ++stage) {
      loader_.look_up(kv_ + (stage + 1) * kRows);
      load(kv_ + stage * kRows, stage, stage + 1);
    }
  }

  // The first group has landed, for all warps and for the matrix unit.
  POD_DEVICE void await_first() const { await<kStages - 1>(); }

  // V(j) and K(j + 1) have; and all warps have left K(j) and V(j - 1), if they waited for the
  // products that read them.
  POD_DEVICE void await_next() const { await<kStages - 2>(); }

  // The group that is due goes into the places of V(j - 1) and K(j), each under the softmax of
  // another block: all of it in one go would stall the warps.
  POD_DEVICE void refill_v() {
    const int kv = kv_ + (kStages - 1) * kRows;
    loader_.look_up(kv + kRows);
    if (kv < end_) loader_.load_v(ring().v(previous()), kv);
  }
  POD_DEVICE void refill_k() {
    const int kv = kv_ + kStages * kRows;
    if (kv < end_) {
      loader_.resolve(kv);
      loader_.load_k(ring().k(stage_), kv);
    }
    ptx::cp_async_commit();
  }

  POD_DEVICE void advance() {
    kv_ += kRows;
    stage_ = next();
  }

  POD_DEVICE int kv() const { return kv_; }  // first key of tile j
  POD_DEVICE int next_kv() const { return kv_ + kRows; }
  POD_DEVICE bool is_last() const { return next_kv() >= end_; }
  POD_DEVICE uint32_t q() const { return ring().base - kQueryRows * D * 2; }
  POD_DEVICE uint32_t k() const { return ring().k(stage_); }
  POD_DEVICE uint32_t v() const { return ring().v(stage_); }
  POD_DEVICE uint32_t next_k() const { return ring().k(next()); }

 private:
  template <int pending>
  POD_DEVICE void await() const {
    ptx::cp_async_wait<pending>();
    ptx::fence_proxy_async();
    scope_.sync();
  }
  // V of the tile that starts at key `kv`, and the K after it; a group even where both lie past the
  // last key.
  POD_DEVICE void load(int kv, int v_stage, int k_stage) {
    if (kv < end_) loader_.load_v(ring_.v(v_stage), kv);
    if (kv + kRows < end_) {
      loader_.resolve(kv + kRows);
      loader_.load_k(ring_.k(k_stage), kv + kRows);
    }
    ptx::cp_async_commit();
  }
  // One register for all its places.
  POD_DEVICE KvRing<D, kRows, kStages> ring() const { return {ptx::forget(ring_.base)}; }
  POD_DEVICE int next() const { return stage_ + 1 == kStages ? 0 : stage_ + 1; }
  POD_DEVICE int previous() const { return stage_ == 0 ? kStages - 1 : stage_ - 1; }

  copy::KvLoader<D, kRows, kWarps, layout::Panels<D, kRows>> loader_;
  KvRing<D, kRows, kStages> ring_;
  Scope<kWarps> scope_;
  // The same in all threads and known to be: uniform registers are not the accumulators'.
  int kv_, end_, stage_ = 0;
};

// All tiles but the last. On entry A(j) is weighed and B(j)'s scores are done; on exit the same
// holds of the last tile.
template <class First, class Second, class Loop>
POD_DEVICE void run_tiles(First& first, Second& second, Loop& loop, const LaunchArguments& a,
                          const Item& item, int thread) {
  for (; !loop.is_last(); loop.advance()) {
    loop.await_next();
    ptx::wgmma_fence();
    first.issue_values(loop.v());
    first.issue_scores(loop.q(), loop.next_k());
    ptx::wgmma_commit();
    loop.refill_v();
    second.weigh(a, item, loop.kv(), thread);
    ptx::wgmma_fence();
    second.issue_values(loop.v());
    second.issue_scores(loop.q(), loop.next_k());
    ptx::wgmma_commit();
    first.template await<1>();
    loop.refill_k();
    first.weigh(a, item, loop.next_kv(), thread);
    second.template await<0>();
  }
}

template <class First, class Second, class Loop>
POD_DEVICE void run_last_tile(First& first, Second& second, Loop& loop, const LaunchArguments& a,
                              const Item& item, int thread) {
  loop.await_next();
  ptx::wgmma_fence();
  first.issue_values(loop.v());
  ptx::wgmma_commit();
  second.weigh(a, item, loop.kv(), thread);
  ptx::wgmma_fence();
  second.issue_values(loop.v());
  ptx::wgmma_commit();
  first.template await<0>();
  second.template await<0>();
}

template <typename T, int D, class Variant>
POD_DEVICE void prefill_wgmma_item(const LaunchArguments& a, const Item& item, uint32_t smem,
                                   int thread) {
  constexpr TileConfig tile = Variant::config.prefill;
  static_assert(tile.q_rows == 128 && tile.warps == 4, "one warpgroup, two blocks of 64 rows");
  QueryBlock<T, D, Variant, 0> first;
  QueryBlock<T, D, Variant, 1> second;
  const Scope<tile.warps> scope{kItems, thread};
  copy::load_queries<D, tile.q_rows, typename decltype(first)::QueryPanels>(smem, a, item, scope);
  PanelLoop<D, tile.q_rows, tile.kv_rows, tile.stages, tile.warps> loop(a, item, scope, smem);
  loop.start();
  loop.await_first();

  ptx::hold(first.state.o[0]);
  ptx::hold(second.state.o[0]);
  ptx::wgmma_fence();
  first.issue_scores(loop.q(), loop.k());
  ptx::wgmma_commit();
  second.issue_scores(loop.q(), loop.k());
  ptx::wgmma_commit();
  first.template await<1>();
  first.weigh(a, item, loop.kv(), thread);
  second.template await<0>();
  run_tiles(first, second, loop, a, item, thread);
  run_last_tile(first, second, loop, a, item, thread);
  ptx::cp_async_wait<0>();
  store_rows<T>(first.state, a, item, first.row0(thread), thread & 31);
  store_rows<T>(second.state, a, item, second.row0(thread), thread & 31);
}

}  // namespace pod::op
