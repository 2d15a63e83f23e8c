// query_tile.cuh: packed query rows of an item into shared memory.
#pragma once

#include "pod/layout/rows.cuh"
#include "pod/layout/scope.cuh"
#include "pod/layout/swizzle.cuh"
#include "pod/ptx/async_copy.cuh"

namespace pod::copy {

// Issues the copies of q_tile [q_rows, D], swizzled; rows past the item's end become zeros. The
// caller commits and waits.
template <int D, int kRows, class Layout = layout::Rows<D>, int kWarps>
POD_DEVICE void load_queries(uint32_t q_tile, const LaunchArguments& a, const Item& item,
                             const Scope<kWarps>& scope) {
  constexpr int kChunks = D / 8;
  const char* q = static_cast<const char*>(a.q);
  POD_UNROLL
  for (unsigned i = scope.thread; i < kRows * kChunks; i += Scope<kWarps>::kThreads) {
    const int row = i / kChunks, chunk = i % kChunks;
    const bool valid = row < item.rows;
    const auto at =
        layout::token_head(item.q_begin, item.kv_head, item.row0 + (valid ? row : 0), a.group);
    const int64_t element = at.token * a.q_token + at.head * a.q_head + chunk * 8;
    ptx::cp_async_16(Layout::chunk_address(q_tile, row, chunk), q + element * 2, valid);
  }
}

}  // namespace pod::copy
