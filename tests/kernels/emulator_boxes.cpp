// emulator_boxes.cpp: boxes of a tensor: where they land and when.

#include "emulator_boxes.h"

using namespace box_unit;

CASE(a_box_lands_swizzled_where_it_is_sent) {
  in_every_schedule([] {
    pool();
    expect_group_runs([] {
      init();
      if (thread_index() == 0) {
        ptx::prefetch_map(pool().map);
        ptx::mbarrier_expect(full(), 2 * kBoxBytes);
        issue_box(place(0), 64, 1, 0, 2);
        ptx::copy_box(place(1), pool().map, 0, 0, 0, 1, full(), ptx::kEvictLast);
      }
      ptx::mbarrier_wait(full(), 0);
      for (int row = 0; row < kRows; ++row) {
        for (int column = 0; column < 64; ++column) {
          expect(landed(0, row, column) == element(2, row, 1, 64 + column), "page 2, head 1");
          expect(landed(1, row, column) == element(1, row, 0, column), "page 1, head 0");
        }
      }
    });
  });
}

CASE(boxes_are_part_of_a_page) {
  const Pool eights(8);
  in_every_schedule([&] {
    expect_group_runs([&] {
      init();
      if (thread_index() == 0) {
        ptx::mbarrier_expect(full(), 1024);
        ptx::copy_box(place(), eights.map, 0, 1, 8, 0, full());
      }
      ptx::mbarrier_wait(full(), 0);
      for (int row = 0; row < 8; ++row) {
        expect(landed(0, row, 9) == element(0, 8 + row, 1, 9), "slot 8 on");
      }
    });
  });
}

CASE(boxes_land_when_somebody_waits_and_are_poison_until_then) {
  expect_group_runs([] {
    init();
    if (thread_index() == 0) {
      issue_box(place());
      ptx::mbarrier_expect(full(), kBoxBytes);
      expect(landed(0, 3, 5) == 0xffff, "on its way");
      ptx::mbarrier_wait(full(), 0);
      expect(landed(0, 3, 5) == element(0, 3, 0, 5), "there");
    }
  });
}

CASE(boxes_can_land_at_issue) {
  configure(kAscending, kLandAtIssue);
  expect_group_runs([] {
    init();
    if (thread_index() == 0) {
      issue_box(place());
      ptx::mbarrier_expect(full(), kBoxBytes);
      expect(landed(0, 3, 5) == element(0, 3, 0, 5), "there");
    }
  });
}

CASE(a_place_is_filled_again_and_again) {
  in_every_schedule([] {
    pool();
    expect_group_runs([] {
      init(1, 96);
      if (thread_index() < 32) {
        for (uint32_t round = 0; round < 6; ++round) {
          if (round > 0) ptx::mbarrier_wait(freed(), round % 2 ^ 1);
          if (thread_index() == 0) {
            ptx::mbarrier_expect(full(), kBoxBytes);
            issue_box(place(), 0, 0, 0, static_cast<int>(round) % kPages);
          }
          ptx::sync_warp();
        }
        return;
      }
      for (uint32_t round = 0; round < 6; ++round) {
        ptx::mbarrier_wait(full(), round % 2);
        expect(landed(0, 7, 9) == element(static_cast<int>(round) % kPages, 7, 0, 9), "its page");
        ptx::mbarrier_arrive(freed());
      }
    });
  });
}

CASE(products_of_boxes_need_no_proxy_fence) {
  in_every_schedule([] {
    pool();
    expect_group_runs([] {
      clear_tiles();
      init();
      if (thread_index() == 0) {
        ptx::mbarrier_expect(full(), kBoxBytes);
        issue_box(place());
      }
      ptx::mbarrier_wait(full(), 0);
      float d[8][4];
      ptx::wgmma_fence();
      issue(d);
      ptx::wgmma_commit();
      ptx::wgmma_wait<0>();
      expect(d[0][0] == 0, "times zeros");
    });
  });
}
