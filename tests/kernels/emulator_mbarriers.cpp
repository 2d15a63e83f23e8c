// emulator_mbarriers.cpp: barriers in shared memory: phases, parities, and what is reported of
// them.

#include "emulator_boxes.h"

using namespace box_unit;

CASE(an_mbarrier_passes_every_number_on) {
  in_every_schedule([] {
    expect_group_runs([] {
      POD_DYNAMIC_SMEM(smem);
      int* cells = reinterpret_cast<int*>(smem);
      const int thread = thread_index();
      init(64, 64);
      for (int round = 0; round < 5; ++round) {
        const auto parity = static_cast<uint32_t>(round % 2);
        if (thread < 64) {
          if (round > 0) ptx::mbarrier_wait(freed(), parity ^ 1);
          cells[thread] = 100 * round + thread;
          ptx::mbarrier_arrive(full());
        } else {
          ptx::mbarrier_wait(full(), parity);
          const int other = 63 - thread % 64;
          expect(cells[other] == 100 * round + other, "round " + std::to_string(round));
          ptx::mbarrier_arrive(freed());
        }
      }
    });
  });
}

CASE(the_parity_of_the_phase_before_the_first_has_ended) {
  expect_runs([] {
    init();
    ptx::mbarrier_wait(full(), 1);
  });
}

CASE(lanes_of_a_warp_wait_apart) {
  in_every_schedule([] {
    expect_runs([] {
      init(31);
      const int lane = thread_index();
      if (lane == 7) {
        ptx::mbarrier_wait(full(), 0);
      } else {
        ptx::mbarrier_arrive(full());
      }
      expect(ptx::shfl(lane, 7) == 7, "all lanes meet again");
    });
  });
}

CASE(an_mbarrier_that_nobody_completes) {
  expect_box_error({"deadlock", "warp 1 waits at the mbarrier at shared address 0x0",
                    "end of phase 1 (1 of 2 arrivals, 0 bytes that no box brings)"},
                   [] {
                     init(2);
                     if (thread_index() < 2) ptx::mbarrier_arrive(full());
                     ptx::mbarrier_wait(full(), 0);
                     if (thread_index() == 2) ptx::mbarrier_arrive(full());
                     ptx::sync_warp();
                     if (thread_index() / 32 == 1) ptx::mbarrier_wait(full(), 1);
                   });
}

CASE(lanes_that_wait_for_a_lane_at_a_collective) {
  expect_box_error({"deadlock", "waits at the mbarrier", "0 of 1 arrivals"}, [] {
    init();
    if (thread_index() == 3) ptx::mbarrier_wait(full(), 0);
    ptx::sync_warp();
    if (thread_index() == 4) ptx::mbarrier_arrive(full());
  });
}

CASE(an_arrival_beyond_the_count) {
  expect_box_error({"phase 0: an arrival beyond the 1 that it counts, while 128 bytes"}, [] {
    init();
    if (thread_index() == 0) {
      ptx::mbarrier_expect(full(), 128);
      ptx::mbarrier_arrive(full());
    }
  });
}

CASE(an_mbarrier_before_it_is_one) {
  expect_box_error({"mbarrier_wait: no mbarrier was initialised at shared address 0x0"},
                   [] { ptx::mbarrier_wait(full(), 0); });
  expect_box_error({"mbarrier_arrive: thread 0 initialised", "has not called mbarrier_publish()"},
                   [] {
                     if (thread_index() == 0) ptx::mbarrier_init(full(), 1);
                     ptx::sync_cta();
                     if (thread_index() == 1) ptx::mbarrier_publish();
                     ptx::sync_cta();
                     if (thread_index() == 0) ptx::mbarrier_arrive(full());
                   });
  expect_box_error({"mbarrier_init: thread 0 has initialised"}, [] {
    init();
    if (thread_index() == 5) ptx::mbarrier_init(full(), 1);
  });
}

CASE(an_mbarrier_that_cannot_be) {
  expect_box_error({"mbarrier_init of shared address 0x4", "multiple of 8"}, [] {
    barriers();
    if (thread_index() == 0) ptx::mbarrier_init(full() + 4, 1);
  });
  expect_box_error({"with 0 arrivals"}, [] {
    if (thread_index() == 0) ptx::mbarrier_init(full(), 0);
  });
  expect_box_error({"mbarrier_init", "of static memory, which has 24 bytes"}, [] {
    if (thread_index() == 0) ptx::mbarrier_init(full() + 24, 1);
  });
  expect_box_error({"mbarrier_wait for parity 2"}, [] {
    init();
    ptx::mbarrier_wait(full(), 2);
  });
  expect_box_error({"1048576 bytes are expected; it counts up to 1048575"}, [] {
    init();
    if (thread_index() == 0) ptx::mbarrier_expect(full(), 1 << 20);
  });
}

CASE(an_mbarrier_that_is_written_over) {
  expect_box_error({"mbarrier_arrive: something else was written over the mbarrier"}, [] {
    init();
    if (thread_index() == 0) {
      barriers().full += 1;
      ptx::mbarrier_arrive(full());
    }
  });
}

CASE(bytes_that_nobody_brings) {
  expect_box_error({"deadlock", "phase 0 (1 of 1 arrivals, 2048 bytes that no box brings)"}, [] {
    init();
    if (thread_index() == 0) {
      ptx::mbarrier_expect(full(), 2 * kBoxBytes);
      issue_box(place());
    }
    ptx::mbarrier_wait(full(), 0);
  });
  expect_box_error({"2048 bytes were missing when the CTA ended"}, [] {
    init();
    if (thread_index() == 0) ptx::mbarrier_expect(full(), kBoxBytes);
  });
}
