// wide_ring.cuh: panel_ring.cuh and pair_ring.cuh for K and V of bytes, which the copying warpgroup
// widens.
//
// Smem    as there, with 16-bit tiles; behind them the landing: kPlaces x 16 bytes of each thread
//
// A thread widens what it copied itself, so nobody waits between the two. It has kSteps chunks of a
// tile of K, and as many of V; they land at places of their own, but the last ones of both share
// one. As a tile is widened, what comes next to its places sets out, in two groups: the last chunk
// of the other tile, which is widened next, and the rest of the tile after.
#pragma once

#include "pod/layout/bytes.cuh"
#include "pod/op/pair_ring.cuh"
#include "pod/ptx/shared.cuh"

namespace pod::op {

template <class Variant>
class Widener {
 public:
  using Ring = PanelRing<Variant>;
  static constexpr int D = Variant::head_dim, kRows = Ring::kRows;
  using Panels = layout::Panels<D, kRows>;
  using Loader = copy::KvLoader<D, kRows, kGroupWarps>;
  // Chunks of K, or of V, that a thread has of a tile.
  static constexpr int kSteps = Loader::kSteps;
  static constexpr int kPlaces = 2 * kSteps - 1;
  static_assert(kPlaces * kLandingBytes == landing_bytes(Ring::tile, D), "places of the landing");

  POD_DEVICE Widener(const KernelArguments& a, const Item& item, uint32_t smem, int thread)
      : ring_(smem), loader_(a, item, thread), thread_(thread) {}

  // All of the first tile but its last chunk of V.
  POD_DEVICE void start(int kv) {
    loader_.look_up(kv);
    loader_.resolve(kv);
    issue_k<0, kSteps>(kv);
    issue_v<0, kSteps - 1>(kv);
    loader_.look_up(kv + kRows);
  }

  // K, or V, that landed, into a tile of the ring.
  POD_DEVICE void widen_k(int stage) const { widen(ring_.k(stage), kKeys); }
  POD_DEVICE void widen_v(int stage) const { widen(ring_.v(stage), kValues); }

  // After K, or V, of a tile was widened: fills the places that it left. `next` is the first key of
  // the tile after.
  POD_DEVICE void follow_k(int next) {
    issue_v<kSteps - 1, kSteps>(next - kRows);
    loader_.resolve_k(next);
    issue_k<0, kSteps - 1>(next);
  }
  POD_DEVICE void follow_v(int next) {
    issue_k<kSteps - 1, kSteps>(next);
    loader_.resolve_v(next);
    // Worked out here, or the loop's old counter is held beside the new one: a register too many.
    loader_.look_up(ptx::forget(next) + kRows);
    issue_v<0, kSteps - 1>(next);
  }

 private:
  // The first places of both; the last of K is that of V, too.
  static constexpr int kKeys = 0, kValues = kSteps;
  POD_DEVICE uint32_t place(int first, int step) const {
    const int place = step + 1 == kSteps ? kSteps - 1 : first + step;
    return ring_.landing() + ptx::forget(thread_) * layout::kChunkBytes + place * kLandingBytes;
  }

  // Chunks kFirst .. kEnd - 1 of K, or V, of the tile at key `kv` on their way: a group.
  template <int kFirst, int kEnd>
  POD_DEVICE void issue_k(int kv) const {
    loader_.template load_k_chunks<kFirst, kEnd>([&](int i) { return place(kKeys, i); }, kv);
    ptx::cp_async_commit();
  }
  template <int kFirst, int kEnd>
  POD_DEVICE void issue_v(int kv) const {
    loader_.template load_v_chunks<kFirst, kEnd>([&](int i) { return place(kValues, i); }, kv);
    ptx::cp_async_commit();
  }

  // What landed at the places from `first` on, into `tile`; one chunk is read ahead.
  POD_DEVICE void widen(uint32_t tile, int first) const {
    ptx::cp_async_wait<1>();
    const int thread = ptx::forget(thread_), chunk = Loader::chunk_of(thread);
    Int4 landed[2];
    landed[0] = ptx::ld_shared_16(place(first, 0));
    POD_UNROLL
    for (int i = 0; i < kSteps; ++i) {
      if (i + 1 < kSteps) landed[(i + 1) % 2] = ptx::ld_shared_16(place(first, i + 1));
      const Int4& x = landed[i % 2];
      const int row = Loader::row_of(thread, i);
      store(Panels::chunk_address(tile, row, layout::panel_place<D>(chunk, 0)), x.x, x.y);
      store(Panels::chunk_address(tile, row, layout::panel_place<D>(chunk, 1)), x.z, x.w);
    }
  }
  POD_DEVICE static void store(uint32_t at, int first, int second) {
    const auto a = static_cast<uint32_t>(first), b = static_cast<uint32_t>(second);
    ptx::st_shared_16(
        at, {static_cast<int>(layout::widen2<0>(a)), static_cast<int>(layout::widen2<1>(a)),
             static_cast<int>(layout::widen2<0>(b)), static_cast<int>(layout::widen2<1>(b))});
  }

  Ring ring_;
  Loader loader_;
  int thread_;
};

// The warpgroup that copies and widens. `thread` is 0 .. 127.
template <class Variant>
POD_DEVICE void widen_panels(const KernelArguments& a, const Item& item, uint32_t smem,
                             int thread) {
  using Ring = PanelRing<Variant>;
  Widener<Variant> widener(a, item, smem, thread & (kGroupThreads - 1));
  const int kv0 = ptx::warp_uniform(item.kv0), end = ptx::warp_uniform(item.kv1);
  int stage = 0;
  widener.start(kv0);
  for (int kv = kv0; kv < end; kv += Ring::kRows) {
    const bool taken = kv >= kv0 + Ring::kStages * Ring::kRows;
    if (taken) Ring::await(Turn::kKeysFree, stage);
    widener.widen_k(stage);
    ptx::fence_proxy_async();
    Ring::tell(Turn::kKeysLanded, stage);
    widener.follow_k(kv + Ring::kRows);
    if (taken) Ring::await(Turn::kValuesFree, stage);
    widener.widen_v(stage);
    ptx::fence_proxy_async();
    Ring::tell(Turn::kValuesLanded, stage);
    widener.follow_v(kv + Ring::kRows);
    stage = Ring::next(stage);
  }
  ptx::cp_async_wait<0>();
}

// The same for a pair, of one item after the other: see copy_ahead(). Keys need not be ahead, as
// what comes next has landed already when its place becomes free. `at_last` runs before the last
// values are told of.
template <class Variant, typename AtLast>
POD_DEVICE void widen_tiles(const KernelArguments& a, const Item& item, PairCopySide<Variant>& side,
                            uint32_t smem, int thread, AtLast at_last) {
  using Ring = PairRing<Variant>;
  Widener<Variant> widener(a, item, smem, thread);
  const int kv0 = ptx::warp_uniform(item.kv0), end = ptx::warp_uniform(item.kv1);
  widener.start(kv0);
  for (int kv = kv0; kv < end; kv += Ring::kRows) {
    const int place = side.place(), stage = Ring::stage_of(place);
    side.await(Turn::kKeysFree, place);
    widener.widen_k(stage);
    ptx::fence_proxy_async();
    side.tell(Turn::kKeysLanded, place);
    widener.follow_k(kv + Ring::kRows);
    side.await(Turn::kValuesFree, place);
    widener.widen_v(stage);
    ptx::fence_proxy_async();
    if (kv + Ring::kRows >= end) at_last();
    side.tell(Turn::kValuesLanded, place);
    widener.follow_v(kv + Ring::kRows);
    side.advance();
  }
  ptx::cp_async_wait<0>();
}

}  // namespace pod::op
