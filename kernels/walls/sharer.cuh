// sharer.cuh: corun.cuh's CTA in a cluster whose CTAs multiply other query rows by the same K and
// V: each brings a share of every tile and hands it to the others, so that L2 gives each byte once.
//
// Warps 0 and 1 bring keys, 2 and 3 values; the other warpgroups are those of corun.cuh, decode on
// wgmma. A cluster of one CTA brings whole tiles. Copied are shares by cp.async, which are handed
// over by bulk copies, or by boxes that land in all CTAs at once.
//
// A place is free once the multiplying warps of all CTAs have left it, each of which tells all. It
// has landed once this CTA's share is there and the others' bytes have come, in whatever order: who
// hands them over has waited for the same warps, so they count for this use of the place.
// What is handed over has been read when the place is next free: the others have multiplied it.
#pragma once

#include <climits>

#include "cluster.cuh"
#include "corun.cuh"

namespace pod::walls {

constexpr int kShareKeys = 128, kShareStages = 2;
// As design D has them.
constexpr int kShareRegisters = 40, kBesideRegisters = 88;
static_assert(kShareRegisters + 2 * kMultiplyRegisters + kBesideRegisters == 4 * 128, "all");
using ShareRing = Ring<kShareKeys, kShareStages>;

// Warps 0 and 1, or 2 and 3, of each CTA.
template <int kCtas>
class Sharer {
 public:
  POD_DEVICE Sharer(const CorunArguments& a, const ShareRing& ring, volatile int& last)
      : a_(a), values_(ptx::thread_index() >= kThreads), tile_(values_ ? ring.v(0) : ring.k(0)),
        landed_(ptx::smem_address(values_ ? ring.barriers->values : ring.barriers->keys)),
        rank_(cluster_rank()), is_last_(ring.barriers->is_last), last_(last) {}

  POD_DEVICE void run(int64_t cycles, Record& record) {
    Watch watch(record, cycles);
    const bool copies = a_.request.corun.fill == kFillCopies;
    // By boxes one warp of the two has work.
    if (!copies && ptx::thread_index() % kThreads >= kWarpSize) return;
    const bool keeps_time = rank_ == 0 && ptx::thread_index() < kWarpSize;
    const int rows = static_cast<int>(a_.request.corun.tile_rows);
    const int first = rows * (ptx::cta_index() / kCtas % a_.request.corun.groups);
    bool told = false, last = false;
    int row = values_ ? kShareKeys : 0, tiles = 0;
    Turn<kShareStages> turn;
    while (!last) {
      const uint32_t landed = landed_ + 8 * turn.stage;
      mbarrier_wait(landed + kFree, turn.parity ^ 1);
      if (keeps_time && !told && watch.is_over()) {
        told = true;
        end_with(tiles + kNotice);
      }
      last = tiles == last_;
      if (ptx::thread_index() == 0) is_last_[turn.stage] = last;
      const uint32_t tile = tile_ + turn.stage * ShareRing::kTileBytes;
      if (copies) {
        copy(tile, first + row);
        hand_over(tile, landed);
      } else {
        box(tile, first + row, landed);
      }
      row = (row + 2 * kShareKeys) & (rows - 1);
      ptx::sync_warp();
      ++tiles;
      turn.next();
    }
    watch.end(tiles);
  }

 private:
  static constexpr int kThreads = 64;
  static constexpr int kRows = kShareKeys / kCtas;  // of a share
  static constexpr uint32_t kPanelBytes = kShareKeys * 128, kShareBytes = kRows * 128;
  static constexpr uint32_t kFree = 2 * 8 * kShareStages;  // from where it lands
  // Nobody is further than the ring from another, so all learn of the last tile well before it.
  static constexpr int kNotice = 3 * kShareStages;

  POD_DEVICE void end_with(int tile) {
    if (ptx::thread_index() == 0) {
      for (int i = 0; i < kCtas; ++i) {
        store_at(at_rank(ptx::smem_address(const_cast<int*>(&last_)), i), tile);
      }
    }
    ptx::sync_warp();
  }

  // This CTA's share, 16 lanes to a row; rows of a thread are 4 apart, so every second one has the
  // other half of its swizzle.
  POD_DEVICE void copy(uint32_t tile, int row) const {
    const int thread = ptx::thread_index() % kThreads, first = thread / 16, chunk = thread % 16;
    const int64_t from_row = int64_t{row} + rank_ * kRows + first;
    const char* from = a_.request.corun.tiles + from_row * kRowBytes + chunk * 16;
    const uint32_t to = share(tile, chunk / 8) + first * 128 + ((chunk % 8 ^ first) << 4);
    POD_UNROLL_BY(4)
    for (int i = 0; i < kRows / 4; ++i, from += 4 * kRowBytes) {
      copy_16((to + i * 4 * 128) ^ (i % 2 << 6), from, a_.request.corun.tile_policy);
    }
    ptx::cp_async_commit();
    ptx::cp_async_wait<0>();
    ptx::fence_proxy_async();
    ptx::bar_sync(kFillBarrier + (values_ ? 2 : 0), kThreads);
  }
  POD_DEVICE uint32_t share(uint32_t tile, int panel) const {
    return tile + panel * kPanelBytes + rank_ * kShareBytes;
  }
  POD_DEVICE void hand_over(uint32_t tile, uint32_t landed) const {
    if (ptx::thread_index() % kThreads != 0) return;
    mbarrier_expect(landed, 2 * kShareBytes * (kCtas - 1));
    POD_UNROLL
    for (int i = 1; i < kCtas; ++i) {
      const uint32_t other = (rank_ + i) % kCtas;
      POD_UNROLL
      for (int panel = 0; panel < 2; ++panel) {
        const uint32_t from = share(tile, panel);
        forward(at_rank(from, other), from, kShareBytes, at_rank(landed, other));
      }
    }
  }
  POD_DEVICE void box(uint32_t tile, int row, uint32_t landed) const {
    if (ptx::thread_index() % kThreads != 0) return;
    mbarrier_expect(landed, ShareRing::kTileBytes);
    POD_UNROLL
    for (int panel = 0; panel < 2; ++panel) {
      copy_box_to_all(share(tile, panel), &a_.boxes, panel * 64, row + rank_ * kRows, landed,
                      (1 << kCtas) - 1, a_.request.corun.tile_policy);
    }
  }

  const CorunArguments& a_;
  bool values_;
  uint32_t tile_, landed_, rank_;
  int* is_last_;
  volatile int& last_;  // tile; written by the first CTA's first warp in all of them
};

template <int kCtas>
POD_DEVICE void init_shared(RingBarriers<kShareStages>& ring, volatile int& last) {
  if (ptx::thread_index() == 0) {
    const uint32_t first = ptx::smem_address(ring.keys);
    for (int i = 0; i < 4 * kShareStages; ++i) {
      mbarrier_init(first + 8 * i, i < 2 * kShareStages ? 1 : kCtas * kGroups * 4);
    }
    mbarrier_publish();
    last = INT_MAX;
  }
}

template <int kCtas>
POD_GLOBAL(kCorunThreads, 1)
share_kernel(const POD_GRID_CONSTANT CorunArguments a) {
  POD_DYNAMIC_SMEM(smem);
  __shared__ __align__(8) RingBarriers<kShareStages> ring_barriers;
  __shared__ GroupNotes notes;
  __shared__ volatile int last;
  const Request& r = a.request;
  const uint32_t q = aligned(smem);
  constexpr uint32_t kQueryBytes = kGroups * kGroupRows * kRowBytes;
  const ShareRing ring{q + kQueryBytes, &ring_barriers};
  init_shared<kCtas>(ring_barriers, last);
  fill_all(q, kQueryBytes + ShareRing::kBytes, r.corun.tiles);
  sync_cluster();
  const int warp = ptx::warp_uniform(ptx::thread_index() / kWarpSize);
  const int group = warp / 4;
  Record& record = static_cast<Record*>(r.records)[ptx::cta_index() * kMostWarps + warp];
  if (group == 0) {
    ptx::lower_registers<kShareRegisters>();
    if (r.corun.multiply) Sharer<kCtas>(a, ring, last).run(r.cycles, record);
  } else if (group <= kGroups) {
    ptx::raise_registers<kMultiplyRegisters>();
    Multiplier<kShareKeys, kShareStages, kCtas> multiplier(ring, q, group - 1, r.corun.ordered);
    if (r.corun.multiply) multiplier.run(r.cycles, record);
  } else {
    ptx::lower_registers<kBesideRegisters>();
    if (r.streams[0].warps > 0) {
      GroupDecoder(r.streams[0], ring.base + ShareRing::kBytes, q, notes).run(r.cycles, record);
    }
  }
  // Nobody leaves while another may still write or tell here.
  sync_cluster();
}

}  // namespace pod::walls
