// boxes.cuh: runs the wrappers of ptx/mbarrier.cuh, box_copy.cuh and tensor_map.cuh, where
// POD_CONFORMANCE_WGMMA says that the target has them.
//
// CTA    128 threads
// Smem   boxes, from a multiple of 1024 on
// In     B of the bf16 tiles as two pools: [16, 16, 2, 128], and [16, 2, 16, 128], whose heads lie
//        further apart than its slots; A of them as one of [16, 16, 1, 64]
#pragma once

#include "pod/ptx/box_copy.cuh"
#include "pod/ptx/mbarrier.cuh"
#include "wgmma.cuh"

namespace pod {
namespace {

constexpr int kPoolPages = 16, kPoolSlots = 16, kPoolHeads = 2, kPoolColumns = 128;
constexpr int kPartRows = 8;
constexpr uint32_t kWholeBytes = kPoolSlots * 128, kPartBytes = kPartRows * 128;
constexpr int kCounted = 8;  // mbarriers of as many counts

struct BoxesArguments {
  ConformanceArguments c;
  ptx::TensorMap whole, part, tile;
};

struct BoxBarriers {
  uint64_t full, free, halves[2], chain[kThreads / kWarpSize], counted[kCounted];
};

// The CTA's place and barriers, and who this thread is.
struct BoxRun {
  const BoxesArguments& a;
  BoxBarriers& barriers;
  uint8_t* smem;
  int thread;

  POD_DEVICE uint32_t full() const { return ptx::smem_address(&barriers.full); }
  POD_DEVICE uint32_t place(int box) const { return ptx::smem_address(smem) + box * kWholeBytes; }
  POD_DEVICE void dump(uint32_t* out, int words) const {
    const uint32_t* from = reinterpret_cast<const uint32_t*>(smem);
    for (int i = thread; i < words; i += kThreads) out[i] = from[i];
  }
};

// Numbers of arrivals: 1, 2, 3, 5, 8, ..
POD_DEVICE int count_of(int barrier) {
  int count = 1, before = 1;
  for (int i = 0; i < barrier; ++i) {
    const int next = count + before;
    before = count;
    count = next;
  }
  return count;
}

POD_DEVICE void start_box_barriers(const BoxRun& run) {
  BoxBarriers& all = run.barriers;
  if (run.thread == 0) {
    ptx::mbarrier_init(ptx::smem_address(&all.full), 1);
    ptx::mbarrier_init(ptx::smem_address(&all.free), kThreads);
    for (uint64_t& half : all.halves) ptx::mbarrier_init(ptx::smem_address(&half), kThreads / 2);
    for (uint64_t& link : all.chain) ptx::mbarrier_init(ptx::smem_address(&link), kWarpSize);
    for (int i = 0; i < kCounted; ++i) {
      ptx::mbarrier_init(ptx::smem_address(&all.counted[i]), count_of(i));
    }
    ptx::mbarrier_publish();
  }
  ptx::sync_cta();
}

// As many threads as each counts arrive, in two phases; nobody passes before.
POD_DEVICE void dump_counted(const BoxRun& run) {
  for (int i = 0; i < kCounted; ++i) {
    const uint32_t barrier = ptx::smem_address(&run.barriers.counted[i]);
    for (uint32_t parity = 0; parity < 2; ++parity) {
      if (run.thread < count_of(i)) ptx::mbarrier_arrive(barrier);
      ptx::mbarrier_wait(barrier, parity);
      ptx::sync_cta();  // nobody is two phases ahead
    }
    if (run.thread == 0) section<kMbarrierInit>(run.a.c)[i] = static_cast<uint32_t>(count_of(i));
  }
}

// Halves of the CTA answer each other, as answer() does by named barriers.
POD_DEVICE void dump_arrivals(const BoxRun& run) {
  constexpr int kHalf = kThreads / 2;
  uint32_t* cells = reinterpret_cast<uint32_t*>(run.smem);
  const int half = run.thread / kHalf;
  const uint32_t* other = cells + (1 - half) * kHalf;
  uint32_t sum = static_cast<uint32_t>(run.thread);
  for (int round = 1; round <= kRounds; ++round) {
    for (int turn = 0; turn < 2; ++turn) {
      const uint32_t barrier = ptx::smem_address(&run.barriers.halves[turn]);
      if (half == turn) {
        cells[run.thread] = sum;
        ptx::mbarrier_arrive(barrier);
      } else {
        ptx::mbarrier_wait(barrier, static_cast<uint32_t>(round - 1) % 2);
        sum = sum * 3 + other[(run.thread + round * 5 + 1) % kHalf];
      }
    }
  }
  section<kMbarrierArrive>(run.a.c)[run.thread] = sum;
  ptx::sync_cta();
}

// Each warp waits for the one before it; the first for a phase before the first.
POD_DEVICE void dump_chain(const BoxRun& run) {
  uint32_t* cells = reinterpret_cast<uint32_t*>(run.smem);
  const int warp = run.thread / kWarpSize, lane = run.thread % kWarpSize;
  uint64_t* chain = run.barriers.chain;
  ptx::mbarrier_wait(ptx::smem_address(&chain[warp == 0 ? 0 : warp - 1]), warp == 0 ? 1 : 0);
  uint32_t sum = run.a.c.words[run.thread];
  if (warp > 0) sum = sum * 3 + cells[(warp - 1) * kWarpSize + (lane * 5 + 3) % kWarpSize];
  cells[run.thread] = sum;
  ptx::mbarrier_arrive(ptx::smem_address(&chain[warp]));
  section<kMbarrierWait>(run.a.c)[run.thread] = sum;
  ptx::sync_cta();
}

// Page after page to one place, which is free once all have read it; then the phase of `full` is
// that of the first again.
POD_DEVICE void dump_expected(const BoxRun& run) {
  const uint32_t freed = ptx::smem_address(&run.barriers.free);
  uint32_t sum = 0;
  for (int round = 0; round < kRounds; ++round) {
    const uint32_t parity = static_cast<uint32_t>(round) % 2;
    if (run.thread == 0) {
      if (round > 0) ptx::mbarrier_wait(freed, parity ^ 1);
      ptx::mbarrier_expect(run.full(), kWholeBytes);
      ptx::copy_box(run.place(0), run.a.whole, 64, 0, 0, round, run.full());
    }
    ptx::mbarrier_wait(run.full(), parity);
    sum = sum * 3 + reinterpret_cast<const uint32_t*>(run.smem)[run.thread * 4 + round % 4];
    ptx::mbarrier_arrive(freed);
  }
  section<kMbarrierExpect>(run.a.c)[run.thread] = sum;
  ptx::sync_cta();
}

// `issue` brings `bytes` to the first place; they are dumped as they lie.
template <typename Issue>
POD_DEVICE void dump_boxes(const BoxRun& run, uint32_t* out, uint32_t bytes, uint32_t parity,
                           int issuer, Issue issue) {
  if (run.thread == issuer) {
    ptx::mbarrier_expect(run.full(), bytes);
    issue();
  }
  ptx::mbarrier_wait(run.full(), parity);
  run.dump(out, static_cast<int>(bytes / 4));
  ptx::sync_cta();
}

// `full` has ended an even number of phases before.
POD_DEVICE void dump_all_boxes(const BoxRun& run) {
  const BoxesArguments& a = run.a;
  dump_boxes(run, section<kCopyBox>(a.c), kBoxes * kWholeBytes, 0, 0, [&] {
    for (int i = 0; i < kBoxes; ++i) {
      ptx::copy_box(run.place(i), a.whole, i % 2 * 64, i / 2 % 2, 0, 3 * i % kPoolPages,
                    run.full());
    }
  });
  dump_boxes(run, section<kCopyBoxHint>(a.c), 2 * kWholeBytes, 1, 5, [&] {
    ptx::copy_box(run.place(0), a.whole, 0, 1, 0, 4, run.full(), ptx::kEvictFirst);
    ptx::copy_box(run.place(1), a.whole, 64, 0, 0, 5, run.full(), ptx::kEvictLast);
  });
  dump_boxes(run, section<kCopyBoxPart>(a.c), 2 * kPartBytes, 0, 0, [&] {
    ptx::copy_box(run.place(0), a.part, 64, 1, 8, 7, run.full());
    ptx::copy_box(run.place(0) + kPartBytes, a.part, 0, 0, 3, 2, run.full());
  });
  // By a thread that initialised nothing.
  dump_boxes(run, section<kMbarrierPublish>(a.c), kWholeBytes, 1, 77,
             [&] { ptx::copy_box(run.place(0), a.whole, 0, 0, 0, 9, run.full()); });
  dump_boxes(run, section<kPrefetchMap>(a.c), kWholeBytes, 0, 0, [&] {
    ptx::prefetch_map(a.whole);
    ptx::copy_box(run.place(0), a.whole, 64, 1, 0, 15, run.full());
  });
}

template <int threads>
POD_GLOBAL(threads, 1)
boxes_kernel(const POD_GRID_CONSTANT BoxesArguments a) {
  POD_DYNAMIC_SMEM(smem);
  POD_STATIC_SMEM(BoxBarriers, barriers);
  const BoxRun run{a, barriers, tile_pair<bf16>(a.c, smem, 0).smem, ptx::thread_index()};
  start_box_barriers(run);
  dump_counted(run);
  dump_arrivals(run);
  dump_chain(run);
  // Plain stores lie where boxes go.
  ptx::fence_proxy_async();
  ptx::sync_cta();
  dump_expected(run);
  dump_all_boxes(run);
}

// A of the first pair by boxes, B by stores; nobody fences for A.
template <int threads>
POD_GLOBAL(threads, 1)
box_product_kernel(const POD_GRID_CONSTANT BoxesArguments a) {
  POD_DYNAMIC_SMEM(smem);
  POD_STATIC_SMEM(BoxBarriers, barriers);
  const TilePair p = tile_pair<bf16>(a.c, smem, 0);
  const BoxRun run{a, barriers, p.smem, p.thread};
  start_box_barriers(run);
  if (run.thread == 0) {
    ptx::mbarrier_expect(run.full(), kTileA);
    for (int i = 0; i < kRows / kPoolSlots; ++i) {
      ptx::copy_box(run.place(i), a.tile, 0, 0, 0, i, run.full());
    }
  }
  store_b_k_major(p, 64);
  publish();
  ptx::mbarrier_wait(run.full(), 0);
  dump_ss<bf16, 8>(section<kCopyBoxProduct>(a.c), p, 0);
}

// Nothing without boxes: what is not instantiated is not compiled.
template <int tiles = kTiles>
ptx::Error launch_boxes(const ConformanceArguments& c) {
  ptx::Error code{};
  if constexpr (tiles > 0) {
    constexpr int64_t kRow = kPoolColumns * 2, kHeadsFirst = kPoolSlots * kRow;
    BoxesArguments a{c, {}, {}, {}};
    code = ptx::encode_boxes(&a.whole,
                             {c.b[0], kPoolPages, kPoolSlots, kPoolHeads, kPoolColumns,
                              kPoolSlots * kPoolHeads * kRow, kPoolHeads * kRow, kRow},
                             kPoolSlots);
    if (!code) {
      code = ptx::encode_boxes(&a.part,
                               {c.b[0], kPoolPages, kPoolSlots, kPoolHeads, kPoolColumns,
                                kPoolHeads * kHeadsFirst, kRow, kHeadsFirst},
                               kPartRows);
    }
    if (!code) {
      code = ptx::encode_boxes(
          &a.tile, {c.a[0], kPoolPages, kPoolSlots, 1, 64, kPoolSlots * 128, 128, 128}, kPoolSlots);
    }
    constexpr int kSmem = TilePair<128>::kAtom + kBoxes * kWholeBytes;
    if (!code) code = ptx::launch(boxes_kernel<kThreads>, 1, kThreads, kSmem, c.stream, a);
    if (!code) {
      code = ptx::launch(box_product_kernel<kThreads>, 1, kThreads, kWgmmaSmem, c.stream, a);
    }
  }
  return code;
}

}  // namespace
}  // namespace pod
