// query_tile.cuh: packed query rows of an item into shared memory. Rows past its end become zeros.
#pragma once

#include "pod/layout/bytes.cuh"
#include "pod/layout/rows.cuh"
#include "pod/layout/swizzle.cuh"
#include "pod/ptx/async_copy.cuh"
#include "pod/ptx/shared.cuh"

namespace pod::copy {

// The first element of a row's 16-byte chunk, to be read if the item has the row.
POD_DEVICE const char* query_chunk(const KernelArguments& a, layout::TokenHead at, int chunk) {
  const int64_t element =
      at.token * a.q_token + at.head * a.q_head + chunk * layout::kChunkElements;
  return static_cast<const char*>(a.q) + element * kQBytes;
}

// The same chunk of packed rows that are `step` apart, found by additions: a multiplying warp that
// divides for each row is late for the end of the product that it has in flight.
class QueryWalk {
 public:
  // From row `row` of the item on.
  POD_DEVICE QueryWalk(const KernelArguments& a, const Item& item, int row, int chunk, int step)
      : group_(a.group) {
    const auto first = layout::token_head(a, item, row);
    at_ = query_chunk(a, first, chunk);
    head_ = first.head - item.kv_head * group_;
    const int tokens = layout::quotient(step, a.group_divider);
    heads_ = step - tokens * group_;
    ahead_ = (tokens * a.q_token + heads_ * a.q_head) * kQBytes;
    next_token_ = (a.q_token - group_ * a.q_head) * kQBytes;
  }

  POD_DEVICE const char* at() const { return at_; }
  POD_DEVICE void advance() {
    at_ += ahead_;
    head_ += heads_;
    if (head_ < group_) return;
    head_ -= group_;
    at_ += next_token_;
  }

 private:
  const char* at_;
  int64_t ahead_, next_token_;
  int group_, head_, heads_;
};

// Issues the copies of kRows rows of q_tile [.., D] from `row0` on, swizzled, each in the pieces of
// its layout. The caller commits and waits. `thread` is 0 .. kThreads - 1.
template <int D, int kRows, int kThreads, class Layout = layout::Rows<D * kQBytes>>
POD_DEVICE void load_queries(uint32_t q_tile, const KernelArguments& a, const Item& item,
                             int thread, int row0 = 0) {
  constexpr int kPieceBytes = D * kQBytes / Layout::kPieces;
  constexpr int kChunks = kPieceBytes / layout::kChunkBytes;
  // Lanes that take a row; of those past a piece's chunks there is nothing to copy.
  constexpr int kSegment = kChunks <= 4 ? 4 : kChunks <= 8 ? 8 : kChunks <= 16 ? 16 : 32;
  constexpr int kAtOnce = kThreads / kSegment;
  const int chunk = thread % kSegment, first = row0 + thread / kSegment;
  if (chunk >= kChunks || first >= row0 + kRows) return;
  static_assert(kRows % kAtOnce == 0 || kRows < kAtOnce, "no row past the tile's");
  QueryWalk walk(a, item, first, chunk, kAtOnce);
  POD_UNROLL
  for (int i = 0; i < kRows; i += kAtOnce) {
    const int row = first + i;
    const bool valid = row < item.rows;
    const char* from = valid ? walk.at() : static_cast<const char*>(a.q);
    const uint32_t to = Layout::chunk_address(q_tile, row, chunk);
    POD_UNROLL
    for (int piece = 0; piece < Layout::kPieces; ++piece) {
      ptx::cp_async_16(to + piece * Layout::kPieceStride, from + piece * kPieceBytes, valid);
    }
    walk.advance();
  }
}

// What brings a row of bf16 to the range of fp16: its largest number to 2^14 .. 2^15, so that all
// which are not 2^29 times smaller stay what they are; `back` undoes it. Powers of two, so that Q.K
// of the row is exact up to the same power. A row of zeros, or of very small numbers, is
// multiplied by no more than 2^126.
struct RowFactor {
  float factor, back;
};
POD_DEVICE RowFactor row_factor(float highest) {
  constexpr int kBias = 127, kTop = 14, kMost = 126;
  const int exponent = static_cast<int>(ptx::pack2<bf16>(highest, 0.f) >> 7 & 0xff);
  const int power = min(kTop + kBias - exponent, kMost);
  return {ptx::float_of(static_cast<uint32_t>(kBias + power) << 23),
          ptx::float_of(static_cast<uint32_t>(kBias - power) << 23)};
}

// Two numbers of bf16, as floats.
struct Floats2 {
  float lo, hi;
};
POD_DEVICE Floats2 floats_of(int bf16s) {
  const auto bits = static_cast<uint32_t>(bf16s);
  return {ptx::float_of(bits << 16), ptx::float_of(bits & 0xffff0000u)};
}

// 16 columns of a row of Q, two to a register.
struct QueryColumns {
  int at[8] = {};

  POD_DEVICE void take(const Int4& left, const Int4& right) {
    at[0] = left.x, at[1] = left.y, at[2] = left.z, at[3] = left.w;
    at[4] = right.x, at[5] = right.y, at[6] = right.z, at[7] = right.w;
  }
  POD_DEVICE float highest() const {
    float highest = 0.f;
    POD_UNROLL
    for (int i = 0; i < 8; ++i) {
      const Floats2 x = floats_of(at[i]);
      highest = max(highest, max(fabsf(x.lo), fabsf(x.hi)));
    }
    return highest;
  }
  POD_DEVICE void narrow(float factor) {
    POD_UNROLL
    for (int i = 0; i < 8; ++i) {
      const Floats2 x = floats_of(at[i]);
      at[i] = static_cast<int>(ptx::pack2<fp16>(x.lo * factor, x.hi * factor));
    }
  }
};

// Of row `row` the 16 columns from 16 * block on.
template <int D, layout::Order kOrder, class Layout>
POD_DEVICE void store_columns(uint32_t q_tile, int row, int block, const QueryColumns& columns) {
  const int (&x)[8] = columns.at;
  if constexpr (kOrder == layout::Order::kSplit) {
    ptx::st_shared_16(Layout::chunk_address(q_tile, row, 2 * block), {x[0], x[2], x[4], x[6]});
    ptx::st_shared_16(Layout::chunk_address(q_tile, row, 2 * block + 1), {x[1], x[3], x[5], x[7]});
  } else {
    const int first = layout::panel_place<D>(block, 0), second = layout::panel_place<D>(block, 1);
    ptx::st_shared_16(Layout::chunk_address(q_tile, row, first), {x[0], x[1], x[2], x[3]});
    ptx::st_shared_16(Layout::chunk_address(q_tile, row, second), {x[4], x[5], x[6], x[7]});
  }
}

// 16 rows of Q, of the item's rows row0 .., as operands beside K of bytes: columns in kOrder, rows
// of bf16 times a power of two. Written when it returns, by ordinary stores, those rows that
// `writes` says; unit[half] is what a score of the lane's row is worth. A whole warp calls.
template <typename T, int D, layout::Order kOrder, class Layout, typename Writes>
POD_DEVICE void store_operand_queries(uint32_t q_tile, const KernelArguments& a, const Item& item,
                                      int row0, int lane, float (&unit)[Fragment::kHalves],
                                      Writes writes) {
  constexpr int kBlocks = D / 16, kLanes = 4, kOwn = (kBlocks + kLanes - 1) / kLanes;
  POD_UNROLL
  for (int half = 0; half < Fragment::kHalves; ++half) {
    const int row = row0 + Fragment::row(lane, half);
    QueryColumns columns[kOwn];
    float highest = 0.f;
    POD_UNROLL
    for (int i = 0; i < kOwn; ++i) {
      const int block = i * kLanes + lane % kLanes;
      if (row < item.rows && block < kBlocks) {
        const auto at = layout::token_head(a, item, row);
        const auto* from = reinterpret_cast<const Int4*>(query_chunk(a, at, 2 * block));
        columns[i].take(from[0], from[1]);
      }
      if constexpr (std::is_same_v<T, bf16>) highest = max(highest, columns[i].highest());
    }
    unit[half] = 1.f;
    if constexpr (std::is_same_v<T, bf16>) {
      const RowFactor factor = row_factor(row_max(highest));
      unit[half] = factor.back;
      POD_UNROLL
      for (int i = 0; i < kOwn; ++i) columns[i].narrow(factor.factor);
    }
    if (!writes(row)) continue;
    POD_UNROLL
    for (int i = 0; i < kOwn; ++i) {
      const int block = i * kLanes + lane % kLanes;
      if (block < kBlocks) store_columns<D, kOrder, Layout>(q_tile, row, block, columns[i]);
    }
  }
}

}  // namespace pod::copy
