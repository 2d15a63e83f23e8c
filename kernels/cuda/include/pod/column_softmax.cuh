// column_softmax.cuh: online softmax of scores that lie transposed: keys are the rows of an
// accumulator tile, query rows its columns. What decode on wgmma has.
//
// Lanes of the warpgroup that share a query row (layout/columns.cuh) hold other keys, and the same
// reference m: it moves for all at once.
#pragma once

#include "pod/layout/columns.cuh"
#include "pod/lazy_softmax.cuh"

namespace pod {

// What a thread keeps: of O transposed [D, 8 * kTiles] the rows that its warp holds of each 64, m
// of its query rows, and l over the keys that it has seen itself, compensated.
template <int D, int kTiles>
struct ColumnState {
  static constexpr int kBlocks = ColumnFragment::blocks(D), kRows = kTiles * Fragment::kPairs;
  float o[kBlocks][kTiles][4];
  float m[kRows], l[kRows], lost[kRows];
  bool far = false;  // whether scores are to be centred: see lazy_softmax.cuh

  POD_DEVICE ColumnState() {
    for_each_score(o, [](int, float& x) { x = 0.f; });
    POD_UNROLL
    for (int i = 0; i < kRows; ++i) {
      m[i] = kNegativeInfinity;
      l[i] = lost[i] = 0.f;
    }
  }

  POD_DEVICE void add(int place, float rescale, float sum) {
    const float before = l[place] * rescale, after = before + sum;
    lost[place] = lost[place] * rescale + (sum - (after - before));
    l[place] = after;
  }

  // m becomes `highest`, and l and O follow.
  POD_DEVICE void move_to(const float (&highest)[kRows], float scale) {
    float rescale[kRows], furthest = 0.f;
    POD_UNROLL
    for (int i = 0; i < kRows; ++i) {
      rescale[i] = moved(m[i], highest[i], scale);
      m[i] = highest[i];
      if (m[i] != kNegativeInfinity) furthest = max(furthest, fabsf(m[i] * scale));
      add(i, rescale[i], 0.f);
    }
    // Over the lanes of a warp, which hold all rows: so all warps decide alike.
    far = ptx::any(furthest > kFar);
    for_each_score(o, [&](int place, float& x) { x *= rescale[place]; });
  }
};

// The largest of m and the lane's own scores.
template <int D, int kTiles, int kBlocks>
POD_DEVICE void own_highest(float (&highest)[kTiles * Fragment::kPairs],
                            const float (&s)[kBlocks][kTiles][4],
                            const ColumnState<D, kTiles>& state) {
  POD_UNROLL
  for (int i = 0; i < state.kRows; ++i) highest[i] = state.m[i];
  for_each_score(s, [&](int place, const float& x) { highest[place] = max(highest[place], x); });
}

// Whether m is too far behind for weights of 16 bits: see softmax_step_lazily().
template <int D, int kTiles>
POD_DEVICE bool has_grown(const float (&highest)[kTiles * Fragment::kPairs],
                          const ColumnState<D, kTiles>& state, float scale) {
  bool grown = false;
  POD_UNROLL
  for (int i = 0; i < state.kRows; ++i) grown |= is_outgrown(state.m[i], highest[i], scale);
  return grown;
}

// Weights of one block's scores, and their sums by query row, joined to `sums`. The scores stay.
template <int D, int kTiles>
POD_DEVICE void weigh_block(float (&p)[kTiles][4], const float (&s)[kTiles][4],
                            float (&sums)[kTiles * Fragment::kPairs],
                            const ColumnState<D, kTiles>& state, float scale) {
  POD_UNROLL
  for (int place = 0; place < state.kRows; ++place) {
    const float m = state.m[place] == kNegativeInfinity ? 0.f : state.m[place];
    const float centre = state.far ? m : 0.f, reference = state.far ? 0.f : m * scale;
    POD_UNROLL
    for (int half = 0; half < Fragment::kHalves; ++half) {
      const int tile = place / Fragment::kPairs;
      const int i = Fragment::at(half, place % Fragment::kPairs);
      p[tile][i] = ptx::ex2((s[tile][i] - centre) * scale - reference);
      sums[place] += p[tile][i];
    }
  }
}

// Scores of keys that a row does not see become -inf; block 0 starts at key `kv`.
template <int kBlocks, int kTiles>
POD_DEVICE void mask_columns(float (&s)[kBlocks][kTiles][4], const KernelArguments& a,
                             const Item& item, int kv, int thread) {
  thread = ptx::forget(thread);
  POD_UNROLL
  for (int place = 0; place < kTiles * Fragment::kPairs; ++place) {
    const auto keys = layout::visible(a, item, ColumnFragment::row(thread % kWarpSize, place));
    const auto span = static_cast<unsigned>(keys.last - keys.first);
    POD_UNROLL
    for (int half = 0; half < Fragment::kHalves; ++half) {
      const int start = kv + ColumnFragment::key(thread, half) - keys.first;
      POD_UNROLL
      for (int block = 0; block < kBlocks; ++block) {
        const auto after = static_cast<unsigned>(start + block * ColumnFragment::kBlock);
        if (after > span) {
          s[block][place / Fragment::kPairs][Fragment::at(half, place % Fragment::kPairs)] =
              kNegativeInfinity;
        }
      }
    }
  }
}

}  // namespace pod
