// kv_loop.cuh: the software pipeline over the KV tiles of an item.
//
// K and V have a ring of `stages` buffers each. Copies are issued in the order K0 V0 K1 V1 ... and
// every issue closes a group, empty ones past the last tile included, so one constant says how
// many newer groups may be in flight at each wait. Two barriers per tile: the one that shows a
// landed tile also shows that all warps have left the buffer which the next copy overwrites.
#pragma once

#include "pod/copy/kv_tile.cuh"
#include "pod/layout/scope.cuh"
#include "pod/ptx/wgmma.cuh"
#include "pod/smem.h"

namespace pod::op {

// Buffers of an item's ring: K tiles, then V tiles, each [kv_rows, D].
template <class Variant, Op kOp>
struct KvRing {
  static constexpr ItemSmem smem = ItemShape<Variant, kOp>::smem;
  static constexpr uint32_t kTileBytes = smem.kv_tile;
  static constexpr int kStages = (smem.v - smem.k) / smem.kv_tile;
  uint32_t base;  // of K
  POD_DEVICE uint32_t k(int stage) const { return base + stage * kTileBytes; }
  POD_DEVICE uint32_t v(int stage) const { return base + (kStages + stage) * kTileBytes; }
};

// `Layout` is that of K and V tiles; panels are read by a unit that sees copies only past a fence.
template <class Variant, Op kOp, class Layout = layout::Rows<ItemShape<Variant, kOp>::smem.kv_row>>
class KvLoop {
 public:
  static constexpr TileConfig tile = ItemShape<Variant, kOp>::tile;
  static constexpr int kRows = tile.kv_rows, kStages = tile.stages;

  // `smem` is the address of the item's shared memory.
  POD_DEVICE KvLoop(const KernelArguments& a, const Item& item, const Scope<tile.warps>& scope,
                    uint32_t smem)
      : loader_(a, item, scope.thread), ring_{smem + ItemShape<Variant, kOp>::smem.k},
        scope_(scope), kv0_(item.kv0) {}

  // Fills the ring but for its last V. Copies that were issued before have landed after
  // cp_async_wait<kInFlight>().
  static constexpr int kInFlight = 2 * kStages - 1;
  POD_DEVICE void start() {
    loader_.look_up(kv0_);
    POD_UNROLL
    for (int stage = 0; stage < kStages; ++stage) {
      issue_k(kv0_ + stage * kRows, stage);
      if (stage + 1 < kStages) issue_v(kv0_ + stage * kRows, stage);
    }
  }

  // on_k(k_tile, kv) and on_v(v_tile) for each tile, kv its first key. Ends with all warps past
  // their last product, and nothing in flight.
  template <typename OnK, typename OnV>
  POD_DEVICE void run(OnK on_k, OnV on_v) {
    constexpr int kPending = 2 * (kStages - 1);
    int stage = 0, previous = kStages - 1;
    for (int kv = kv0_; kv < loader_.end(); kv += kRows) {
      ptx::cp_async_wait<kPending>();
      show();
      scope_.sync();
      issue_v(kv + (kStages - 1) * kRows, previous);
      on_k(ring_.k(stage), kv);
      ptx::cp_async_wait<kPending>();
      show();
      scope_.sync();
      issue_k(kv + kStages * kRows, stage);
      on_v(ring_.v(stage));
      previous = stage;
      stage = stage + 1 == kStages ? 0 : stage + 1;
    }
    scope_.sync();
  }

 private:
  // What this thread's copies brought, to a unit of its own.
  POD_DEVICE static void show() {
    if constexpr (Layout::kIsAsync) ptx::fence_proxy_async();
  }
  // `kv` is the first key of the tile, which may lie past the last.
  POD_DEVICE void issue_k(int kv, int stage) {
    if (kv < loader_.end()) {
      loader_.resolve(kv);
      loader_.load_k(ring_.k(stage), kv);
    }
    ptx::cp_async_commit();
  }
  // V is the second use of a tile's places, so the next tile's are looked up here.
  POD_DEVICE void issue_v(int kv, int stage) {
    if (kv < loader_.end()) loader_.load_v(ring_.v(stage), kv);
    ptx::cp_async_commit();
    if (kv + kRows < loader_.end()) loader_.look_up(kv + kRows);
  }

  copy::KvLoader<ItemShape<Variant, kOp>::smem.kv_row, kRows, tile.warps, Layout> loader_;
  KvRing<Variant, kOp> ring_;
  Scope<tile.warps> scope_;
  int kv0_;
};

}  // namespace pod::op
