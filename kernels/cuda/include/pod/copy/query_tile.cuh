// query_tile.cuh: packed query rows of an item into shared memory. Rows past its end become zeros.
#pragma once

#include "pod/layout/bytes.cuh"
#include "pod/layout/rows.cuh"
#include "pod/layout/swizzle.cuh"
#include "pod/ptx/async_copy.cuh"
#include "pod/ptx/shared.cuh"

namespace pod::copy {

// The first element of a row's 16-byte chunk; `row` < item.rows.
POD_DEVICE const char* query_chunk(const KernelArguments& a, const Item& item, int row, int chunk) {
  const auto at = layout::token_head(item.q_begin, item.kv_head, item.row0 + row, a.group);
  const int64_t element =
      at.token * a.q_token + at.head * a.q_head + chunk * layout::kChunkElements;
  return static_cast<const char*>(a.q) + element * kQBytes;
}

// Issues the copies of q_tile [q_rows, D], swizzled. The caller commits and waits. `thread` is
// 0 .. kThreads - 1.
template <int D, int kRows, int kThreads, class Layout = layout::Rows<D * kQBytes>>
POD_DEVICE void load_queries(uint32_t q_tile, const KernelArguments& a, const Item& item,
                             int thread) {
  constexpr int kChunks = D / layout::kChunkElements;
  POD_UNROLL
  for (unsigned i = thread; i < kRows * kChunks; i += kThreads) {
    const int row = i / kChunks, chunk = i % kChunks;
    const bool valid = row < item.rows;
    ptx::cp_async_16(Layout::chunk_address(q_tile, row, chunk),
                     query_chunk(a, item, valid ? row : 0, chunk), valid);
  }
}

// The same for K of bytes, which layout/bytes.cuh has by even and odd columns: written when it
// returns, by ordinary stores.
template <int D, int kRows, int kThreads, class Layout = layout::Rows<D * kQBytes>>
POD_DEVICE void store_split_queries(uint32_t q_tile, const KernelArguments& a, const Item& item,
                                    int thread) {
  constexpr int kPairs = D / layout::kChunkElements / 2;
  POD_UNROLL
  for (unsigned i = thread; i < kRows * kPairs; i += kThreads) {
    const int row = i / kPairs, chunk = i % kPairs * 2;
    Int4 left{}, right{};
    if (row < item.rows) {
      const auto* from = reinterpret_cast<const Int4*>(query_chunk(a, item, row, chunk));
      left = from[0], right = from[1];
    }
    ptx::st_shared_16(Layout::chunk_address(q_tile, row, chunk),
                      {layout::low_halves(left.x, left.y), layout::low_halves(left.z, left.w),
                       layout::low_halves(right.x, right.y), layout::low_halves(right.z, right.w)});
    ptx::st_shared_16(
        Layout::chunk_address(q_tile, row, chunk + 1),
        {layout::high_halves(left.x, left.y), layout::high_halves(left.z, left.w),
         layout::high_halves(right.x, right.y), layout::high_halves(right.z, right.w)});
  }
}

}  // namespace pod::copy
