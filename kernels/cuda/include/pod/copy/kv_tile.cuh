// kv_tile.cuh: rows of K and V, found through the page list, into shared memory.
#pragma once

#include "pod/arguments.h"
#include "pod/layout/scope.cuh"
#include "pod/layout/swizzle.cuh"
#include "pod/ptx/async_copy.cuh"

namespace pod::copy {

// Each warp copies kRows / kWarps neighbouring rows of a tile. Its lanes look up one row each, a
// tile ahead of the copies, and hand the places round by shuffles: a page index costs one load
// per row and its latency is hidden, whatever the page size.
template <int D, int kRows, int kWarps, class Layout = layout::Rows<D>>
class KvLoader {
 public:
  POD_DEVICE KvLoader(const LaunchArguments& a, const Item& item, const Scope<kWarps>& scope)
      : a_(a),
        pages_(static_cast<int>(a.page_starts[item.request])),
        item_(item),
        thread_(scope.thread) {}

  // Past the last key.
  POD_DEVICE int end() const { return item_.kv1; }

  // Looks up the rows of the tile that starts at key `kv`; loads are in flight when it returns.
  POD_DEVICE void look_up(int kv) { look_up(kv, v_place_); }

  // The same for a loop that copies K one tile ahead of V: V's places wait for the next call.
  POD_DEVICE void look_up_ahead(int kv) {
    POD_UNROLL
    for (int i = 0; i < kPlaces; ++i) v_place_[i] = v_next_[i];
    look_up(kv, v_next_);
  }

  // Issues the copies of the looked-up rows into k_tile [kRows, D]; rows past the keys become
  // zeros. The tile starts at key `kv`.
  POD_DEVICE void load_k(uint32_t k_tile, int kv) const {
    load(k_tile, kv, static_cast<const char*>(a_.k) + item_.kv_head * a_.k_head * 2, k_place_);
  }
  POD_DEVICE void load_v(uint32_t v_tile, int kv) const {
    load(v_tile, kv, static_cast<const char*>(a_.v) + item_.kv_head * a_.v_head * 2, v_place_);
  }

 private:
  static constexpr int kChunks = D / 8;
  static constexpr int kWarpRows = kRows / kWarps;
  static constexpr int kPlaces = (kWarpRows + kWarpSize - 1) / kWarpSize;
  static constexpr int kBlocks = kWarpRows / 8;
  static constexpr int kPasses = 8 * kChunks / kWarpSize;  // of 32 chunks, over 8 rows
  // Few addresses at a time beside the panels' consumers, whose accumulators fill the registers.
  static constexpr int kUnroll = Layout::kIsPanels ? 2 : kPasses;
  static_assert(kRows % (8 * kWarps) == 0, "a warp copies blocks of 8 rows");

  POD_DEVICE void look_up(int kv, int (&v_place)[kPlaces]) {
    const int thread = ptx::forget(thread_);
    POD_UNROLL
    for (int i = 0; i < kPlaces; ++i) {
      const int row = i * kWarpSize + (thread & 31), key = kv + first_row(thread) + row;
      k_place_[i] = v_place[i] = 0;
      if (row < kWarpRows && key < end()) {
        const int page = key / a_.page_size, slot = key - page * a_.page_size;
        const int64_t index = a_.page_indices[pages_ + page];
        k_place_[i] = static_cast<int>((index * a_.k_page + slot * a_.k_slot) >> 3);
        v_place[i] = static_cast<int>((index * a_.v_page + slot * a_.v_slot) >> 3);
      }
    }
  }

  // The first row that the thread's warp copies.
  POD_DEVICE static int first_row(int thread) { return (thread >> 5) * kWarpRows; }

  // The swizzle repeats after 8 rows, so one address serves all blocks at fixed distances.
  POD_DEVICE void load(uint32_t tile, int kv, const char* base, const int (&place)[kPlaces]) const {
    const int thread = ptx::forget(thread_), lane = thread & 31, row0 = first_row(thread);
    POD_UNROLL_BY(kUnroll)
    for (int pass = 0; pass < kPasses; ++pass) {
      const unsigned i = pass * kWarpSize + lane;
      const int row = i / kChunks, chunk = i % kChunks;
      const uint32_t to = Layout::chunk_address(tile, row0, row, chunk);
      const char* from = base + chunk * 16;
      const int left = end() - kv - row0 - row;
      POD_UNROLL
      for (int block = 0; block < kBlocks; ++block) {
        const uint32_t where = ptx::shfl(place[block / 4], row + block % 4 * 8);
        ptx::cp_async_16(to + block * 8 * Layout::kRowBytes, from + (uint64_t{where} << 4),
                         block * 8 < left);
      }
    }
  }

  const LaunchArguments& a_;
  int pages_;  // of the request's list in page_indices
  const Item& item_;
  int thread_;
  // Of the lane's rows, in units of 16 bytes.
  int k_place_[kPlaces], v_place_[kPlaces], v_next_[kPlaces] = {};
};

}  // namespace pod::copy
