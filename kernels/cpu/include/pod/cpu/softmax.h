// softmax.h: exponentials and the logit cap; the softmax itself runs in base 2.
#pragma once

#include "pod/cpu/vec.h"

namespace pod::cpu::POD_ISA {

inline constexpr float kLog2e = 1.4426950408889634f;
inline constexpr float kLn2 = 0.6931471805599453f;
inline constexpr float kNegInf = -__builtin_inff();

// 2^x for x <= 0 and moderate x > 0, relative error <= 1e-7; exactly 0 below 2^-126, exactly 1 at
// 0, NaN at NaN. Polynomial of degree 6 on [-0.5, 0.5] fitted to the least relative error.
inline VecF exp2(VecF x) {
  // Adding 1.5 * 2^23 rounds to an integer that stands in the low mantissa bits.
  const VecF magic = broadcast(0x1.8p23f);
  VecF clamped = max(broadcast(-126.0f), x);
  VecF shifted = clamped + magic;
  VecF f = clamped - (shifted - magic);
  VecF p = broadcast(0x1.41fb68p-13f);
  p = p * f + broadcast(0x1.5f3e26p-10f);
  p = p * f + broadcast(0x1.3b2d4cp-7f);
  p = p * f + broadcast(0x1.c6aee8p-5f);
  p = p * f + broadcast(0x1.ebfbdcp-3f);
  p = p * f + broadcast(0x1.62e430p-1f);
  p = p * f + broadcast(1.0f);
  // A product, not a sum of exponents: that would make a number of a NaN.
  VecF scaled = p * (VecF)(((VecI)shifted << 23) + 0x3f800000);
  return x < broadcast(-126.0f) ? VecF{} : scaled;
}

// tanh(x); the exponential form loses digits near 0, so a Taylor polynomial serves |x| < 0.3.
inline VecF tanh(VecF x) {
  VecF magnitude = (VecF)((VecI)x & 0x7fffffff);
  VecF e = exp2(magnitude * broadcast(-2.0f * kLog2e));
  VecF large = (broadcast(1.0f) - e) / (broadcast(1.0f) + e);
  VecF x2 = x * x;
  VecF p = broadcast(62.0f / 2835.0f);
  p = p * x2 + broadcast(-17.0f / 315.0f);
  p = p * x2 + broadcast(2.0f / 15.0f);
  p = p * x2 + broadcast(-1.0f / 3.0f);
  VecF small = x + x * x2 * p;
  VecF signed_large = (VecF)((VecI)large | ((VecI)x & (int32_t)0x80000000));
  return magnitude < broadcast(0.3f) ? small : signed_large;
}

// Base-2 logits from raw scores: `score_scale` is cap * log2(e), or 0 when there is no cap and the
// scale was folded into Q.
inline VecF logits(VecF score, float score_scale) {
  return score_scale == 0.0f ? score : tanh(score) * broadcast(score_scale);
}

// The value to subtract before exp2: a row that saw no key yet has m = -inf, and -inf - -inf is
// NaN.
inline VecF finite_or_zero(VecF m) { return m == broadcast(kNegInf) ? VecF{} : m; }

// sum += term; `low` collects what the roundings of sum lose, so that sum + low does not drift
// however many terms there are. An infinite sum has lost nothing: inf - inf is no remainder.
inline void add_exactly(VecF& sum, VecF& low, VecF term) {
  const VecF whole = sum + term, part = whole - sum;
  const VecF lost = (sum - (whole - part)) + (term - part);
  sum = whole;
  low += lost == lost ? lost : VecF{};
}

}  // namespace pod::cpu::POD_ISA
