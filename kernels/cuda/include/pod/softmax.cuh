// softmax.cuh: online softmax of score fragments, in base 2.
//
// Scores and m, the reference of a row's weights, stay unscaled; `scale` > 0 turns a difference of
// two scores of a row into the exponent of a power of two. Rows may differ in it: `scale_of` gives
// that of a tile and half.
#pragma once

#include "pod/mask.cuh"
#include "pod/ptx/math.cuh"
#include "pod/ptx/sync.cuh"

namespace pod {

// What a lane keeps of its rows: kTiles 16-row tiles of O [16, D], the reference m and the sum of
// weights l, of the lane's own columns. l is compensated: where thousands of tiles weigh the same,
// the roundings of a plain sum all go one way.
template <int D, int kTiles>
struct RowState {
  float o[kTiles][D / 8][4];
  float m[kTiles][2];
  float l[kTiles][2];
  float lost[kTiles][2];  // what rounding took from l

  POD_DEVICE RowState() {
    Fragment::for_each(o, [](float& x) { x = 0.f; });
    Fragment::for_each_row<kTiles>([&](int tile, int half) {
      m[tile][half] = kNegativeInfinity;
      l[tile][half] = lost[tile][half] = 0.f;
    });
  }

  // l moves to another reference, and a tile's weights join it.
  POD_DEVICE void add(int tile, int half, float rescale, float sum) {
    const float before = l[tile][half] * rescale, after = before + sum;
    lost[tile][half] = lost[tile][half] * rescale + (sum - (after - before));
    l[tile][half] = after;
  }

  // The sum of the row's weights, all lanes have it.
  POD_DEVICE float total(int tile, int half) const {
    return row_sum(l[tile][half] + lost[tile][half]);
  }
};

// tanh to a few roundings of its value, since a cap multiplies whatever is wrong with it: so not by
// tanh.approx, and near 0 not by the exponential, which cancels there. A large cap puts all scores
// there. The next term of the series is 2^-26 of the sum; a NaN fails the comparison.
POD_DEVICE float tanh(float x) {
  constexpr float kTwoLog2e = 2.88539008f, kSeries = 0.25f;
  const float y = x * x;
  const float tail = -1.f / 3 + y * (2.f / 15 + y * (-17.f / 315 + y * (62.f / 2835)));
  const float far = 1.f - 2.f * ptx::rcp(1.f + ptx::ex2(kTwoLog2e * x));
  return y < kSeries * kSeries ? x + x * y * tail : far;
}

template <int kTiles, int kColumns>
POD_DEVICE void cap_scores(float (&s)[kTiles][kColumns][4], float scale) {
  Fragment::for_each(s, [&](float& x) { x = tanh(x * scale); });
}

// The largest of m and a row's scores in a tile.
template <int kColumns>
POD_DEVICE float highest_of(const float (&s)[kColumns][4], int half, float m) {
  POD_UNROLL
  for (int n = 0; n < kColumns; ++n) {
    m = max(m, max(s[n][Fragment::at(half, 0)], s[n][Fragment::at(half, 1)]));
  }
  return row_max(m);
}

// Weights 2^((s - m) * scale) of one row of a tile, in place, and their sum. The difference comes
// first: so the largest score of a row weighs exactly 1 whatever its size. m * scale, rounded by
// itself, would be wrong by a factor that only small scores hide: 4 % at a logit of 1e6, 0 or
// infinite at 1e9. A NaN among the scores is one in the sum, though no maximum shows it.
template <int kColumns>
POD_DEVICE float weigh_row(float (&s)[kColumns][4], int half, float m, float scale) {
  // A row that has seen no key yet has m = -inf, and subtracts 0 instead.
  const float reference = m == kNegativeInfinity ? 0.f : m;
  float sum = 0.f;
  POD_UNROLL
  for (int n = 0; n < kColumns; ++n) {
    POD_UNROLL
    for (int pair = 0; pair < Fragment::kPairs; ++pair) {
      float& x = s[n][Fragment::at(half, pair)];
      x = ptx::ex2((x - reference) * scale);
      sum += x;
    }
  }
  return sum;
}

// What takes sums over weights of reference m to reference `to` >= m: exactly 1 where it is the
// same, or a row's weights would drift apart tile by tile.
POD_DEVICE float moved(float m, float to, float scale) {
  return ptx::ex2((m - (to == kNegativeInfinity ? 0.f : to)) * scale);
}

// s becomes weights of reference m, the row's maximum so far; l and O move to it.
template <int D, int kTiles, int kColumns, typename ScaleOf>
POD_DEVICE void softmax_step(RowState<D, kTiles>& state, float (&s)[kTiles][kColumns][4],
                             ScaleOf scale_of) {
  Fragment::for_each_row<kTiles>([&](int tile, int half) {
    const float scale = scale_of(tile, half);
    const float m = highest_of(s[tile], half, state.m[tile][half]);
    const float rescale = moved(state.m[tile][half], m, scale);
    state.m[tile][half] = m;
    state.add(tile, half, rescale, weigh_row(s[tile], half, m, scale));
    POD_UNROLL
    for (int i = 0; i < D / Fragment::kColumns; ++i) {
      state.o[tile][i][Fragment::at(half, 0)] *= rescale;
      state.o[tile][i][Fragment::at(half, 1)] *= rescale;
    }
  });
}

}  // namespace pod
