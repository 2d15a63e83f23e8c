// prefill_item.cuh: a block of packed query rows against a range of keys (FlashAttention-2 style).
//
// Scope   all prefill warps of the CTA; each owns q_rows / warps rows, so no warp waits for
//         another's softmax
// Smem    Q [q_rows, D] | K [kv_rows, D] x stages | V [kv_rows, D] x stages
// Out     out and lse, or partial O, m and l of a KV split
#pragma once

#include "pod/mma/products.cuh"
#include "pod/op/rows.cuh"
#include "pod/op/start.cuh"

namespace pod::op {

template <class Variant>
POD_DEVICE void prefill_item(const KernelArguments& a, const Item& item, uint32_t smem,
                             int thread) {
  using T = typename Variant::Element;
  using Kv = typename Variant::KvElement;
  using Operand = layout::Operand<T, Kv>;
  constexpr int D = Variant::head_dim;
  constexpr TileConfig tile = Variant::config.prefill;
  constexpr int kTiles = kRowTiles<Variant, Op::kPrefill>;
  constexpr int kColumns = tile.kv_rows / Fragment::kColumns;
  // Q stays in shared memory where registers are short: O, Q and scores, and what goes with them.
  constexpr int kNeeded = D + 4 * kColumns + 90;
  constexpr bool kQueriesInRegisters = kTiles == 1 && kNeeded <= RegisterBudget<Variant>::value;
  const Scope<tile.warps> scope{item_barrier(0), thread};
  const int lane = scope.lane(), row0 = scope.warp() * kTiles * Fragment::kRows;

  KvLoop<Variant, Op::kPrefill> loop(a, item, scope, smem);
  UnitsOf<Variant, kTiles> units;
  start<Variant, Op::kPrefill>(loop, units, a, item, smem, scope);
  ptx::cp_async_wait<decltype(loop)::kInFlight>();
  scope.sync();

  const mma::Queries<D, kTiles, kQueriesInRegisters> queries(
      smem + row0 * Smem<Variant>::prefill.q_row, lane);
  RowState<D, kTiles> state;
  mma::Weights<kTiles, kColumns> p;
  loop.run(
      [&](uint32_t k_tile, int kv) {
        float s[kTiles][kColumns][4];
        mma::scores<Operand, Kv, D>(s, queries, k_tile, lane);
        weigh(state, s, units, a, item, row0, kv, lane);
        mma::pack_weights<Operand>(p, s);
      },
      [&](uint32_t v_tile) { mma::weighted_values<Operand, Kv, D>(state.o, p, v_tile, lane); });
  units.settle(state, a);
  store_rows<T, layout::kOrder<Kv>>(state, a, item, row0, lane);
}

}  // namespace pod::op
