// kv_ahead.cuh: the pipeline of kv_turns.cuh with keys a tile ahead of values, so that scores of a
// tile and values of the one before are one turn: one barrier and one wait for both products.
//
// Copies are issued in the order K0 K1 V0 K2 V1 K3 ... to one place after the other. A turn reads
// two places; the two that the turn before read are filled again, and one more is on its way.
#pragma once

#include "pod/copy/kv_tile.cuh"
#include "pod/layout/scope.cuh"
#include "pod/ptx/wgmma.cuh"
#include "pod/smem.h"

namespace pod::op {

// `Layout` is of panels, which a unit reads that sees copies only past a fence.
template <class Variant, class Layout>
class KvAhead {
 public:
  static constexpr TileConfig tile = Variant::config.decode;
  static constexpr ItemSmem smem = Smem<Variant>::decode;
  static constexpr int kRows = tile.kv_rows, kPlaces = 5;
  static_assert(tile.stages == 2, "2 * stages + 1 places");
  static_assert(Layout::kIsAsync, "fences are for panels");

  // `smem_address` is that of the item's shared memory.
  POD_DEVICE KvAhead(const KernelArguments& a, const Item& item, const Scope<tile.warps>& scope,
                     uint32_t smem_address)
      : loader_(a, item, scope.thread), base_(smem_address + smem.k), scope_(scope),
        kv0_(item.kv0) {}

  // Fills the ring. What was issued before has landed with the first keys.
  POD_DEVICE void start() {
    loader_.look_up(kv0_);
    load_k(kv0_, 0);
    ptx::cp_async_commit();
    loader_.look_up(kv0_ + kRows);
    loader_.keep_v();
    load_k(kv0_ + kRows, 1);
    ptx::cp_async_commit();
    load_v(kv0_, 2);
    ptx::cp_async_commit();
    loader_.look_up(kv0_ + 2 * kRows);
    loader_.keep_v();
    load_k(kv0_ + 2 * kRows, 3);
    load_v(kv0_ + kRows, 4);
    ptx::cp_async_commit();
    loader_.look_up(kv0_ + 3 * kRows);
  }

  // on_first(k_tile, kv) for the first keys, which start at kv; on_turn(k_tile, v_tile, kv, issue)
  // for each further tile's keys and the values before: it calls issue() once, which sets the next
  // copies on their way; on_last(v_tile). Ends with all warps past their last product, and
  // nothing in flight.
  template <typename OnFirst, typename OnTurn, typename OnLast>
  POD_DEVICE void run(OnFirst on_first, OnTurn on_turn, OnLast on_last) {
    show<3>();
    on_first(at(0), kv0_);
    int place = 0, kv = kv0_;  // values of the turn before lay at `place`
    for (; kv + kRows < loader_.end(); kv += kRows) {
      show<1>();
      on_turn(at(after(place, 1)), at(after(place, 2)), kv + kRows, [&] { issue(kv, place); });
      place = after(place, 2);
    }
    show<1>();
    on_last(at(after(place, 2)));
    scope_.sync();
  }

 private:
  POD_DEVICE static int after(int place, int places) {
    const int sum = place + places;
    return sum >= kPlaces ? sum - kPlaces : sum;
  }
  POD_DEVICE uint32_t at(int place) const { return base_ + place * smem.kv_tile; }

  // All copies but those of the `pending` newest groups have landed, for all warps and the unit.
  template <int pending>
  POD_DEVICE void show() const {
    ptx::cp_async_wait<pending>();
    ptx::fence_proxy_async();
    scope_.sync();
  }
  // In the turn of values of the tile that starts at key `kv`. The first has one place less to
  // fill: start() did.
  POD_DEVICE void issue(int kv, int place) {
    if (kv > kv0_) load_v(kv + kRows, after(place, 4));
    ptx::cp_async_commit();
    loader_.keep_v();
    load_k(kv + 3 * kRows, place);
    ptx::cp_async_commit();
    loader_.look_up(kv + 4 * kRows);
  }
  // `kv` is the first key of the tile, which may lie past the last.
  POD_DEVICE void load_k(int kv, int place) {
    if (kv >= loader_.end()) return;
    loader_.resolve(kv);
    loader_.load_k(at(place), kv);
  }
  POD_DEVICE void load_v(int kv, int place) {
    if (kv < loader_.end()) loader_.load_kept_v(at(place), kv);
  }

  copy::KvLoader<smem.kv_row, kRows, tile.warps, Layout> loader_;
  uint32_t base_;
  Scope<tile.warps> scope_;
  int kv0_;
};

}  // namespace pod::op
