// start.cuh: how an item on mma begins: its Q, and the first tiles of K and V on their way.
#pragma once

#include "pod/copy/query_tile.cuh"
#include "pod/op/kv_loop.cuh"
#include "pod/op/rows.cuh"

namespace pod::op {

// Rows of 16 that a warp of an item owns; those of a decode item all own the same.
template <class Variant, Op kOp>
constexpr int kRowTiles =
    kOp == Op::kDecode ? 1
                       : ItemShape<Variant, kOp>::tile.q_rows /
                             ItemShape<Variant, kOp>::tile.warps / Fragment::kRows;

// Q is there for all warps after cp_async_wait<Loop::kInFlight>() and a barrier. Q for K of bytes
// passes through registers: behind the copies, so that these do not wait for it.
template <class Variant, Op kOp, class Loop, class RowUnits>
POD_DEVICE void start(Loop& loop, RowUnits& units, const KernelArguments& a, const Item& item,
                      uint32_t q_tile, const Scope<ItemShape<Variant, kOp>::tile.warps>& scope) {
  constexpr TileConfig tile = ItemShape<Variant, kOp>::tile;
  constexpr int D = Variant::head_dim, kThreads = tile.warps * kWarpSize;
  constexpr int kTiles = kRowTiles<Variant, kOp>;
  if constexpr (sizeof(typename Variant::KvElement) > 1) {
    copy::load_queries<D, tile.q_rows, kThreads>(q_tile, a, item, scope.thread);
    ptx::cp_async_commit();
    loop.start();
  } else {
    loop.start();
    const int warp = scope.warp();
    POD_UNROLL
    for (int i = 0; i < kTiles; ++i) {
      const int row0 = kOp == Op::kDecode ? 0 : (warp * kTiles + i) * Fragment::kRows;
      copy::store_operand_queries<typename Variant::Element, D, layout::Order::kSplit,
                                  layout::Rows<D * kQBytes>>(
          q_tile, a, item, row0, scope.lane(), units.of[i],
          [&](int row) { return kOp != Op::kDecode || row % tile.warps == warp; });
    }
  }
}

}  // namespace pod::op
