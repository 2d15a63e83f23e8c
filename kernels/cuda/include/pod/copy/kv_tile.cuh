// kv_tile.cuh: rows of K and V, found through the page list, into shared memory.
#pragma once

#include "pod/layout/rows.cuh"
#include "pod/layout/swizzle.cuh"
#include "pod/ptx/async_copy.cuh"

namespace pod::copy {

// Each warp copies kRows / kWarps neighbouring rows of a tile, a few rows per instruction: a
// segment of lanes takes a row, piece by piece where its layout has the row in several, a lane the
// same chunk of all of these. A lane looks up the place of one of its segment's rows, a tile ahead
// of the copies, and a shuffle with a constant index hands it round: a page index costs one load
// per row and its latency is hidden, whatever the page size. Pieces share the shuffle and both
// addresses, and leave no lane idle where a row has 12 chunks.
template <int kRowBytes, int kRows, int kWarps, class Layout = layout::Rows<kRowBytes>>
class KvLoader {
  static constexpr int kPieces = Layout::kPieces;
  static constexpr int kPieceBytes = kRowBytes / kPieces,
                       kChunks = kPieceBytes / layout::kChunkBytes;
  // Lanes of a segment past the piece's chunks copy nothing.
  static constexpr int kSegment = kChunks <= 4 ? 4 : kChunks <= 8 ? 8 : kChunks <= 16 ? 16 : 32;
  static constexpr int kRowsAtOnce = kWarpSize / kSegment;
  static constexpr int kWarpRows = kRows / kWarps;

 public:
  static constexpr int kSteps = kWarpRows / kRowsAtOnce;

  // `thread` is 0 .. 32 * kWarps - 1.
  POD_DEVICE KvLoader(const KernelArguments& a, const Item& item, int thread)
      : a_(a), item_(item), thread_(thread), end_(ptx::warp_uniform(item.kv1)) {}

  // Past the last key.
  POD_DEVICE int end() const { return end_; }

  // Starts to look up the rows of the tile that starts at key `kv`. Nothing waits for the loads
  // before resolve().
  POD_DEVICE void look_up(int kv) {
    const int thread = ptx::forget(thread_);
    POD_UNROLL
    for (int i = 0; i < kPlaces; ++i) {
      const int step = i * kSegment + thread % kSegment, key = key_of(kv, thread, step);
      index_[i] = 0;
      if (step < kSteps && key < end()) {
        index_[i] = a_.page_indices[item_.first_page + layout::quotient(key, a_.page_divider)];
      }
    }
  }

  // Turns what was looked up for the tile that starts at key `kv` into places of K and V.
  POD_DEVICE void resolve(int kv) { resolve_places<true, true>(kv); }
  // Of one of them, so that a single place is held while the other is not needed.
  POD_DEVICE void resolve_k(int kv) { resolve_places<true, false>(kv); }
  POD_DEVICE void resolve_v(int kv) { resolve_places<false, true>(kv); }

  // Issues the copies of the resolved rows into k_tile [kRows, D]; rows past the keys become zeros.
  // The tile starts at key `kv`.
  POD_DEVICE void load_k(uint32_t k_tile, int kv) const { load(k_tile, kv, a_.k, k_place_); }
  POD_DEVICE void load_v(uint32_t v_tile, int kv) const { load(v_tile, kv, a_.v, v_place_); }

  // For copies of V that come later than those of the next tile's keys: keep_v() before these are
  // resolved.
  POD_DEVICE void keep_v() {
    POD_UNROLL
    for (int i = 0; i < kPlaces; ++i) kept_v_[i] = v_place_[i];
  }
  POD_DEVICE void load_kept_v(uint32_t v_tile, int kv) const { load(v_tile, kv, a_.v, kept_v_); }

  // The same in parts: a thread copies a chunk in each of kSteps steps, of row_of() of the tile.
  // Steps kFirst .. kEnd - 1, to where `to` says; none of a tile past the keys.
  POD_DEVICE static int row_of(int thread, int step) {
    return first_row(thread) + step * kRowsAtOnce;
  }
  POD_DEVICE static int chunk_of(int thread) { return thread & (kSegment - 1); }
  template <int kFirst, int kEnd, typename To>
  POD_DEVICE void load_k_chunks(To to, int kv) const {
    load_chunks<kFirst, kEnd>(to, kv, a_.k, k_place_);
  }
  template <int kFirst, int kEnd, typename To>
  POD_DEVICE void load_v_chunks(To to, int kv) const {
    load_chunks<kFirst, kEnd>(to, kv, a_.v, v_place_);
  }

 private:
  static constexpr int kPlaces = (kSteps + kSegment - 1) / kSegment;
  static constexpr int kBlockSteps = 8 / kRowsAtOnce;
  static_assert(kRows % (8 * kWarps) == 0, "a warp copies blocks of 8 rows");

  template <bool kKeys, bool kValues>
  POD_DEVICE void resolve_places(int kv) {
    const int thread = ptx::forget(thread_);
    const uint32_t head = ptx::forget(item_.kv_head);
    POD_UNROLL
    for (int i = 0; i < kPlaces; ++i) {
      const int key = key_of(kv, thread, i * kSegment + thread % kSegment);
      const uint32_t slot = key - layout::quotient(key, a_.page_divider) * a_.page_size;
      if (kKeys) k_place_[i] = place(a_.k_strides, index_[i], slot, head);
      if (kValues) v_place_[i] = place(a_.v_strides, index_[i], slot, head);
    }
  }

  POD_DEVICE static uint32_t place(const CacheStrides& strides, uint32_t page, uint32_t slot,
                                   uint32_t head) {
    return page * strides.page + slot * strides.slot + head * strides.head;
  }

  // The first row that the thread's segment copies; the next is kRowsAtOnce further on.
  POD_DEVICE static int first_row(int thread) {
    return (thread >> 5) * kWarpRows + (thread & 31) / kSegment;
  }

  POD_DEVICE static int key_of(int kv, int thread, int step) {
    return kv + first_row(thread) + step * kRowsAtOnce;
  }

  template <int kFirst, int kEnd, typename To>
  POD_DEVICE void load_chunks(To to, int kv, const void* cache,
                              const uint32_t (&place)[kPlaces]) const {
    static_assert(kSegment == kChunks && kPieces == 1, "every lane has a chunk of a row");
    const int thread = ptx::forget(thread_), left = end() - kv;
    if (left <= 0) return;
    const char* from = static_cast<const char*>(cache) + chunk_of(thread) * layout::kChunkBytes;
    POD_UNROLL
    for (int i = kFirst; i < kEnd; ++i) {
      const uint32_t where = ptx::shfl_segment<kSegment>(place[i / kSegment], i % kSegment);
      const char* at = from + (uint64_t{where} << 4);
      if (left >= kRows) {
        ptx::cp_async_16(to(i), at);
      } else {
        ptx::cp_async_16(to(i), at, row_of(thread, i) < left);
      }
    }
  }

  // All but the last tile of an item are whole, and need no test per row.
  POD_DEVICE void load(uint32_t tile, int kv, const void* cache,
                       const uint32_t (&place)[kPlaces]) const {
    if (kv + kRows <= end()) {
      load_rows<true>(tile, kv, cache, place);
    } else {
      load_rows<false>(tile, kv, cache, place);
    }
  }

  // The swizzle repeats after 8 rows, so that one address serves a step of all such blocks, and all
  // pieces, at fixed distances.
  template <bool kWhole>
  POD_DEVICE void load_rows(uint32_t tile, int kv, const void* cache,
                            const uint32_t (&place)[kPlaces]) const {
    const int thread = ptx::forget(thread_), chunk = thread % kSegment, row0 = first_row(thread);
    const char* from = ptx::forget(static_cast<const char*>(cache) + chunk * layout::kChunkBytes);
    const int left = end() - kv - row0;
    // An array that a loop indexes at run time would leave the registers.
    POD_UNROLL_BY(kWhole || kPlaces > 1 ? kBlockSteps : 1)
    for (int i = 0; i < kBlockSteps; ++i) {
      const uint32_t to = Layout::chunk_address(tile, row0 + i * kRowsAtOnce, chunk);
      POD_UNROLL
      for (int block = 0; block < kSteps / kBlockSteps; ++block) {
        const int step = i + block * kBlockSteps, held = kPlaces > 1 ? step / kSegment : 0;
        const uint32_t where = ptx::shfl_segment<kSegment>(place[held], step % kSegment);
        if (kSegment > kChunks && chunk >= kChunks) continue;
        const char* row = from + (uint64_t{where} << 4);
        const uint32_t at = to + block * 8 * Layout::kRowBytes;
        POD_UNROLL
        for (int piece = 0; piece < kPieces; ++piece) {
          const uint32_t piece_at = at + piece * Layout::kPieceStride;
          const char* piece_from = row + piece * kPieceBytes;
          if constexpr (kWhole) {
            ptx::cp_async_16(piece_at, piece_from);
          } else {
            ptx::cp_async_16(piece_at, piece_from, step * kRowsAtOnce < left);
          }
        }
      }
    }
  }

  const KernelArguments& a_;
  const Item& item_;
  int thread_, end_;
  // Pages of the lane's rows, then where these are, in units of 16 bytes.
  uint32_t index_[kPlaces], k_place_[kPlaces], v_place_[kPlaces], kept_v_[kPlaces];
};

}  // namespace pod::copy
