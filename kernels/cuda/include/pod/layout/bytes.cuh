// bytes.cuh: K and V of 8 bits (e4m3) as operands of 16, and the order of columns that comes of it.
//
// A register that ldmatrix fills holds four bytes: of K four columns of a key, of V two columns of
// two keys. Bytes 0 and 2 become one operand register, bytes 1 and 3 the other: so of every 16
// columns the even ones make one block of 8 and the odd ones the next. Q is stored that way, which
// leaves Q.K as it is, and O comes out that way, four neighbouring columns to a lane.
#pragma once

#include "pod/layout/fragment.cuh"
#include "pod/ptx/math.cuh"

namespace pod::layout {

POD_DEVICE int low_halves(uint32_t first, uint32_t second) {
  return static_cast<int>((first & 0xffffu) | second << 16);
}
POD_DEVICE int high_halves(uint32_t first, uint32_t second) {
  return static_cast<int>(first >> 16 | (second & 0xffff0000u));
}

// Two e4m3 in the upper bytes of two halves, widened: the sign stays, exponent and mantissa move
// to where T has them, and a product makes up for the other bias, subnormals included. The one
// pattern of NaN becomes 480.
template <typename T>
POD_DEVICE uint32_t widen2(uint32_t x);

template <>
POD_DEVICE uint32_t widen2<bf16>(uint32_t x) {
  constexpr uint32_t k2To120 = 0x7b807b80u;
  return ptx::mul2<bf16>((x & 0x80008000u) | (x >> 4 & 0x07f007f0u), k2To120);
}

template <>
POD_DEVICE uint32_t widen2<fp16>(uint32_t x) {
  constexpr uint32_t k2To8 = 0x5c005c00u;
  return ptx::mul2<fp16>((x & 0x80008000u) | (x >> 1 & 0x3f803f80u), k2To8);
}

template <typename T>
POD_DEVICE void widen(uint32_t& even, uint32_t& odd, uint32_t bytes) {
  even = widen2<T>(bytes << 8);
  odd = widen2<T>(bytes);
}

// visit(column, x, y) for the pairs of neighbouring columns of O that a lane holds of a row; `Kv`
// is the type of K and V.
template <typename Kv, int kAlong, typename Visit>
POD_DEVICE void for_each_pair(const float (&o)[kAlong][4], int half, int lane, Visit visit) {
  POD_UNROLL
  for (int i = 0; i < kAlong; ++i) {
    if constexpr (sizeof(Kv) > 1) {
      visit(i * Fragment::kColumns + Fragment::column(lane), o[i][Fragment::at(half, 0)],
            o[i][Fragment::at(half, 1)]);
    } else {
      const int even = i / 2 * 2, place = i % 2;
      visit(even * Fragment::kColumns + 2 * (Fragment::column(lane) + place),
            o[even][Fragment::at(half, place)], o[even + 1][Fragment::at(half, place)]);
    }
  }
}

}  // namespace pod::layout
