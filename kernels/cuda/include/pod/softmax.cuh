// softmax.cuh: online softmax of score fragments, in base 2.
//
// Scores and m, the reference of a row's weights, stay unscaled; `scale` > 0 turns a difference of
// two scores into the exponent of a power of two.
#pragma once

#include "pod/mask.cuh"
#include "pod/ptx/math.cuh"
#include "pod/ptx/sync.cuh"

namespace pod {

// Maximum, or sum, over the four lanes that share a row.
POD_DEVICE float row_max(float x) {
  x = max(x, ptx::shfl_xor(x, 1));
  return max(x, ptx::shfl_xor(x, 2));
}
POD_DEVICE float row_sum(float x) {
  x += ptx::shfl_xor(x, 1);
  return x + ptx::shfl_xor(x, 2);
}

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
    POD_UNROLL
    for (int tile = 0; tile < kTiles; ++tile) {
      POD_UNROLL
      for (int i = 0; i < D / 8; ++i) {
        POD_UNROLL
        for (int j = 0; j < 4; ++j) o[tile][i][j] = 0.f;
      }
      m[tile][0] = m[tile][1] = kNegativeInfinity;
      l[tile][0] = l[tile][1] = lost[tile][0] = lost[tile][1] = 0.f;
    }
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
  POD_UNROLL
  for (int tile = 0; tile < kTiles; ++tile) {
    POD_UNROLL
    for (int n = 0; n < kColumns; ++n) {
      POD_UNROLL
      for (int j = 0; j < 4; ++j) s[tile][n][j] = tanh(s[tile][n][j] * scale);
    }
  }
}

// The largest of m and a row's scores in a tile.
template <int kColumns>
POD_DEVICE float highest_of(const float (&s)[kColumns][4], int half, float m) {
  POD_UNROLL
  for (int n = 0; n < kColumns; ++n) m = max(m, max(s[n][2 * half], s[n][2 * half + 1]));
  return row_max(m);
}

// For measuring: 0 as before, 1 exact, 2 exact where scores are large.
#ifndef POD_SOFTMAX_FORM
#define POD_SOFTMAX_FORM 1
#endif
#if POD_SOFTMAX_FORM == 0
template <int kColumns>
POD_DEVICE float weigh_row(float (&s)[kColumns][4], int half, float m, float scale) {
  const float reference = m == kNegativeInfinity ? 0.f : m * scale;
  float sum = 0.f;
  POD_UNROLL
  for (int n = 0; n < kColumns; ++n) {
    POD_UNROLL
    for (int j = 2 * half; j < 2 * half + 2; ++j) {
      s[n][j] = ptx::ex2(s[n][j] * scale - reference);
      sum += s[n][j];
    }
  }
  return sum;
}
POD_DEVICE float moved(float m, float to, float scale) {
  return ptx::ex2(m * scale - (to == kNegativeInfinity ? 0.f : to * scale));
}
#elif POD_SOFTMAX_FORM == 2
#ifdef __CUDACC__
POD_DEVICE float rounded_product(float x, float y) { return __fmul_rn(x, y); }
#else
inline float rounded_product(float x, float y) {
  volatile float product = x * y;
  return product;
}
#endif
// Whether a row's scores had to be centred on m: m * scale, rounded, is too far off otherwise.
template <int kTiles, int kColumns>
POD_DEVICE bool recentre(float (&s)[kTiles][kColumns][4], const float (&m)[kTiles][2],
                         float scale) {
  float furthest = 0.f;
  POD_UNROLL
  for (int tile = 0; tile < kTiles; ++tile) {
    POD_UNROLL
    for (int half = 0; half < 2; ++half) {
      const float r = m[tile][half] == kNegativeInfinity ? 0.f : m[tile][half] * scale;
      furthest = max(furthest, fabsf(r));
    }
  }
  if (!ptx::any(furthest > 512.f)) return false;
  POD_UNROLL
  for (int tile = 0; tile < kTiles; ++tile) {
    POD_UNROLL
    for (int n = 0; n < kColumns; ++n) {
      POD_UNROLL
      for (int j = 0; j < 4; ++j) {
        s[tile][n][j] -= m[tile][j / 2] == kNegativeInfinity ? 0.f : m[tile][j / 2];
      }
    }
  }
  return true;
}
template <int kColumns>
POD_DEVICE float weigh_row(float (&s)[kColumns][4], int half, float m, float scale,
                           bool recentred) {
  const float reference =
      m == kNegativeInfinity || recentred ? 0.f : rounded_product(m, scale);
  float sum = 0.f;
  POD_UNROLL
  for (int n = 0; n < kColumns; ++n) {
    POD_UNROLL
    for (int j = 2 * half; j < 2 * half + 2; ++j) {
      s[n][j] = ptx::ex2(s[n][j] * scale - reference);
      sum += s[n][j];
    }
  }
  return sum;
}
#else
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
    for (int j = 2 * half; j < 2 * half + 2; ++j) {
      s[n][j] = ptx::ex2((s[n][j] - reference) * scale);
      sum += s[n][j];
    }
  }
  return sum;
}
#endif

#if POD_SOFTMAX_FORM != 0
// What takes sums over weights of reference m to reference `to` >= m: exactly 1 where it is the
// same, or a row's weights would drift apart tile by tile.
POD_DEVICE float moved(float m, float to, float scale) {
  return ptx::ex2((m - (to == kNegativeInfinity ? 0.f : to)) * scale);
}
#endif

// s becomes weights of reference m, the row's maximum so far; l and O move to it.
#if POD_SOFTMAX_FORM == 2
template <int D, int kTiles, int kColumns>
POD_DEVICE void softmax_step(RowState<D, kTiles>& state, float (&s)[kTiles][kColumns][4],
                             float scale) {
  float rescale[kTiles][2];
  POD_UNROLL
  for (int tile = 0; tile < kTiles; ++tile) {
    POD_UNROLL
    for (int half = 0; half < 2; ++half) {
      const float m = highest_of(s[tile], half, state.m[tile][half]);
      rescale[tile][half] = moved(state.m[tile][half], m, scale);
      state.m[tile][half] = m;
    }
  }
  const bool recentred = recentre(s, state.m, scale);
  POD_UNROLL
  for (int tile = 0; tile < kTiles; ++tile) {
    POD_UNROLL
    for (int half = 0; half < 2; ++half) {
      const float sum = weigh_row(s[tile], half, state.m[tile][half], scale, recentred);
      state.add(tile, half, rescale[tile][half], sum);
      POD_UNROLL
      for (int i = 0; i < D / 8; ++i) {
        state.o[tile][i][2 * half] *= rescale[tile][half];
        state.o[tile][i][2 * half + 1] *= rescale[tile][half];
      }
    }
  }
}
#else
template <int D, int kTiles, int kColumns>
POD_DEVICE void softmax_step(RowState<D, kTiles>& state, float (&s)[kTiles][kColumns][4],
                             float scale) {
  POD_UNROLL
  for (int tile = 0; tile < kTiles; ++tile) {
    POD_UNROLL
    for (int half = 0; half < 2; ++half) {
      const float m = highest_of(s[tile], half, state.m[tile][half]);
      const float rescale = moved(state.m[tile][half], m, scale);
      state.m[tile][half] = m;
      state.add(tile, half, rescale, weigh_row(s[tile], half, m, scale));
      POD_UNROLL
      for (int i = 0; i < D / 8; ++i) {
        state.o[tile][i][2 * half] *= rescale;
        state.o[tile][i][2 * half + 1] *= rescale;
      }
    }
  }
}
#endif

// As softmax_step of one 16-row tile, but m stays behind the maximum until a weight would exceed
// 2^kSlack: a factor that 16-bit weights and fp32 sums bear without loss, and with it O is hardly
// ever rescaled. So exactly 1 is here the weight of a score that equals m, which a row's first tile
// has; m left where it is costs no rounding at all.
template <int D, int kColumns>
POD_DEVICE void softmax_step_lazily(RowState<D, 1>& state, float (&s)[1][kColumns][4],
                                    float scale) {
  constexpr float kSlack = 8.f;
  float rescale[2];
  POD_UNROLL
  for (int half = 0; half < 2; ++half) {
    const float m = state.m[0][half], highest = highest_of(s[0], half, m);
    // False where no key has been seen: the difference is no number then.
    const bool grown = (highest - m) * scale > kSlack;
    rescale[half] = grown ? moved(m, highest, scale) : 1.f;
    if (grown) state.m[0][half] = highest;
#if POD_SOFTMAX_FORM == 2
  }
  const bool recentred = recentre(s, state.m, scale);
  POD_UNROLL
  for (int half = 0; half < 2; ++half) {
    const float sum = weigh_row(s[0], half, state.m[0][half], scale, recentred);
#else
    const float sum = weigh_row(s[0], half, state.m[0][half], scale);
#endif
    state.add(0, half, rescale[half], sum);
  }
  if (!ptx::any(rescale[0] != 1.f || rescale[1] != 1.f)) return;
  POD_UNROLL
  for (int i = 0; i < D / 8; ++i) {
    POD_UNROLL
    for (int j = 0; j < 4; ++j) state.o[0][i][j] *= rescale[j / 2];
  }
}

}  // namespace pod
