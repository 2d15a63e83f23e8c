// emulator_wgmma_async.cpp: wgmma of the emulated GPU: when its results and reads take place.

#include "emulator_wgmma.h"

using namespace wgmma_unit;

CASE(wgmma_results_are_poison_until_the_wait_for_their_group) {
  in_every_schedule([] {
    expect_group_runs([] {
      clear_tiles();
      set_product(3);
      float first[8][4], second[8][4];
      ptx::wgmma_fence();
      issue(first);
      ptx::wgmma_commit();
      issue(second);
      ptx::wgmma_commit();
      expect(std::isnan(first[0][0]) && std::isnan(first[7][3]), "both in flight");
      ptx::wgmma_wait<1>();
      const float want = thread_index() < 4 ? 3.f : 0.f;
      expect(first[0][0] == want && first[7][1] == want && first[0][2] == 0, "the older landed");
      expect(std::isnan(second[0][0]), "the newest in flight");
      ptx::wgmma_wait<0>();
      expect(second[0][0] == want, "both landed");
    });
  });
}

CASE(wgmma_accumulators_stay_poison_while_a_later_group_adds_to_them) {
  in_every_schedule([] {
    expect_group_runs([] {
      clear_tiles();
      set_product(3);
      float d[8][4];
      ptx::wgmma_fence();
      issue(d);
      ptx::wgmma_commit();
      issue(d, true);
      ptx::wgmma_commit();
      ptx::wgmma_wait<1>();
      expect(std::isnan(d[0][0]), "one of two landed");
      ptx::wgmma_wait<0>();
      expect(d[0][0] == (thread_index() < 4 ? 6.f : 0.f), "the sum");
    });
  });
}

CASE(wgmma_uncommitted_belongs_to_the_next_group) {
  expect_group_runs([] {
    clear_tiles();
    float d[8][4];
    ptx::wgmma_fence();
    issue(d);
    ptx::wgmma_wait<0>();
    expect(std::isnan(d[0][0]), "a wait is for committed groups");
    ptx::wgmma_commit();
    ptx::wgmma_wait<0>();
    expect(d[0][0] == 0, "landed");
  });
}

CASE(wgmma_reads_its_tiles_when_copies_land) {
  for (int copies : {kLandAtWait, kLandAtIssue}) {
    configure(kAscending, copies);
    expect_group_runs([=] {
      clear_tiles();
      set_product(3);
      float d[8][4];
      ptx::wgmma_fence();
      issue(d);
      ptx::wgmma_commit();
      ptx::sync_cta();
      set_product(5);
      ptx::wgmma_wait<0>();
      const float seen = copies == kLandAtWait ? 5.f : 3.f;
      expect(d[0][0] == (thread_index() < 4 ? seen : 0.f), "the tile at the wait, or at the issue");
    });
  }
}

CASE(a_copy_into_a_tile_that_wgmma_reads_spoils_the_product) {
  expect_group_runs([] {
    clear_tiles();
    float d[8][4];
    ptx::wgmma_fence();
    issue(d);
    ptx::wgmma_commit();
    ptx::sync_cta();
    if (thread_index() == 127) copy_16(8192, twos);
    ptx::sync_cta();
    ptx::wgmma_wait<0>();
    expect(std::isnan(d[0][0]) == (thread_index() % 4 == 0), "column 0 of every row");
    ptx::sync_cta();  // before it lands
    ptx::cp_async_wait<0>();
  });
}

CASE(wgmma_reads_what_was_copied_waited_for_fenced_and_passed_a_barrier) {
  in_every_schedule([] {
    expect_group_runs([] {
      clear_tiles();
      set_product(1);
      // B[0..8][0] of the product's second tile become 2.
      if (thread_index() == 77) copy_16(8192, twos);
      ptx::cp_async_wait<0>();
      ptx::fence_proxy_async();
      ptx::sync_cta();
      float d[8][4];
      ptx::wgmma_fence();
      issue(d);
      ptx::wgmma_commit();
      ptx::wgmma_wait<0>();
      const float want = thread_index() == 0 ? 2.f : thread_index() < 4 ? 1.f : 0.f;
      expect(d[0][0] == want, std::to_string(thread_index()) + ": " + std::to_string(d[0][0]));
    });
  });
}

CASE(wgmma_and_proxy_fences_are_counted) {
  int64_t counts[16];
  pod_emulator_stats(counts, 1);
  expect_group_runs([] {
    clear_tiles();
    float d[8][4];
    ptx::wgmma_fence();
    issue(d);
    issue(d, true);
    ptx::wgmma_commit();
    ptx::wgmma_wait<0>();
  });
  pod_emulator_stats(counts, 1);
  expect(counts[10] == 2 * 4, "two of each warp: " + std::to_string(counts[10]));
  expect(counts[11] == kGroup, "one of each thread: " + std::to_string(counts[11]));
}
