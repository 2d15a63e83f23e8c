// rows.cuh: what items of all kinds do with rows of scores, and with finished rows.
#pragma once

#include "pod/layout/bytes.cuh"
#include "pod/output.cuh"

namespace pod::op {

// What one of the scores of a row is worth: where kOwn, a power of two of the row's own, by which Q
// was brought to the range of fp16 (copy/query_tile.cuh).
template <int kTiles, bool kOwn>
struct Units {
  float of[kTiles][Fragment::kHalves];

  // Makes scores plain numbers, before they are capped.
  template <int kColumns>
  POD_DEVICE void apply(float (&s)[kTiles][kColumns][4]) const {
    if constexpr (kOwn) {
      Fragment::for_each_row<kTiles>([&](int tile, int half) {
        POD_UNROLL
        for (int n = 0; n < kColumns; ++n) {
          s[tile][n][Fragment::at(half, 0)] *= of[tile][half];
          s[tile][n][Fragment::at(half, 1)] *= of[tile][half];
        }
      });
    }
  }
  // What turns a score into the exponent of a power of two.
  POD_DEVICE float scale(const KernelArguments& a, int tile, int half) const {
    return kOwn && !a.capped ? a.score_scale * of[tile][half] : a.score_scale;
  }
  // A finished row's m becomes a plain number.
  template <int D>
  POD_DEVICE void settle(RowState<D, kTiles>& state, const KernelArguments& a) const {
    if (kOwn && !a.capped) {
      Fragment::for_each_row<kTiles>(
          [&](int tile, int half) { state.m[tile][half] *= of[tile][half]; });
    }
  }
};

// Of a variant's items.
template <class Variant, int kTiles>
using UnitsOf = Units<kTiles, sizeof(typename Variant::KvElement) == 1>;

// Caps the scores of keys kv .. where that applies and, unless the tile is `whole`, masks those
// that a row does not see. `place()` gives the first row of the fragment and the lane: asked only
// for a tile that is cut, so that no other tile has them in registers.
struct Place {
  int row0, lane;
};
template <int kTiles, bool kOwn, int kColumns, typename GetPlace>
POD_DEVICE void limit_scores(float (&s)[kTiles][kColumns][4], const Units<kTiles, kOwn>& units,
                             const KernelArguments& a, const Item& item, int kv, bool whole,
                             GetPlace place) {
  if (whole && !a.capped) return;  // most tiles, by one branch
  if (a.capped) {
    units.apply(s);
    cap_scores(s, a.cap_argument);
  }
  if (!whole) {
    const Place at = place();
    mask_scores(s, a, item, at.row0, kv, at.lane);
  }
}

// Scores of one tile become weights.
template <int D, int kTiles, bool kOwn, int kColumns>
POD_DEVICE void weigh(RowState<D, kTiles>& state, float (&s)[kTiles][kColumns][4],
                      const Units<kTiles, kOwn>& units, const KernelArguments& a, const Item& item,
                      int row0, int kv, int lane) {
  const bool whole = WholeTiles(item, kColumns * Fragment::kColumns).holds(kv);
  limit_scores(s, units, a, item, kv, whole, [&] { return Place{row0, lane}; });
  softmax_step(state, s, [&](int tile, int half) { return units.scale(a, tile, half); });
}

// Finished numbers of a row that is not partial. The four lanes that share it write 16 bytes each
// at once, 64 together where columns are in their order: by pairs they would write half of a
// sector, and four times as often.
template <typename T, layout::Order kOrder, int kAlong>
POD_DEVICE void store_blocks(const RowOutput<T>& output, const float (&o)[kAlong][4], int half,
                             int lane, float inverse, bool writes) {
  constexpr int kLanes = Fragment::kLanes, D = kAlong * Fragment::kColumns;
  static_assert(kAlong % kLanes == 0, "every lane has a block");
  POD_UNROLL
  for (int first = 0; first < kAlong; first += kLanes) {
    uint32_t x[kLanes];
    POD_UNROLL
    for (int i = 0; i < kLanes; ++i) {
      x[i] = ptx::pack2<T>(o[first + i][Fragment::at(half, 0)] * inverse,
                           o[first + i][Fragment::at(half, 1)] * inverse);
    }
    gather_block(x, lane);
    if (writes) output.store_block(layout::block_column<kOrder, D>(first + lane % kLanes), x);
  }
}

// A warp's finished rows, the first of which is row0 of the item.
template <typename T, layout::Order kOrder, int D, int kTiles>
POD_DEVICE void store_rows(const RowState<D, kTiles>& state, const KernelArguments& a,
                           const Item& item, int row0, int lane) {
  Fragment::for_each_row<kTiles>([&](int tile, int half) {
    const float l = state.total(tile, half);
    const int row = row0 + tile * Fragment::kRows + Fragment::row(lane, half);
    const bool exists = row < item.rows;
    const RowOutput<T> output(a, item, exists ? row : 0, D);
    const bool writes_end = exists && Fragment::is_first(lane);
    const float inverse = output.end(state.m[tile][half], l, writes_end);
    constexpr bool kBlocks = kOrder != layout::Order::kSplit;
    if constexpr (kBlocks) {
      if (!output.is_partial()) {
        store_blocks<T, kOrder>(output, state.o[tile], half, lane, inverse, exists);
        return;
      }
    }
    if (!exists) return;
    layout::for_each_pair<kOrder>(state.o[tile], half, lane, [&](int column, float x, float y) {
      if constexpr (kBlocks) {
        output.store_partial(column, x * inverse, y * inverse);
      } else {
        output.store(column, x * inverse, y * inverse);
      }
    });
  });
}

}  // namespace pod::op
