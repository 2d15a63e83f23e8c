// query_tile.cuh: packed query rows of an item into shared memory.
#pragma once

#include "pod/layout/rows.cuh"
#include "pod/layout/swizzle.cuh"
#include "pod/ptx/async_copy.cuh"

namespace pod::copy {

// Issues the copies of q_tile [q_rows, D], swizzled; rows past the item's end become zeros. The
// caller commits and waits. `thread` is 0 .. kThreads - 1.
template <int D, int kRows, int kThreads, class Layout = layout::Rows<D>>
POD_DEVICE void load_queries(uint32_t q_tile, const KernelArguments& a, const Item& item,
                             int thread) {
  constexpr int kChunks = D / layout::kChunkElements;
  const char* q = static_cast<const char*>(a.q);
  POD_UNROLL
  for (unsigned i = thread; i < kRows * kChunks; i += kThreads) {
    const int row = i / kChunks, chunk = i % kChunks;
    const bool valid = row < item.rows;
    const auto at =
        layout::token_head(item.q_begin, item.kv_head, item.row0 + (valid ? row : 0), a.group);
    const int64_t element =
        at.token * a.q_token + at.head * a.q_head + chunk * layout::kChunkElements;
    ptx::cp_async_16(Layout::chunk_address(q_tile, row, chunk), q + element * kQBytes, valid);
  }
}

}  // namespace pod::copy
