// math.cuh: approximate functions of the special-function unit, rounding to and products of 16
// bits.
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

// Two products, rounded to nearest even; subnormals are numbers.
template <typename T>
POD_DEVICE uint32_t mul2(uint32_t x, uint32_t y);

template <>
POD_DEVICE uint32_t mul2<bf16>(uint32_t x, uint32_t y) {
  // sm_80 multiplies bf16 only to add: -0 leaves every product as it is.
  uint32_t z;
  asm("fma.rn.bf16x2 %0, %1, %2, %3;" : "=r"(z) : "r"(x), "r"(y), "r"(0x80008000u));
  return z;
}

template <>
POD_DEVICE uint32_t mul2<fp16>(uint32_t x, uint32_t y) {
  uint32_t z;
  asm("mul.rn.f16x2 %0, %1, %2;" : "=r"(z) : "r"(x), "r"(y));
  return z;
}

#else

inline float ex2(float x) { return emulator::ex2(x); }
inline float lg2(float x) { return emulator::lg2(x); }
inline float rcp(float x) { return emulator::rcp(x); }
template <typename T>
inline uint32_t pack2(float lo, float hi) {
  return emulator::pack2<T>(lo, hi);
}
template <typename T>
inline uint32_t mul2(uint32_t x, uint32_t y) {
  return emulator::mul2<T>(x, y);
}

#endif

}  // namespace pod::ptx
