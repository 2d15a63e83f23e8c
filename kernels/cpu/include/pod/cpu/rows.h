// rows.h: from (request, KV head, token) to the K and V rows of the paged cache.
#pragma once

#include <type_traits>

#include "pod/cpu/launch.h"

namespace pod::cpu::POD_ISA {

// Calls visit(i, k_row, v_row) for tokens [begin, end) of a request, i from 0; divides once.
template <typename Visit>
inline void for_each_row(const Problem& p, int request, int kv_head, int begin, int end,
                         Visit visit) {
  const PagedCache& cache = p.cache;
  const int32_t* page = cache.page_indices + cache.page_starts[request] + begin / cache.page_size;
  int slot = begin % cache.page_size;
  const char* k = cache.k + kv_head * cache.k_head;
  const char* v = cache.v + kv_head * cache.v_head;
  for (int i = 0; i < end - begin; ++i) {
    visit(i, k + *page * cache.k_page + slot * cache.k_slot,
          v + *page * cache.v_page + slot * cache.v_slot);
    if (++slot == cache.page_size) {
      slot = 0;
      ++page;
    }
  }
}

// Where packed row r of a request and KV head lies in q, out and lse.
struct PackedRow {
  int token, head;
};
inline PackedRow packed_row(const Problem& p, int request, int kv_head, int r) {
  return {p.q_indptr[request] + r / p.group, kv_head * p.group + r % p.group};
}

// Calls body(rows, r) for rows [r, r + rows) until all `count` are through: four at a time, then
// two, then one. `rows` is an integral constant.
template <typename Body>
inline void for_row_blocks(int count, Body body) {
  int r = 0;
  for (; r + 4 <= count; r += 4) body(std::integral_constant<int, 4>{}, r);
  if (r + 2 <= count) {
    body(std::integral_constant<int, 2>{}, r);
    r += 2;
  }
  if (r < count) body(std::integral_constant<int, 1>{}, r);
}

}  // namespace pod::cpu::POD_ISA
