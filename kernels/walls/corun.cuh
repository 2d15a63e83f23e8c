// corun.cuh: one CTA per SM that multiplies and decodes at once, each on warps of its own.
//
// Warpgroup 0 brings K and V, 1 and 2 multiply 64 query rows each, 3 decodes: up to four warps on
// their own, or together (kWide)
// Smem    Q [128, 128] | K x stages | V x stages | places of the decoding warps
#pragma once

#include "group_decoder.cuh"
#include "multiplier.cuh"
#include "pod/ptx/registers.cuh"

namespace pod::walls {

constexpr int kCorunThreads = 512;
constexpr int kFillBarrier = 3;  // 1 and 2 are the multiplying warpgroups'
// Of the 65,536: 512 threads begin with 128 each.
constexpr int kFillRegisters = 24, kMultiplyRegisters = 192, kDecodeRegisters = 104;
static_assert(kFillRegisters + 2 * kMultiplyRegisters + kDecodeRegisters == 4 * 128, "all of them");

// The map's box is 64 columns of a tile's rows; that of the rows 64 columns of one row.
struct CorunArguments {
  CUtensorMap boxes, rows;
  Request request;
};

// Brings tiles of kKeys rows, two panels of 64 columns each.
template <int kKeys>
struct Filler {
  static constexpr uint32_t kPanelBytes = kKeys * 128, kTileBytes = 2 * kPanelBytes;
  const CorunArguments& a;

  // One warp, by the copy engine, which tells `full` itself.
  POD_DEVICE void bulk(uint32_t tile, int row, uint32_t full) const {
    const Corun& c = a.request.corun;
    const int lane = ptx::thread_index();
    if (lane == 0) mbarrier_expect(full, c.fill == kFillNone ? 0 : kTileBytes);
    ptx::sync_warp();
    if (c.fill == kFillBoxes && lane < 2) {
      copy_box(tile + lane * kPanelBytes, &a.boxes, lane * 64, row, full, c.tile_policy);
    } else if (c.fill == kFillRows) {
      POD_UNROLL_BY(1)
      for (int i = lane; i < 2 * kKeys; i += kWarpSize) {
        copy_box(tile + i * 128, &a.rows, i / kKeys * 64, row + i % kKeys, full, c.tile_policy);
      }
    }
  }

  // 128 threads, by cp.async.
  POD_DEVICE void copy(uint32_t tile, int row) const {
    const int first = ptx::thread_index() / 16, chunk = ptx::thread_index() % 16;
    const char* from = a.request.corun.tiles + (int64_t{row} + first) * kRowBytes + chunk * 16;
    uint32_t to = tile + chunk / 8 * kPanelBytes + first * 128 + ((chunk % 8 ^ first) << 4);
    POD_UNROLL_BY(4)
    for (int i = 0; i < kKeys / 8; ++i, from += 8 * kRowBytes, to += 8 * 128) {
      copy_16(to, from, a.request.corun.tile_policy);
    }
    ptx::cp_async_commit();
  }
};

// Fills the ring until its time is over. cp.async are told by their threads, one copy later.
template <bool kCopies, int kKeys, int kStages>
POD_DEVICE void fill(const CorunArguments& a, const Ring<kKeys, kStages>& ring, Record& record) {
  const Filler<kKeys> filler{a};
  Watch watch(record, a.request.cycles);
  const Corun& c = a.request.corun;
  const uint32_t keys = ptx::smem_address(ring.barriers->keys);
  constexpr uint32_t kValues = 8 * kStages, kFree = 16 * kStages;  // from the barrier of the keys
  const int first = static_cast<int>(c.tile_rows) * (ptx::cta_index() % c.groups);
  int row = 0, tiles = 0, last = 0;
  uint32_t before = 0;  // the barrier of the copy that is still to be told
  Turn<kStages> turn;
  const auto bring = [&](uint32_t tile, int from, uint32_t full) {
    if constexpr (kCopies) {
      filler.copy(tile, from);
      ptx::cp_async_wait<1>();
      ptx::fence_proxy_async();
      if (before) mbarrier_arrive(before);
      before = full;
    } else {
      filler.bulk(tile, from, full);
    }
  };
  while (!last) {
    const uint32_t full = keys + 8 * turn.stage;
    if (tiles >= kStages) mbarrier_wait(full + kFree, turn.parity ^ 1);
    if (ptx::thread_index() < kWarpSize) {
      const bool over = watch.is_over();
      if (ptx::thread_index() == 0) ring.barriers->is_last[turn.stage] = over;
    }
    if constexpr (kCopies) {
      ptx::bar_sync(kFillBarrier, 128);
    } else {
      ptx::sync_warp();
    }
    last = ring.barriers->is_last[turn.stage];
    bring(ring.k(turn.stage), first + row, full);
    if (tiles >= kStages) mbarrier_wait(full + kValues + kFree, turn.parity ^ 1);
    bring(ring.v(turn.stage), first + row + kKeys, full + kValues);
    row = (row + 2 * kKeys) & (static_cast<int>(c.tile_rows) - 1);
    ++tiles;
    turn.next();
  }
  if constexpr (kCopies) {
    ptx::cp_async_wait<0>();
    ptx::fence_proxy_async();
    mbarrier_arrive(before);
  }
  watch.end(tiles);
}

template <int kKeys, int kStages>
POD_DEVICE void init_barriers(RingBarriers<kStages>& ring, uint64_t (&places)[4][kMostStages],
                              bool copies) {
  if (ptx::thread_index() == 0) {
    for (int stage = 0; stage < kStages; ++stage) {
      mbarrier_init(ptx::smem_address(&ring.keys[stage]), copies ? 128 : 1);
      mbarrier_init(ptx::smem_address(&ring.values[stage]), copies ? 128 : 1);
      mbarrier_init(ptx::smem_address(&ring.keys_free[stage]), kGroups * 4);
      mbarrier_init(ptx::smem_address(&ring.values_free[stage]), kGroups * 4);
    }
    for (int i = 0; i < 4 * kMostStages; ++i) {
      mbarrier_init(ptx::smem_address(&places[i / kMostStages][i % kMostStages]), 1);
    }
    mbarrier_publish();
  }
}

// Q and, for products of a ring that nobody fills, K and V: random rows, not zeros, which take less
// power.
POD_DEVICE void fill_all(uint32_t smem, uint32_t bytes, const char* from) {
  for (uint32_t i = 16 * ptx::thread_index(); i < bytes; i += 16 * kCorunThreads) {
    copy_16(smem + i, from + i, kEvictNormal);
  }
  ptx::cp_async_commit();
  ptx::cp_async_wait<0>();
  ptx::fence_proxy_async();
}

template <int kKeys, int kStages, bool kWide>
POD_GLOBAL(kCorunThreads, 1)
corun_kernel(const POD_GRID_CONSTANT CorunArguments a) {
  POD_DYNAMIC_SMEM(smem);
  __shared__ __align__(8) RingBarriers<kStages> ring_barriers;
  __shared__ __align__(8) uint64_t place_barriers[4][kMostStages];
  __shared__ GroupNotes notes;
  const Request& r = a.request;
  const uint32_t q = aligned(smem);
  constexpr uint32_t kQueryBytes = kGroups * kGroupRows * kRowBytes;
  const Ring<kKeys, kStages> ring{q + kQueryBytes, &ring_barriers};
  const uint32_t places = ring.base + Ring<kKeys, kStages>::kBytes;
  init_barriers<kKeys, kStages>(ring_barriers, place_barriers, r.corun.fill == kFillCopies);
  fill_all(q, kQueryBytes + Ring<kKeys, kStages>::kBytes, r.corun.tiles);
  ptx::sync_cta();
  const int warp = ptx::warp_uniform(ptx::thread_index() / kWarpSize);
  const int group = warp / 4;
  Record& record = static_cast<Record*>(r.records)[ptx::cta_index() * kMostWarps + warp];
  if (group == 0) {
    ptx::lower_registers<kFillRegisters>();
    if (r.corun.multiply && r.corun.fill == kFillCopies) {
      fill<true>(a, ring, record);
    } else if (r.corun.multiply && warp == 0) {
      fill<false>(a, ring, record);
    }
  } else if (group <= kGroups) {
    ptx::raise_registers<kMultiplyRegisters>();
    if (r.corun.multiply) {
      Multiplier<kKeys, kStages> multiplier(ring, q, group - 1, r.corun.ordered);
      multiplier.run(r.cycles, record);
    }
  } else {
    ptx::lower_registers<kDecodeRegisters>();
    const Stream& s = r.streams[0];
    const int place = warp - 12;
    if constexpr (kWide) {
      if (s.warps > 0) GroupDecoder(s, places, q, notes).run(r.cycles, record);
    } else if (place < s.warps) {
      Decoder decoder(s, s.stages, places + place * s.stages * kPlaceBytes,
                      ptx::smem_address(place_barriers[place]), place);
      decoder.load_queries(r.corun.tiles);
      decoder.run(r.cycles, record);
    }
  }
}

}  // namespace pod::walls
