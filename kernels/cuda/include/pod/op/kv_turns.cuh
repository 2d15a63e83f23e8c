// kv_turns.cuh: the pipeline of kv_loop.cuh on one ring of 2 * stages + 1 places, which K and V
// take in turns: a place more is in flight, where all of an SM's decode is one item's.
//
// Copies are issued in the order K0 V0 K1 V1 ... to one place after the other, and every issue
// closes a group, empty ones past the last tile included. One barrier per copy: the one that shows
// it also shows that all warps have left the place before it, which the next copy overwrites.
#pragma once

#include "pod/copy/kv_tile.cuh"
#include "pod/layout/scope.cuh"
#include "pod/ptx/wgmma.cuh"
#include "pod/smem.h"

namespace pod::op {

// `Layout` is of panels, which a unit reads that sees copies only past a fence.
template <class Variant, class Layout>
class KvTurns {
 public:
  static constexpr TileConfig tile = Variant::config.decode;
  static constexpr ItemSmem smem = Smem<Variant>::decode;
  static constexpr int kRows = tile.kv_rows, kAhead = 2 * tile.stages, kPlaces = kAhead + 1;
  static_assert(Layout::kIsAsync, "fences are for panels");

  // `smem_address` is that of the item's shared memory.
  POD_DEVICE KvTurns(const KernelArguments& a, const Item& item, const Scope<tile.warps>& scope,
                     uint32_t smem_address)
      : loader_(a, item, scope.thread), base_(smem_address + smem.k), scope_(scope),
        kv0_(item.kv0) {}

  // Fills the ring but for one place.
  POD_DEVICE void start() {
    loader_.look_up(kv0_);
    POD_UNROLL
    for (int stage = 0; stage < tile.stages; ++stage) {
      issue_k(kv0_ + stage * kRows, 2 * stage);
      issue_v(kv0_ + stage * kRows, 2 * stage + 1);
    }
  }

  // on_k(k_tile, kv, issue) and on_v(v_tile, issue) for each tile, kv its first key. Both call
  // issue() once, which sets the next copy on its way: beside a product, for here nothing else
  // covers what it costs to find the rows. Ends as KvLoop::run.
  template <typename OnK, typename OnV>
  POD_DEVICE void run(OnK on_k, OnV on_v) {
    int place = 0, before = kPlaces - 1;
    const auto turn = [&] {
      before = place;
      place = place + 1 == kPlaces ? 0 : place + 1;
    };
    for (int kv = kv0_; kv < loader_.end(); kv += kRows) {
      const int ahead = kv + tile.stages * kRows;
      show();
      on_k(at(place), kv, [&] { issue_k(ahead, before); });
      turn();
      show();
      on_v(at(place), [&] { issue_v(ahead, before); });
      turn();
    }
    scope_.sync();
  }

 private:
  POD_DEVICE uint32_t at(int place) const { return base_ + place * smem.kv_tile; }

  // The oldest copy has landed, for all warps and the unit.
  POD_DEVICE void show() const {
    ptx::cp_async_wait<kAhead - 1>();
    ptx::fence_proxy_async();
    scope_.sync();
  }
  // `kv` is the first key of the tile, which may lie past the last.
  POD_DEVICE void issue_k(int kv, int place) {
    if (kv < loader_.end()) {
      loader_.resolve(kv);
      loader_.load_k(at(place), kv);
    }
    ptx::cp_async_commit();
  }
  // V is the second use of a tile's places, so the next tile's are looked up here.
  POD_DEVICE void issue_v(int kv, int place) {
    if (kv < loader_.end()) loader_.load_v(at(place), kv);
    ptx::cp_async_commit();
    if (kv + kRows < loader_.end()) loader_.look_up(kv + kRows);
  }

  copy::KvLoader<smem.kv_row, kRows, tile.warps, Layout> loader_;
  uint32_t base_;
  Scope<tile.warps> scope_;
  int kv0_;
};

}  // namespace pod::op
