// panel_ring.cuh: the ring of K and V tiles between the two warpgroups of a prefill item on wgmma:
// one copies, the other multiplies.
//
// Smem    Q [q_rows, D] | K [kv_rows, D] x stages | V [kv_rows, D] x stages, all in panels
//
// Named barriers say what has landed and what may be overwritten. Of each, one warpgroup tells and
// goes on, the other waits.
#pragma once

#include "pod/layout/barriers.cuh"
#include "pod/layout/panels.cuh"
#include "pod/op/kv_loop.cuh"

namespace pod::op {

// Address at which the panels of an item begin.
POD_DEVICE uint32_t panels_in(const uint8_t* smem) {
  return (ptx::smem_address(smem) + kPanelAlignment - 1) / kPanelAlignment * kPanelAlignment;
}

template <class Variant>
struct PanelRing {
  static constexpr TileConfig tile = Variant::config.prefill;
  static constexpr int kRows = tile.kv_rows, kStages = tile.stages;

  POD_DEVICE explicit PanelRing(uint32_t smem)
      : tiles_{ptx::warp_uniform(smem) + Smem<Variant>::prefill.k} {}

  POD_DEVICE static int next(int stage) { return stage + 1 == kStages ? 0 : stage + 1; }
  // Whether a tile is copied into the place of the one that starts at key `kv`.
  POD_DEVICE static bool is_reused(int kv, int end) { return kv + kStages * kRows < end; }

  POD_DEVICE uint32_t q() const { return tiles().base - Smem<Variant>::prefill.k; }
  POD_DEVICE uint32_t k(int stage) const { return tiles().k(stage); }
  POD_DEVICE uint32_t v(int stage) const { return tiles().v(stage); }
  // Where bytes land before they are widened into a tile.
  POD_DEVICE uint32_t landing() const { return q() + Smem<Variant>::prefill.landing; }

  POD_DEVICE static void await(Turn turn, int stage) {
    ptx::bar_sync(turn_barrier<kStages>(turn, stage), 2 * kGroupThreads);
  }
  POD_DEVICE static void tell(Turn turn, int stage) {
    ptx::bar_arrive(turn_barrier<kStages>(turn, stage), 2 * kGroupThreads);
  }

 private:
  // One register for all its places.
  POD_DEVICE KvRing<Variant, Op::kPrefill> tiles() const { return {ptx::forget(tiles_.base)}; }

  KvRing<Variant, Op::kPrefill> tiles_;
};

// The warpgroup that copies: K and V of tile after tile, each as its place becomes free. What was
// issued is told of one copy later, so that two are in flight. `thread` is 0 .. 127.
template <class Variant>
POD_DEVICE void copy_panels(const KernelArguments& a, const Item& item, uint32_t smem, int thread) {
  using Ring = PanelRing<Variant>;
  constexpr int D = Variant::head_dim, kRows = Ring::kRows;
  const Ring ring(smem);
  copy::KvLoader<D * layout::kElementBytes, kRows, kGroupWarps, layout::Panels<D, kRows>> loader(
      a, item, thread);
  const int kv0 = ptx::warp_uniform(item.kv0), end = ptx::warp_uniform(item.kv1);
  int stage = 0, before = 0;
  loader.look_up(kv0);
  for (int kv = kv0; kv < end; kv += kRows) {
    const bool taken = kv >= kv0 + Ring::kStages * kRows;
    if (taken) ring.await(Turn::kKeysFree, stage);
    loader.resolve(kv);
    loader.load_k(ring.k(stage), kv);
    ptx::cp_async_commit();
    loader.look_up(kv + kRows);
    ptx::cp_async_wait<1>();
    ptx::fence_proxy_async();
    if (kv > kv0) ring.tell(Turn::kValuesLanded, before);
    if (taken) ring.await(Turn::kValuesFree, stage);
    loader.load_v(ring.v(stage), kv);
    ptx::cp_async_commit();
    ptx::cp_async_wait<1>();
    ptx::fence_proxy_async();
    ring.tell(Turn::kKeysLanded, stage);
    before = stage;
    stage = ring.next(stage);
  }
  ptx::cp_async_wait<0>();
  ptx::fence_proxy_async();
  ring.tell(Turn::kValuesLanded, before);
}

}  // namespace pod::op
