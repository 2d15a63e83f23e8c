// math.cuh: approximate functions of the special-function unit, a maximum of three, rounding to and
// products of 16 bits, 8 bits widened to 16.
#pragma once

#include "pod/ptx/platform.cuh"

namespace pod::ptx {

#ifdef __CUDACC__

// 2^x; 0 for -inf.
POD_DEVICE float ex2(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

// Base-2 logarithm; -inf for 0.
POD_DEVICE float lg2(float x) {
  float y;
  asm("lg2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

// 1 / x; inf for 0, 0 for inf.
POD_DEVICE float rcp(float x) {
  float y;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

// The largest of three floats, by the order of their bits as integers: right where it is positive,
// else any of them. From sm_90 on it is one instruction.
POD_DEVICE float max_if_positive(float x, float y, float z) {
  float most;
  // In one piece, or the compiler keeps scores both as floats and as integers.
  asm("{ .reg .b32 a, b, c; mov.b32 a, %1; mov.b32 b, %2; mov.b32 c, %3; max.s32 a, a, b; "
      "max.s32 a, a, c; mov.b32 %0, a; }"
      : "=f"(most)
      : "f"(x), "f"(y), "f"(z));
  return most;
}

// Two floats rounded to nearest even, `lo` in the low half.
template <typename T>
POD_DEVICE uint32_t pack2(float lo, float hi);

template <>
POD_DEVICE uint32_t pack2<bf16>(float lo, float hi) {
  uint32_t packed;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(packed) : "f"(hi), "f"(lo));
  return packed;
}

template <>
POD_DEVICE uint32_t pack2<fp16>(float lo, float hi) {
  uint32_t packed;
  asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(packed) : "f"(hi), "f"(lo));
  return packed;
}

// Two products of fp16, rounded to nearest even; subnormals are numbers.
POD_DEVICE uint32_t mul2(uint32_t x, uint32_t y) {
  uint32_t z;
  asm("mul.rn.f16x2 %0, %1, %2;" : "=r"(z) : "r"(x), "r"(y));
  return z;
}

// Whether the target has widen2.
#ifdef __CUDA_ARCH__
constexpr bool kWidens = __CUDA_ARCH__ >= 890;
#endif
#ifndef __CUDA_ARCH__
constexpr bool kWidens = true;
#endif

// cvt.rn.f16x2.e4m3x2 (sm_89+): the two e4m3 in the lower half of `bytes`, or the upper, as fp16.
// Exact; NaN stays one.
template <int kHalf>
POD_DEVICE uint32_t widen2(uint32_t bytes) {
  uint32_t two;
  if constexpr (kHalf == 0) {
    asm("{ .reg .b16 lo, hi; mov.b32 {lo, hi}, %1; cvt.rn.f16x2.e4m3x2 %0, lo; }"
        : "=r"(two)
        : "r"(bytes));
  } else {
    asm("{ .reg .b16 lo, hi; mov.b32 {lo, hi}, %1; cvt.rn.f16x2.e4m3x2 %0, hi; }"
        : "=r"(two)
        : "r"(bytes));
  }
  return two;
}

// prmt: the bytes of `x` that the hexadecimal digits of kOrder name, the last digit the lowest;
// 4 is a zero.
template <unsigned kOrder>
POD_DEVICE uint32_t order_bytes(uint32_t x) {
  return __byte_perm(x, 0, kOrder);
}

// The float of these bits.
POD_DEVICE float float_of(uint32_t bits) { return __uint_as_float(bits); }

#else

inline float ex2(float x) { return emulator::ex2(x); }
inline float lg2(float x) { return emulator::lg2(x); }
inline float rcp(float x) { return emulator::rcp(x); }
inline float max_if_positive(float x, float y, float z) {
  return emulator::max_if_positive(x, y, z);
}
template <typename T>
inline uint32_t pack2(float lo, float hi) {
  return emulator::pack2<T>(lo, hi);
}
inline uint32_t mul2(uint32_t x, uint32_t y) { return emulator::mul2(x, y); }
constexpr bool kWidens = true;
template <int kHalf>
inline uint32_t widen2(uint32_t bytes) {
  return emulator::widen2(bytes >> 16 * kHalf);
}
template <unsigned kOrder>
inline uint32_t order_bytes(uint32_t x) {
  return emulator::order_bytes(x, kOrder);
}
inline float float_of(uint32_t bits) { return emulator::float_of(bits); }

#endif

}  // namespace pod::ptx
