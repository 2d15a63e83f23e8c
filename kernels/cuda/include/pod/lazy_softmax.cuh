// lazy_softmax.cuh: online softmax that leaves the reference of a row where it is while it can, for
// a warpgroup whose matrix unit works while the warps make weights of scores.
#pragma once

#include "pod/softmax.cuh"

namespace pod {

// Of the lane's scores of a row, if it is positive. In two chains, whose instructions need not wait
// for each other.
template <int kColumns>
POD_DEVICE float own_highest_if_positive(const float (&s)[kColumns][4], int half) {
  const int first = Fragment::at(half, 0), second = Fragment::at(half, 1);
  float highest[2] = {s[0][first], s[0][second]};
  POD_UNROLL
  for (int n = 1; n < kColumns; ++n) {
    highest[n % 2] = ptx::max_if_positive(highest[n % 2], s[n][first], s[n][second]);
  }
  return ptx::max_if_positive(highest[0], highest[1], highest[1]);
}

// By how much the exponent of a weight may exceed 0 before m follows: a factor that 16-bit weights
// and fp32 sums bear without loss, and with it l and O are hardly ever rescaled.
constexpr float kSlack = 8.f;

// False where no key has been seen: the difference is no number then.
POD_DEVICE bool is_outgrown(float m, float highest, float scale) {
  return (highest - m) * scale > kSlack;
}

// A row of the lazy softmax whose reference, as an exponent, is larger than this has its scores
// centred before they are scaled.
constexpr float kFar = 512.f;

// m of the rows that grew moves to the highest score, and l with it; O follows by `rescale`.
template <int D, typename ScaleOf>
POD_DEVICE void grow(RowState<D, 1>& state, const float (&highest)[2], const bool (&grown)[2],
                     float (&rescale)[2], ScaleOf scale_of) {
  POD_UNROLL
  for (int half = 0; half < 2; ++half) {
    float& m = state.m[0][half];
    rescale[half] = grown[half] ? moved(m, highest[half], scale_of(0, half)) : 1.f;
    if (grown[half]) m = highest[half];
    state.add(0, half, rescale[half], 0.f);
  }
}

template <int D>
POD_DEVICE void rescale_output(RowState<D, 1>& state, const float (&rescale)[2]) {
  POD_UNROLL
  for (int i = 0; i < D / 8; ++i) {
    POD_UNROLL
    for (int j = 0; j < 4; ++j) state.o[0][i][j] *= rescale[Fragment::half_of(j)];
  }
}

// Scores less a number of their row.
template <int kColumns>
POD_DEVICE void subtract(float (&s)[kColumns][4], const float (&rows)[2]) {
  POD_UNROLL
  for (int n = 0; n < kColumns; ++n) {
    POD_UNROLL
    for (int j = 0; j < 4; ++j) s[n][j] -= rows[Fragment::half_of(j)];
  }
}

// What softmax_step_lazily leaves out of nearly every tile: rows with a score far above m move to
// the highest one, and with them l and O; rows with m far from 0 have their scores centred. What is
// then to be subtracted from the exponents of a row is 0 for these, and for rows without a key.
template <int D, int kColumns, typename ScaleOf>
POD_DEVICE void catch_up(RowState<D, 1>& state, float (&s)[kColumns][4], float (&reference)[2],
                         ScaleOf scale_of) {
  float highest[2], rescale[2];
  bool grown[2];
  POD_UNROLL
  for (int half = 0; half < 2; ++half) {
    const float m = state.m[0][half];
    highest[half] = highest_of(s, half, m);
    grown[half] = is_outgrown(m, highest[half], scale_of(0, half));
  }
  if (ptx::any(grown[0] || grown[1])) {
    grow(state, highest, grown, rescale, scale_of);
    rescale_output(state, rescale);
  }
  float centre[2];
  bool far = false;
  POD_UNROLL
  for (int half = 0; half < 2; ++half) {
    const float m = state.m[0][half], exponent = m * scale_of(0, half);
    const bool is_seen = m != kNegativeInfinity, is_far = is_seen & (fabsf(exponent) > kFar);
    reference[half] = is_seen & !is_far ? exponent : 0.f;
    centre[half] = is_far ? m : 0.f;
    far |= is_far;
  }
  if (ptx::any(far)) subtract(s, centre);
}

// As softmax_step of one 16-row tile, but m stays behind the maximum until a weight would exceed
// 2^kSlack. So a row's maximum is no matter while no lane has such a score, and where 2^kSlack is
// not below the weight of a score of 0, only positive ones need be looked at, which takes half the
// instructions. All that is rare is behind one branch: what follows it is one run of instructions,
// in which the exponentials, the slowest, hide the rest.
//
// Weights are 2^(s * scale - r) with r = m * scale rounded, one fused multiply-add a score. What r
// lost is a factor that all weights of the row share, at most 2^-15 off 1 while |r| <= kFar: no
// 16-bit weight shows it, and in the LSE it is half a rounding. Beyond, the difference comes first,
// as in weigh_row.
//
// `await_output()` waits for O, which may be in flight until weights are made of the scores.
template <int D, int kColumns, typename ScaleOf, typename AwaitOutput>
POD_DEVICE void softmax_step_lazily(RowState<D, 1>& state, float (&s)[1][kColumns][4],
                                    ScaleOf scale_of, AwaitOutput await_output) {
  float reference[2];
  bool late = false;
  POD_UNROLL
  for (int half = 0; half < 2; ++half) {
    const float m = state.m[0][half], scale = scale_of(0, half);
    reference[half] = m * scale;
    const bool is_near = (reference[half] >= -kSlack) & (reference[half] <= kFar);
    late |= !is_near | is_outgrown(m, own_highest_if_positive(s[0], half), scale);
  }
  if (ptx::any(late)) {
    await_output();
    catch_up(state, s[0], reference, scale_of);
  }
  // Behind a branch, or ptxas has the warps wait before they look for maxima.
  await_output();
  POD_UNROLL
  for (int half = 0; half < 2; ++half) {
    const float scale = scale_of(0, half);
    float sum = 0.f;
    POD_UNROLL
    for (int n = 0; n < kColumns; ++n) {
      POD_UNROLL
      for (int pair = 0; pair < Fragment::kPairs; ++pair) {
        float& x = s[0][n][Fragment::at(half, pair)];
        x = ptx::ex2(x * scale - reference[half]);
        sum += x;
      }
    }
    state.add(0, half, 1.f, sum);
  }
}

template <int D, int kColumns, typename ScaleOf>
POD_DEVICE void softmax_step_lazily(RowState<D, 1>& state, float (&s)[1][kColumns][4],
                                    ScaleOf scale_of) {
  softmax_step_lazily(state, s, scale_of, [] {});
}

}  // namespace pod
