// streams.cuh: warps that do nothing but copy, in up to two kinds per CTA.
//
// Smem    places of the first kind's warps | places of the second kind's
#pragma once

#include "bulk.cuh"
#include "pod/ptx/sync.cuh"
#include "request.h"

namespace pod::walls {

enum class Method { kBulk, kBoxes, kCopies };

constexpr int kAlignment = 1024;
constexpr int kCopyStages = 4;  // of cp.async: its waits are compile-time constants

POD_DEVICE uint32_t aligned(const uint8_t* smem) {
  return (ptx::smem_address(smem) + kAlignment - 1) / kAlignment * kAlignment;
}

// Begin and end of a warp's work, and its deadline. Beginnings are written at once: registers are
// short where this is used.
class Watch {
 public:
  POD_DEVICE Watch(Record& record, int64_t cycles) : record_(record) {
    const long long now = clock();
    deadline_ = now + cycles;
    if (is_first()) {
      record.begin_ns = static_cast<int64_t>(ptx::globaltimer());
      record.begin_clock = now;
    }
  }

  // The same for all lanes.
  POD_DEVICE bool is_over() const {
    return ptx::warp_uniform(static_cast<int>(clock() >= deadline_));
  }
  POD_DEVICE void end(int64_t units) {
    if (!is_first()) return;
    record_.end_ns = static_cast<int64_t>(ptx::globaltimer());
    record_.end_clock = clock();
    record_.units = units;
  }

 private:
  POD_DEVICE static bool is_first() { return ptx::thread_index() % kWarpSize == 0; }

  Record& record_;
  long long deadline_;
};

// Which rows a warp copies next.
struct Rows {
  int64_t base, mask, next, step;
  int scatter;

  POD_DEVICE Rows(const Stream& s, int warp)
      : base(s.rows * (ptx::cta_index() % s.groups)), mask(s.rows / s.copy_rows - 1),
        next(s.shared ? warp : ptx::cta_index() * s.warps + warp),
        step(s.shared ? s.warps : int64_t{gridDim.x} * s.warps), scatter(s.scatter) {}

  // First row of copy `i` of the `blocks` of the current turn.
  POD_DEVICE int64_t first(int blocks, int i, int copy_rows) const {
    return base + ((next * blocks + i) * scatter & mask) * copy_rows;
  }
};

template <Method kMethod>
POD_DEVICE void issue(const Stream& s, const CUtensorMap* map, const Rows& rows, uint32_t place,
                      uint32_t barrier, int lane) {
  const uint32_t bytes = s.copy_rows * kRowBytes / s.panels;
  const int blocks = s.copies / s.panels;
  if (kMethod != Method::kCopies) {
    if (lane == 0) mbarrier_expect(barrier, bytes * s.copies);
    ptx::sync_warp();
  }
  if (kMethod == Method::kCopies) {
    // 16 lanes to a row.
    for (int row = lane / 16; row < s.copies * s.copy_rows; row += 2) {
      const int64_t from = rows.first(blocks, row / s.copy_rows, s.copy_rows) + row % s.copy_rows;
      copy_16(place + row * kRowBytes + lane % 16 * 16, s.pool + from * kRowBytes + lane % 16 * 16,
              s.policy);
    }
    ptx::cp_async_commit();
    return;
  }
  if (lane >= s.lanes) return;
  for (int i = lane; i < s.copies; i += s.lanes) {
    const int64_t row = rows.first(blocks, i / s.panels, s.copy_rows);
    if (kMethod == Method::kBulk) {
      copy_bulk(place + i * bytes, s.pool + row * kRowBytes, bytes, barrier, s.policy);
    } else {
      copy_box(place + i * bytes, map, i % s.panels * 64, static_cast<int>(row), barrier, s.policy);
    }
  }
}

template <Method kMethod>
POD_DEVICE void run_stream(const Stream& s, const CUtensorMap* map, uint32_t smem,
                           uint32_t barriers, int warp, int64_t cycles, Record& record) {
  const int lane = ptx::thread_index() % kWarpSize;
  const uint32_t bytes = s.copies * s.copy_rows * kRowBytes / s.panels;
  const uint32_t places = smem + warp * s.stages * bytes;
  Rows rows(s, warp);
  Watch watch(record, cycles);
  for (int stage = 0; stage < s.stages; ++stage, rows.next += rows.step) {
    issue<kMethod>(s, map, rows, places + stage * bytes, barriers + 8 * stage, lane);
  }
  int64_t units = 0;
  int stage = 0, parity = 0, left = s.stages;
  while (left > 0) {
    if (kMethod == Method::kCopies) {
      ptx::cp_async_wait<kCopyStages - 1>();
    } else {
      mbarrier_wait(barriers + 8 * stage, parity);
    }
    units += s.copies;
    if (left == s.stages && !watch.is_over()) {
      ptx::sync_warp();
      issue<kMethod>(s, map, rows, places + stage * bytes, barriers + 8 * stage, lane);
      rows.next += rows.step;
    } else {
      if (kMethod == Method::kCopies) ptx::cp_async_wait<0>();
      --left;
    }
    stage = stage + 1 == s.stages ? 0 : stage + 1;
    if (stage == 0) parity ^= 1;
  }
  watch.end(units);
}

// A box's map goes with the first kind; the second streams by bulk copies.
struct StreamsArguments {
  CUtensorMap map;
  Request request;
};

template <Method kFirst>
POD_GLOBAL((kMostWarps * kWarpSize), 1)
streams_kernel(const POD_GRID_CONSTANT StreamsArguments a) {
  POD_DYNAMIC_SMEM(smem);
  __shared__ __align__(8) uint64_t barriers[kMostWarps][kMostStages];
  const Request& r = a.request;
  const Stream &first = r.streams[0], &second = r.streams[1];
  const int warp = ptx::warp_uniform(ptx::thread_index() / kWarpSize);
  const uint32_t mine = ptx::smem_address(barriers[warp]);
  if (ptx::thread_index() % kWarpSize == 0) {
    for (int stage = 0; stage < kMostStages; ++stage) mbarrier_init(mine + 8 * stage, 1);
    mbarrier_publish();
  }
  ptx::sync_cta();
  Record& record = static_cast<Record*>(r.records)[ptx::cta_index() * kMostWarps + warp];
  const uint32_t base = aligned(smem);
  const uint32_t rest =
      first.warps * first.stages * first.copies * first.copy_rows * kRowBytes / first.panels;
  if (warp < first.warps) {
    run_stream<kFirst>(first, &a.map, base, mine, warp, r.cycles, record);
  } else if (warp < first.warps + second.warps) {
    run_stream<Method::kBulk>(second, &a.map, base + rest, mine, warp - first.warps, r.cycles,
                              record);
  }
}

}  // namespace pod::walls
