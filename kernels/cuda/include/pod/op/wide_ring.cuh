// wide_ring.cuh: panel_ring.cuh for K and V of bytes, which the copying warpgroup widens.
//
// Smem    as there, with 16-bit tiles; behind them the landing: kPlaces x 16 bytes of each thread
//
// A thread widens what it copied itself, so nobody waits between the two. Its chunks come in the
// order of the tiles, K and V in turn: while one is widened the next kPlaces are on their way.
#pragma once

#include "pod/layout/bytes.cuh"
#include "pod/op/panel_ring.cuh"
#include "pod/ptx/shared.cuh"

namespace pod::op {

template <class Variant>
class Widener {
 public:
  using Ring = PanelRing<Variant>;
  using T = typename Variant::Element;
  static constexpr int D = Variant::head_dim, kRows = Ring::kRows;
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
    POD_UNROLL
    for (int chunk = 0; chunk < kPlaces; ++chunk) {
      issue(chunk, kv);
      pass();
    }
    loader_.look_up(kv + kRows);
  }

  // K of the tile at key `kv`, into its place in the ring; every place that is read is filled anew.
  POD_DEVICE void widen_k(int kv, int stage) {
    POD_UNROLL
    for (int step = 0; step < kSteps; ++step) {
      widen(ring_.k(stage), step);
      if (step == 0) {
        issue(kPlaces, kv);
        loader_.resolve(kv + kRows);
        loader_.look_up(kv + 2 * kRows);
      } else {
        issue(step - 1, kv + kRows);
      }
      pass();
    }
  }
  POD_DEVICE void widen_v(int kv, int stage) {
    POD_UNROLL
    for (int step = 0; step < kSteps; ++step) {
      widen(ring_.v(stage), step);
      issue(kSteps + step - 1, kv + kRows);
      pass();
    }
  }

 private:
  // Chunk 0 .. 2 kSteps - 1 of K, then V, of the tile at key `kv` on its way to the thread's place.
  POD_DEVICE void issue(int chunk, int kv) const {
    if (kv < loader_.end()) {
      if (chunk < kSteps) {
        loader_.load_k_chunk(place(), kv, chunk);
      } else {
        loader_.load_v_chunk(place(), kv, chunk - kSteps);
      }
    }
    ptx::cp_async_commit();
  }

  // What landed longest ago, into two chunks of `tile`: even columns and odd ones. The second panel
  // has its even chunks in the same banks as the first, so lanes there begin with the odd.
  POD_DEVICE void widen(uint32_t tile, int step) const {
    ptx::cp_async_wait<kPlaces - 1>();
    const Int4 x = ptx::ld_shared_16(place());
    const int thread = ptx::forget(thread_);
    const int row = Loader::row_of(thread, step), chunk = 2 * Loader::chunk_of(thread);
    const int odd = chunk / 8 % 2;
    store(layout::Panels<D, kRows>::chunk_address(tile, row, chunk + odd), x, odd);
    store(layout::Panels<D, kRows>::chunk_address(tile, row, chunk + 1 - odd), x, 1 - odd);
  }
  POD_DEVICE static void store(uint32_t at, const Int4& x, int odd) {
    const auto half = [odd](int bytes) {
      return static_cast<int>(layout::widen2<T>(static_cast<uint32_t>(bytes) << (8 - 8 * odd)));
    };
    ptx::st_shared_16(at, {half(x.x), half(x.y), half(x.z), half(x.w)});
  }

  POD_DEVICE uint32_t place() const {
    return ring_.landing() + place_ * kLandingBytes + ptx::forget(thread_) * layout::kChunkBytes;
  }
  POD_DEVICE void pass() { place_ = place_ + 1 == kPlaces ? 0 : place_ + 1; }

  Ring ring_;
  Loader loader_;
  int thread_;
  int place_ = 0;  // of the chunk that is next to be widened, and then of the one to be copied
};

// The warpgroup that copies and widens. `thread` is 0 .. 127.
template <class Variant>
POD_DEVICE void widen_panels(const KernelArguments& a, const Item& item, uint32_t smem,
                             int thread) {
  using Ring = PanelRing<Variant>;
  Widener<Variant> widener(a, item, smem, thread);
  const int kv0 = ptx::warp_uniform(item.kv0), end = ptx::warp_uniform(item.kv1);
  int stage = 0;
  widener.start(kv0);
  for (int kv = kv0; kv < end; kv += Ring::kRows) {
    const bool taken = kv >= kv0 + Ring::kStages * Ring::kRows;
    if (taken) Ring::await(Turn::kKeysFree, stage);
    widener.widen_k(kv, stage);
    ptx::fence_proxy_async();
    Ring::tell(Turn::kKeysLanded, stage);
    if (taken) Ring::await(Turn::kValuesFree, stage);
    widener.widen_v(kv, stage);
    ptx::fence_proxy_async();
    Ring::tell(Turn::kValuesLanded, stage);
    stage = Ring::next(stage);
  }
  ptx::cp_async_wait<0>();
}

}  // namespace pod::op
