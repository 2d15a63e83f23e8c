// prefill_item.cuh: a block of packed query rows against a range of keys (FlashAttention-2 style).
//
// Scope   all prefill warps of the CTA; each owns q_rows / warps rows, so no warp waits for
//         another's softmax
// Smem    Q [q_rows, D] | K [kv_rows, D] x stages | V [kv_rows, D] x stages
// Out     out and lse, or partial O, m and l of a KV split
#pragma once

#include "pod/config.h"
#include "pod/copy/query_tile.cuh"
#include "pod/mma/products.cuh"
#include "pod/op/kv_loop.cuh"
#include "pod/output.cuh"

namespace pod::op {

// Scores of one tile become weights, with cap and mask where they apply.
template <int D, int kTiles, int kColumns>
POD_DEVICE void weigh(RowState<D, kTiles>& state, float (&s)[kTiles][kColumns][4],
                      const LaunchArguments& a, const Item& item, int row0, int kv, int lane) {
  if (a.capped) cap_scores(s, a.cap_argument);
  if (is_cut(item, kv, kColumns * 8)) mask_scores(s, a, item, row0, kv, lane);
  softmax_step(state, s, a.score_scale);
}

template <typename T, int D, int kTiles>
POD_DEVICE void store_rows(const RowState<D, kTiles>& state, const LaunchArguments& a,
                           const Item& item, int row0, int lane) {
  POD_UNROLL
  for (int tile = 0; tile < kTiles; ++tile) {
    POD_UNROLL
    for (int half = 0; half < 2; ++half) {
      const float l = state.total(tile, half);
      const int row = row0 + tile * 16 + (lane >> 2) + half * 8;
      if (row < item.rows) {
        const RowOutput<T> output(a, item, row, D);
        const float inverse = output.end(state.m[tile][half], l, (lane & 3) == 0);
        POD_UNROLL
        for (int i = 0; i < D / 8; ++i) {
          const float* o = state.o[tile][i];
          output.store(i * 8 + (lane & 3) * 2, o[2 * half] * inverse, o[2 * half + 1] * inverse);
        }
      }
    }
  }
}

template <typename T, int D, class Variant>
POD_DEVICE void prefill_item(const LaunchArguments& a, const Item& item, uint32_t smem,
                             int thread) {
  constexpr TileConfig tile = Variant::config.prefill;
  constexpr int kTiles = tile.q_rows / tile.warps / 16, kColumns = tile.kv_rows / 8;
  // Q stays in shared memory where registers are short: O, Q and scores, and what goes with them.
  constexpr int kNeeded = D + 4 * kColumns + 90;
  constexpr bool kQueriesInRegisters =
      kTiles == 1 && kNeeded <= RegisterBudget<Variant>::value;
  const Scope<tile.warps> scope{kItems, thread};
  const int lane = scope.lane(), row0 = scope.warp() * kTiles * 16;

  copy::load_queries<D, tile.q_rows>(smem, a, item, scope);
  ptx::cp_async_commit();
  KvLoop<D, tile.kv_rows, tile.stages, tile.warps> loop(a, item, scope, smem + tile.q_rows * D * 2);
  loop.start();
  ptx::cp_async_wait<decltype(loop)::kInFlight>();
  scope.sync();

  const mma::Queries<D, kTiles, kQueriesInRegisters> queries(smem + row0 * D * 2, lane);
  RowState<D, kTiles> state;
  mma::Weights<kTiles, kColumns> p;
  loop.run(
      [&](uint32_t k_tile, int kv) {
        float s[kTiles][kColumns][4];
        mma::scores<T, D>(s, queries, k_tile, lane);
        weigh(state, s, a, item, row0, kv, lane);
        mma::pack_weights<T>(p, s);
      },
      [&](uint32_t v_tile) { mma::weighted_values<T, D>(state.o, p, v_tile, lane); });
  store_rows<T>(state, a, item, row0, lane);
}

}  // namespace pod::op
