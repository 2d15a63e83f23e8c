// softmax.cuh: online softmax of score fragments, in base 2.
//
// Scores stay unscaled; `scale` > 0 turns a score into a power of two inside of the exponent's
// fused multiply-add. m is the maximum of unscaled scores, so LSE base 2 = m * scale + log2(l).
#pragma once

#include "pod/mask.cuh"
#include "pod/ptx/math.cuh"
#include "pod/ptx/sync.cuh"

namespace pod {

// What a lane keeps of its rows: kTiles 16-row tiles of O [16, D], row maxima and sums. l holds
// the lane's own columns only until finish().
template <int D, int kTiles>
struct RowState {
  float o[kTiles][D / 8][4];
  float m[kTiles][2];
  float l[kTiles][2];

  POD_DEVICE RowState() {
    POD_UNROLL
    for (int tile = 0; tile < kTiles; ++tile) {
      POD_UNROLL
      for (int i = 0; i < D / 8; ++i) {
        POD_UNROLL
        for (int j = 0; j < 4; ++j) o[tile][i][j] = 0.f;
      }
      m[tile][0] = m[tile][1] = kNegativeInfinity;
      l[tile][0] = l[tile][1] = 0.f;
    }
  }
};

// tanh through the exponential unit: tanh.approx is too coarse once a cap of 50 multiplies it.
POD_DEVICE float tanh(float x) {
  constexpr float kTwoLog2e = 2.88539008f;
  return 1.f - 2.f * ptx::rcp(1.f + ptx::ex2(kTwoLog2e * x));
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

// Maximum, or sum, over the four lanes that share a row.
POD_DEVICE float row_max(float x) {
  x = max(x, ptx::shfl_xor(x, 1));
  return max(x, ptx::shfl_xor(x, 2));
}
POD_DEVICE float row_sum(float x) {
  x += ptx::shfl_xor(x, 1);
  return x + ptx::shfl_xor(x, 2);
}

// s becomes the weights 2^(scale * (s - m)); m, l and O move to the new maximum.
template <int D, int kTiles, int kColumns>
POD_DEVICE void softmax_step(RowState<D, kTiles>& state, float (&s)[kTiles][kColumns][4],
                             float scale) {
  POD_UNROLL
  for (int tile = 0; tile < kTiles; ++tile) {
    POD_UNROLL
    for (int half = 0; half < 2; ++half) {
      float m = state.m[tile][half];
      POD_UNROLL
      for (int n = 0; n < kColumns; ++n) {
        m = max(m, max(s[tile][n][2 * half], s[tile][n][2 * half + 1]));
      }
      m = row_max(m);
      // A row that has seen no key yet keeps m = -inf, and subtracts 0 instead.
      const float reference = m == kNegativeInfinity ? 0.f : m * scale;
      const float rescale = ptx::ex2(state.m[tile][half] * scale - reference);
      state.m[tile][half] = m;
      float sum = state.l[tile][half] * rescale;
      POD_UNROLL
      for (int n = 0; n < kColumns; ++n) {
        POD_UNROLL
        for (int j = 2 * half; j < 2 * half + 2; ++j) {
          s[tile][n][j] = ptx::ex2(s[tile][n][j] * scale - reference);
          sum += s[tile][n][j];
        }
      }
      state.l[tile][half] = sum;
      POD_UNROLL
      for (int i = 0; i < D / 8; ++i) {
        state.o[tile][i][2 * half] *= rescale;
        state.o[tile][i][2 * half + 1] *= rescale;
      }
    }
  }
}

// As softmax_step of one 16-row tile, but m stays behind the maximum until a weight would exceed
// 2^kSlack: a factor that 16-bit weights and fp32 sums bear without loss, and with it O is hardly
// ever rescaled.
template <int D, int kColumns>
POD_DEVICE void softmax_step_lazily(RowState<D, 1>& state, float (&s)[1][kColumns][4],
                                    float scale) {
  constexpr float kSlack = 8.f;
  float rescale[2];
  POD_UNROLL
  for (int half = 0; half < 2; ++half) {
    float highest = kNegativeInfinity;
    POD_UNROLL
    for (int n = 0; n < kColumns; ++n) {
      highest = max(highest, max(s[0][n][2 * half], s[0][n][2 * half + 1]));
    }
    highest = row_max(highest);
    const float m = state.m[0][half];
    // False where neither has seen a key: the difference is no number then.
    const bool grown = (highest - m) * scale > kSlack;
    rescale[half] = grown ? ptx::ex2((m - highest) * scale) : 1.f;
    if (grown) state.m[0][half] = highest;
    const float reference =
        state.m[0][half] == kNegativeInfinity ? 0.f : state.m[0][half] * scale;
    float sum = state.l[0][half] * rescale[half];
    POD_UNROLL
    for (int n = 0; n < kColumns; ++n) {
      POD_UNROLL
      for (int j = 2 * half; j < 2 * half + 2; ++j) {
        s[0][n][j] = ptx::ex2(s[0][n][j] * scale - reference);
        sum += s[0][n][j];
      }
    }
    state.l[0][half] = sum;
  }
  if (!ptx::any(rescale[0] != 1.f || rescale[1] != 1.f)) return;
  POD_UNROLL
  for (int i = 0; i < D / 8; ++i) {
    POD_UNROLL
    for (int j = 0; j < 4; ++j) state.o[0][i][j] *= rescale[j / 2];
  }
}

}  // namespace pod
