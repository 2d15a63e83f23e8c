// bytes.cuh: K and V of 8 bits (e4m3) as operands of fp16, and the order of columns that comes of
// it.
//
// Widening is exact and one instruction per two numbers, but to fp16 only: so Q and the weights
// beside K and V of bytes are fp16 too, whatever the type of q (copy/query_tile.cuh has the range).
//
// kSplit   A register that ldmatrix fills holds four bytes. Of K these are four columns of a key:
//          of every 16 columns the first two of each four make one block of 8, the others the next.
//          Q is stored that way, which leaves Q.K as it is. Of V they are two columns of two keys:
//          the even columns of O come out as one block of 8, the odd ones as the next.
// kPanels  Of 16 bytes the two halves become chunks of 16 bytes each: beside each other, or at the
//          same place of two panels, so that lanes which write neighbouring chunks share no bank.
//          Q is stored that way, and O comes out that way.
#pragma once

#include <type_traits>

#include "pod/layout/fragment.cuh"
#include "pod/ptx/math.cuh"

namespace pod::layout {

enum class Order { kPlain, kSplit, kPanels };

// What the matrix units take where Q is of type T and K and V of type Kv.
template <typename T, typename Kv>
using Operand = std::conditional_t<sizeof(Kv) == 1, fp16, T>;

// As ptx::widen2, without it: the sign stays, exponent and mantissa move to where fp16 has them,
// and a product makes up for the other bias, subnormals included. The pattern of NaN becomes 480.
template <int kHalf>
POD_DEVICE uint32_t widen2_by_bits(uint32_t bytes) {
  constexpr uint32_t k2To8 = 0x5c005c00u;
  const uint32_t x = ptx::order_bytes<kHalf == 0 ? 0x1404 : 0x3424>(bytes);
  return ptx::mul2((x & 0x80008000u) | (x >> 1 & 0x3f803f80u), k2To8);
}

template <int kHalf>
POD_DEVICE uint32_t widen2(uint32_t bytes) {
  if constexpr (ptx::kWidens) {
    return ptx::widen2<kHalf>(bytes);
  } else {
    return widen2_by_bits<kHalf>(bytes);
  }
}

// Four columns of a key, and two columns of two keys.
POD_DEVICE void widen_columns(uint32_t& first, uint32_t& second, uint32_t bytes) {
  first = widen2<0>(bytes);
  second = widen2<1>(bytes);
}
POD_DEVICE void widen_keys(uint32_t& even, uint32_t& odd, uint32_t bytes) {
  widen_columns(even, odd, ptx::order_bytes<0x3120>(bytes));
}

// kPanels: the place in a row of D columns of half `half` of its bytes 16 * chunk .., and the first
// column of a place.
template <int D>
POD_DEVICE constexpr int panel_place(int chunk, int half) {
  return D > 64 ? half * 8 + chunk : chunk * 2 + half;
}
template <int D>
POD_DEVICE constexpr int panel_column(int place) {
  return D > 64 ? place % 8 * 16 + place / 8 * 8 : place * 8;
}

// The first column of block `i` of 8 of O.
template <Order kOrder, int D>
POD_DEVICE constexpr int block_column(int i) {
  static_assert(kOrder != Order::kSplit, "its blocks are of every other column");
  return kOrder == Order::kPanels ? panel_column<D>(i) : i * Fragment::kColumns;
}

// visit(column, x, y) for the pairs of neighbouring columns of O that a lane holds of a row.
template <Order kOrder, int kAlong, typename Visit>
POD_DEVICE void for_each_pair(const float (&o)[kAlong][4], int half, int lane, Visit visit) {
  POD_UNROLL
  for (int i = 0; i < kAlong; ++i) {
    if constexpr (kOrder == Order::kSplit) {
      const int even = i / 2 * 2, place = i % 2;
      visit(even * Fragment::kColumns + 2 * (Fragment::column(lane) + place),
            o[even][Fragment::at(half, place)], o[even + 1][Fragment::at(half, place)]);
    } else {
      constexpr int D = kAlong * Fragment::kColumns;
      visit(block_column<kOrder, D>(i) + Fragment::column(lane), o[i][Fragment::at(half, 0)],
            o[i][Fragment::at(half, 1)]);
    }
  }
}

// Of items on mma.
template <typename Kv>
constexpr Order kOrder = sizeof(Kv) == 1 ? Order::kSplit : Order::kPlain;

}  // namespace pod::layout
