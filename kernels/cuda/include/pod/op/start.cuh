// start.cuh: how an item on mma begins: its Q, and the first tiles of K and V on their way.
#pragma once

#include "pod/copy/query_tile.cuh"
#include "pod/op/kv_loop.cuh"

namespace pod::op {

// Q is there for all warps after cp_async_wait<Loop::kInFlight>() and a barrier. Q for K of bytes
// passes through registers: behind the copies, so that these do not wait for it.
template <class Variant, Op kOp, class Loop>
POD_DEVICE void start(Loop& loop, const KernelArguments& a, const Item& item, uint32_t q_tile,
                      int thread) {
  constexpr TileConfig tile = ItemShape<Variant, kOp>::tile;
  constexpr int D = Variant::head_dim, kThreads = tile.warps * kWarpSize;
  if constexpr (sizeof(typename Variant::KvElement) > 1) {
    copy::load_queries<D, tile.q_rows, kThreads>(q_tile, a, item, thread);
    ptx::cp_async_commit();
    loop.start();
  } else {
    loop.start();
    copy::store_split_queries<D, tile.q_rows, kThreads>(q_tile, a, item, thread);
  }
}

}  // namespace pod::op
