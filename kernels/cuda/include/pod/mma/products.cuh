// products.cuh: the two matrix products of attention on one warp's fragments. T is what the unit
// takes (layout::Operand), Kv what shared memory has of K and V.
#pragma once

#include "pod/layout/bytes.cuh"
#include "pod/layout/swizzle.cuh"
#include "pod/ptx/ldmatrix.cuh"
#include "pod/ptx/math.cuh"
#include "pod/ptx/mma.cuh"

namespace pod::mma {

// Q of kTiles 16-row tiles: kept in registers, or read from shared memory for every K tile where
// registers are short.
template <int D, int kTiles, bool kInRegisters>
struct Queries {
  uint32_t q_rows;  // address of the warp's first row
  uint32_t kept[kInRegisters ? kTiles : 1][kInRegisters ? D / 16 : 1][4];

  // The bytes of Q have landed and are visible.
  POD_DEVICE Queries(uint32_t q_rows, int lane) : q_rows(q_rows) {
    if constexpr (kInRegisters) {
      const auto rows = layout::lane_row_a<D * kQBytes>(q_rows, lane);
      POD_UNROLL
      for (int tile = 0; tile < kTiles; ++tile) {
        POD_UNROLL
        for (int k = 0; k < D / 16; ++k) ptx::ldmatrix_x4(kept[tile][k], rows.at(tile, k));
      }
    }
  }

  POD_DEVICE void get(uint32_t (&a)[4], const layout::LaneRow<D * kQBytes>& rows, int tile,
                      int k) const {
    if constexpr (kInRegisters) {
      POD_UNROLL
      for (int j = 0; j < 4; ++j) a[j] = kept[tile][k][j];
    } else {
      ptx::ldmatrix_x4(a, rows.at(tile, k));
    }
  }
};

// What one ldmatrix brings of K or V of type Kv: kBlocks blocks of 16 columns of 16 rows.
template <typename Kv>
constexpr int kBlocks = layout::kElementBytes / static_cast<int>(sizeof(Kv));

// B fragments of two column tiles, b[0] and b[1], b[2] and b[3], of block `block`. Of K the tiles
// are 8 keys each, of V 8 columns of O.
template <typename Kv>
POD_DEVICE void key_fragments(uint32_t (&b)[4], const uint32_t (&raw)[4], int block) {
  if constexpr (sizeof(Kv) > 1) {
    POD_UNROLL
    for (int j = 0; j < 4; ++j) b[j] = raw[j];
  } else {
    layout::widen_columns(b[0], b[1], raw[block]);
    layout::widen_columns(b[2], b[3], raw[2 + block]);
  }
}
template <typename Kv>
POD_DEVICE void value_fragments(uint32_t (&b)[4], const uint32_t (&raw)[4], int block) {
  if constexpr (sizeof(Kv) > 1) {
    POD_UNROLL
    for (int j = 0; j < 4; ++j) b[j] = raw[j];
  } else {
    layout::widen_keys(b[0], b[2], raw[2 * block]);
    layout::widen_keys(b[1], b[3], raw[2 * block + 1]);
  }
}

// s[kTiles * 16, kColumns * 8] = Q K^T, where `k_rows` is the address of the first of the
// kColumns * 8 rows of K.
template <typename T, typename Kv, int D, int kTiles, int kColumns, bool kInRegisters>
POD_DEVICE void scores(float (&s)[kTiles][kColumns][4],
                       const Queries<D, kTiles, kInRegisters>& queries, uint32_t k_rows, int lane) {
  lane = ptx::forget(lane);
  constexpr int kAlong = kBlocks<Kv>;
  const auto q_rows = layout::lane_row_a<D * kQBytes>(queries.q_rows, lane);
  const auto rows = layout::lane_row_b<D * sizeof(Kv)>(k_rows, lane);
  POD_UNROLL
  for (int tile = 0; tile < kTiles; ++tile) {
    POD_UNROLL
    for (int n = 0; n < kColumns; ++n) {
      POD_UNROLL
      for (int j = 0; j < 4; ++j) s[tile][n][j] = 0.f;
    }
  }
  POD_UNROLL
  for (int step = 0; step < D / 16 / kAlong; ++step) {
    uint32_t a[kAlong][kTiles][4];
    POD_UNROLL
    for (int block = 0; block < kAlong; ++block) {
      POD_UNROLL
      for (int tile = 0; tile < kTiles; ++tile) {
        queries.get(a[block][tile], q_rows, tile, step * kAlong + block);
      }
    }
    POD_UNROLL
    for (int n = 0; n < kColumns; n += 2) {
      uint32_t raw[4];
      ptx::ldmatrix_x4(raw, rows.at(n / 2, step));
      POD_UNROLL
      for (int block = 0; block < kAlong; ++block) {
        uint32_t b[4];
        key_fragments<Kv>(b, raw, block);
        POD_UNROLL
        for (int tile = 0; tile < kTiles; ++tile) {
          ptx::mma_m16n8k16<T>(s[tile][n], a[block][tile], b[0], b[1]);
          ptx::mma_m16n8k16<T>(s[tile][n + 1], a[block][tile], b[2], b[3]);
        }
      }
    }
  }
}

// Weights rounded to T: two column tiles of scores are one A fragment. Packed at once, they free
// half of the scores' registers before V is read.
template <int kTiles, int kColumns>
struct Weights {
  uint32_t a[kTiles][kColumns / 2][4];
};

template <typename T, int kTiles, int kColumns>
POD_DEVICE void pack_weights(Weights<kTiles, kColumns>& p, const float (&s)[kTiles][kColumns][4]) {
  POD_UNROLL
  for (int tile = 0; tile < kTiles; ++tile) {
    POD_UNROLL
    for (int k = 0; k < kColumns / 2; ++k) {
      const float (&left)[4] = s[tile][2 * k];
      const float (&right)[4] = s[tile][2 * k + 1];
      p.a[tile][k][0] = ptx::pack2<T>(left[0], left[1]);
      p.a[tile][k][1] = ptx::pack2<T>(left[2], left[3]);
      p.a[tile][k][2] = ptx::pack2<T>(right[0], right[1]);
      p.a[tile][k][3] = ptx::pack2<T>(right[2], right[3]);
    }
  }
}

// o += P V for P [kTiles * 16, kColumns * 8], where `v_rows` is the address of the first of the
// kColumns * 8 rows of V; columns of o as layout/bytes.cuh has them.
template <typename T, typename Kv, int D, int kTiles, int kColumns>
POD_DEVICE void weighted_values(float (&o)[kTiles][D / 8][4], const Weights<kTiles, kColumns>& p,
                                uint32_t v_rows, int lane) {
  constexpr int kAlong = kBlocks<Kv>;
  const auto rows = layout::lane_row_a<D * sizeof(Kv)>(v_rows, ptx::forget(lane));
  POD_UNROLL
  for (int k = 0; k < kColumns / 2; ++k) {
    POD_UNROLL
    for (int step = 0; step < D / 16 / kAlong; ++step) {
      uint32_t raw[4];
      ptx::ldmatrix_x4_trans(raw, rows.at(k, step));
      POD_UNROLL
      for (int block = 0; block < kAlong; ++block) {
        const int d = step * kAlong + block;
        uint32_t b[4];
        value_fragments<Kv>(b, raw, block);
        POD_UNROLL
        for (int tile = 0; tile < kTiles; ++tile) {
          ptx::mma_m16n8k16<T>(o[tile][2 * d], p.a[tile][k], b[0], b[1]);
          ptx::mma_m16n8k16<T>(o[tile][2 * d + 1], p.a[tile][k], b[2], b[3]);
        }
      }
    }
  }
}

}  // namespace pod::mma
