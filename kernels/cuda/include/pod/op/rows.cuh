// rows.cuh: what items of all kinds do with rows of scores, and with finished rows.
#pragma once

#include "pod/layout/bytes.cuh"
#include "pod/output.cuh"

namespace pod::op {

// Caps the scores of keys kv .. and masks those that a row does not see, where either applies.
// `place()` gives the first row of the fragment and the lane: asked only for a tile that is cut, so
// that no other tile has them in registers.
struct Place {
  int row0, lane;
};
template <int kTiles, int kColumns, typename GetPlace>
POD_DEVICE void limit_scores(float (&s)[kTiles][kColumns][4], const KernelArguments& a,
                             const Item& item, int kv, GetPlace place) {
  if (a.capped) cap_scores(s, a.cap_argument);
  if (is_cut(item, kv, kColumns * Fragment::kColumns)) {
    const Place at = place();
    mask_scores(s, a, item, at.row0, kv, at.lane);
  }
}

// Scores of one tile become weights.
template <int D, int kTiles, int kColumns>
POD_DEVICE void weigh(RowState<D, kTiles>& state, float (&s)[kTiles][kColumns][4],
                      const KernelArguments& a, const Item& item, int row0, int kv, int lane) {
  limit_scores(s, a, item, kv, [&] { return Place{row0, lane}; });
  softmax_step(state, s, a.score_scale);
}

// A warp's finished rows, the first of which is row0 of the item.
template <typename T, typename Kv, int D, int kTiles>
POD_DEVICE void store_rows(const RowState<D, kTiles>& state, const KernelArguments& a,
                           const Item& item, int row0, int lane) {
  POD_UNROLL
  for (int tile = 0; tile < kTiles; ++tile) {
    POD_UNROLL
    for (int half = 0; half < Fragment::kHalves; ++half) {
      const float l = state.total(tile, half);
      const int row = row0 + tile * Fragment::kRows + Fragment::row(lane, half);
      if (row < item.rows) {
        const RowOutput<T> output(a, item, row, D);
        const float inverse = output.end(state.m[tile][half], l, Fragment::is_first(lane));
        layout::for_each_pair<Kv>(state.o[tile], half, lane, [&](int column, float x, float y) {
          output.store(column, x * inverse, y * inverse);
        });
      }
    }
  }
}

}  // namespace pod::op
