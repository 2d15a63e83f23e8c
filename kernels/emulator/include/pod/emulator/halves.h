// halves.h: numbers of 16 and 8 bits, as the emulated SM rounds, widens and multiplies them.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <initializer_list>
#include <type_traits>

namespace pod {

struct bf16;
struct fp16;

namespace emulator {

// Rounds to nearest even, as cvt.rn does; NaN becomes the canonical 0x7fff.
inline uint32_t to_bf16(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, 4);
  return value != value ? 0x7fffu : (bits + 0x7fffu + (bits >> 16 & 1)) >> 16;
}

inline uint32_t to_fp16(float value) {
  if (value != value) return 0x7fffu;
  const _Float16 rounded = static_cast<_Float16>(value);
  uint16_t bits;
  std::memcpy(&bits, &rounded, 2);
  return bits;
}

template <class T>
inline uint32_t pack2(float lo, float hi) {
  if constexpr (std::is_same_v<T, bf16>) {
    return to_bf16(lo) | to_bf16(hi) << 16;
  } else {
    static_assert(std::is_same_v<T, fp16>, "pack2 takes bf16 and fp16");
    return to_fp16(lo) | to_fp16(hi) << 16;
  }
}

template <class T>
inline float from_half(uint32_t bits) {
  bits &= 0xffffu;
  if constexpr (std::is_same_v<T, bf16>) {
    bits <<= 16;
    float value;
    std::memcpy(&value, &bits, 4);
    return value;
  } else {
    static_assert(std::is_same_v<T, fp16>, "halves are bf16 or fp16");
    _Float16 value;
    std::memcpy(&value, &bits, 2);
    return static_cast<float>(value);
  }
}

inline uint32_t mul2(uint32_t x, uint32_t y) {
  return pack2<fp16>(from_half<fp16>(x) * from_half<fp16>(y),
                     from_half<fp16>(x >> 16) * from_half<fp16>(y >> 16));
}

inline float float_of(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, 4);
  return value;
}

inline float max_if_positive(float x, float y, float z) {
  float most = x;
  for (const float other : {y, z}) {
    int32_t bits, most_bits;
    std::memcpy(&bits, &other, 4);
    std::memcpy(&most_bits, &most, 4);
    if (bits > most_bits) most = other;
  }
  return most;
}

// Four bits of exponent, bias 7, three of mantissa; all ones are NaN, and nothing is infinite.
inline float from_e4m3(uint32_t bits) {
  const int exponent = bits >> 3 & 15, mantissa = bits & 7;
  if ((bits & 0x7f) == 0x7f) return std::nanf("");
  const float size =
      exponent == 0 ? std::ldexp(1.f * mantissa, -9) : std::ldexp(8.f + mantissa, exponent - 10);
  return bits & 0x80 ? -size : size;
}

// Of the lower half.
inline uint32_t widen2(uint32_t bytes) {
  return pack2<fp16>(from_e4m3(bytes & 0xff), from_e4m3(bytes >> 8 & 0xff));
}

inline uint32_t order_bytes(uint32_t x, unsigned order) {
  uint32_t y = 0;
  for (int i = 0; i < 4; ++i) {
    const unsigned from = order >> 4 * i & 15;
    if (from < 4) y |= (x >> 8 * from & 0xff) << 8 * i;
  }
  return y;
}

}  // namespace emulator
}  // namespace pod
