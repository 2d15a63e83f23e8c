// vec.h: one SIMD vector of floats in compiler vector types, loads, stores and conversions.
//
// Every function lives in the namespace of its instruction set: see launch.h for why.
#pragma once

#include <cstdint>
#include <utility>

#if POD_ISA_AVX512 || POD_ISA_AVX2
#include <immintrin.h>
#endif

namespace pod::cpu::POD_ISA {

#if POD_ISA_AVX512
inline constexpr int kLanes = 16;
#elif POD_ISA_AVX2
inline constexpr int kLanes = 8;
#else
inline constexpr int kLanes = 4;
#endif

typedef float VecF __attribute__((vector_size(kLanes * 4)));
typedef int32_t VecI __attribute__((vector_size(kLanes * 4)));
typedef uint32_t VecU __attribute__((vector_size(kLanes * 4)));
typedef uint16_t VecH __attribute__((vector_size(kLanes * 2)));
typedef uint8_t VecB __attribute__((vector_size(kLanes)));

struct Bf16 {
  uint16_t bits;
};
struct Fp16 {
  uint16_t bits;
};
struct E4m3 {
  uint8_t bits;
};

// x - 0 is x for every x, so this folds to a plain broadcast; 0 + x would not (x = -0).
inline VecF broadcast(float x) { return x - VecF{}; }
inline VecI broadcast(int32_t x) { return x - VecI{}; }

template <typename V, typename P>
inline V load_bits(const P* from) {
  V value;
  __builtin_memcpy(&value, from, sizeof value);
  return value;
}
template <typename V, typename P>
inline void store_bits(P* to, V value) {
  __builtin_memcpy(to, &value, sizeof value);
}

// The larger; b where either is NaN.
inline VecF max(VecF a, VecF b) {
#if POD_ISA_AVX512
  return _mm512_max_ps(a, b);
#elif POD_ISA_AVX2
  return _mm256_max_ps(a, b);
#else
  return a > b ? a : b;
#endif
}

// Binary16 to binary32 by exponent rebias; exact, denormals included.
inline VecF half_to_float(VecH h) {
#if POD_ISA_AVX512
  return _mm512_cvtph_ps((__m256i)h);
#elif POD_ISA_AVX2
  return _mm256_cvtph_ps((__m128i)h);
#else
  VecU u = __builtin_convertvector(h, VecU);
  VecU magnitude = (u & 0x7fffu) << 13;
  VecF value = (VecF)magnitude * broadcast(0x1p112f);
  VecU special = (VecU)(magnitude >= (0x7c00u << 13));
  return (VecF)((VecU)value | (special & 0x7f800000u) | ((u & 0x8000u) << 16));
#endif
}

// Binary32 to binary16, round to nearest even; one value, for the portable path and row tails.
inline uint16_t float_to_half(float x) {
  uint32_t u;
  __builtin_memcpy(&u, &x, 4);
  const uint32_t sign = (u >> 16) & 0x8000u;
  u &= 0x7fffffffu;
  if (u > 0x7f800000u) return static_cast<uint16_t>(sign | 0x7e00u);
  if (u >= 0x47800000u) return static_cast<uint16_t>(sign | 0x7c00u);
  if (u < 0x38800000u) {
    // Adding 0.5 leaves the denormal's bits, correctly rounded, in the low mantissa.
    float shifted;
    __builtin_memcpy(&shifted, &u, 4);
    shifted += 0.5f;
    __builtin_memcpy(&u, &shifted, 4);
    return static_cast<uint16_t>(sign | (u - 0x3f000000u));
  }
  u += ((15u - 127u) << 23) + 0xfffu + ((u >> 13) & 1u);
  return static_cast<uint16_t>(sign | (u >> 13));
}

inline VecF load(const float* from) { return load_bits<VecF>(from); }
inline VecF load(const Bf16* from) {
  return (VecF)(__builtin_convertvector(load_bits<VecH>(from), VecU) << 16);
}
inline VecF load(const Fp16* from) { return half_to_float(load_bits<VecH>(from)); }
// Seven bits below the sign are a binary16 of an exponent that is 8 smaller, denormals included;
// all ones are NaN.
inline VecF load(const E4m3* from) {
  const VecH x = __builtin_convertvector(load_bits<VecB>(from), VecH);
  const VecH magnitude = x & 0x7f, nan = (VecH)(magnitude == 0x7f);
  return half_to_float(((x & 0x80) << 8) | (magnitude << 7) | (nan & 0x7c00)) * broadcast(0x1p8f);
}

inline void store(float* to, VecF x) { store_bits(to, x); }
// Round to nearest even; a NaN keeps its upper bits, made quiet, instead of rounding to infinity.
inline void store(Bf16* to, VecF x) {
  VecU u = (VecU)x;
  VecU rounded = (u + 0x7fffu + ((u >> 16) & 1u)) >> 16;
  VecU quiet = (u >> 16) | 0x40u;
  VecU nan = (VecU)(x != x);
  store_bits(to, __builtin_convertvector((nan & quiet) | (~nan & rounded), VecH));
}
inline void store(Fp16* to, VecF x) {
#if POD_ISA_AVX512
  store_bits(to, _mm512_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT));
#elif POD_ISA_AVX2
  store_bits(to, _mm256_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT));
#else
  for (int i = 0; i < kLanes; ++i) to[i].bits = float_to_half(x[i]);
#endif
}

// Lanes in blocks of H: block b of the result is the sum of the two halves of block b of the
// concatenation (x, y) in blocks of 2H.
template <int H, int... I>
inline VecF fold(VecF x, VecF y, std::integer_sequence<int, I...>) {
  return __builtin_shufflevector(x, y, (I / H * 2 * H + I % H)...) +
         __builtin_shufflevector(x, y, (I / H * 2 * H + I % H + H)...);
}

// Lane i of the result is the sum over the lanes of x[i]; x holds kLanes vectors and is consumed.
template <int H = kLanes / 2>
inline VecF sum_each(VecF* x) {
#pragma GCC unroll 16
  for (int i = 0; i < H; ++i) {
    x[i] = fold<H>(x[2 * i], x[2 * i + 1], std::make_integer_sequence<int, kLanes>{});
  }
  if constexpr (H == 1) {
    return x[0];
  } else {
    return sum_each<H / 2>(x);
  }
}

// Lanes in blocks of H: of each two blocks of x and y the first ones side by side, or the second.
template <int H, bool kSecond, int... I>
inline VecF pair(VecF x, VecF y, std::integer_sequence<int, I...>) {
  return __builtin_shufflevector(
      x, y, (I / H % 2 ? I + kLanes - (kSecond ? 0 : H) : I + (kSecond ? H : 0))...);
}

// x[i][j] becomes x[j][i]; x holds kLanes vectors.
template <int H = kLanes / 2>
inline void transpose(VecF* x) {
  constexpr std::make_integer_sequence<int, kLanes> lanes;
#pragma GCC unroll 16
  for (int i = 0; i < kLanes; ++i) {
    if (i / H % 2) continue;
    const VecF first = x[i], second = x[i + H];
    x[i] = pair<H, false>(first, second, lanes);
    x[i + H] = pair<H, true>(first, second, lanes);
  }
  if constexpr (H > 1) transpose<H / 2>(x);
}

inline float sum(VecF x) {
  float total = 0;
  for (int i = 0; i < kLanes; ++i) total += x[i];
  return total;
}
inline bool any_negative(VecI x) {
  int32_t any = 0;
  for (int i = 0; i < kLanes; ++i) any |= x[i];
  return any < 0;
}
inline float max(VecF x) {
  float best = x[0];
  for (int i = 1; i < kLanes; ++i) best = x[i] > best ? x[i] : best;
  return best;
}

}  // namespace pod::cpu::POD_ISA
