// emulator_barriers.cpp: barriers of the emulated GPU, moves of registers, and wrong uses of both.

#include <string>

#include "emulator_unit.h"
#include "pod/ptx/registers.cuh"

using namespace unit;

CASE(named_barriers_work_after_other_warps_have_left) {
  for (int order = kAscending; order <= kRandom; ++order) {
    configure(order);
    int passed = 0;
    expect_runs(
        [&] {
          const int warp = thread_index() / 32;
          if (warp == 0) return;
          ptx::bar_sync(1 + warp % 2, 64);
          ptx::bar_sync(3, 128);
          ++passed;
        },
        160);
    expect(passed == 128, std::to_string(passed) + " threads passed");
  }
}

CASE(barriers_keep_their_phases_apart) {
  for (int seed = 0; seed < 8; ++seed) {
    configure(kRandom, kLandAtWait, 50, seed);
    int round = 0, wrong = 0;
    expect_runs(
        [&] {
          for (int i = 0; i < 20; ++i) {
            ptx::sync_cta();
            wrong += round != i;
            ptx::sync_cta();
            if (thread_index() == 0) ++round;
          }
        },
        128);
    expect(wrong == 0, std::to_string(wrong) + " threads saw another round");
  }
}

CASE(an_arriving_warp_goes_on_while_others_are_yet_to_come) {
  for (int order = kAscending; order <= kRandom; ++order) {
    configure(order);
    int passed = 0;
    expect_runs(
        [&] {
          const bool arrives = thread_index() < 64;
          if (arrives) ptx::bar_arrive(1, 128);
          ptx::bar_sync(2, 128);
          if (!arrives) ptx::bar_sync(1, 128);
          ++passed;
        },
        128);
    expect(passed == 128, std::to_string(passed) + " threads passed");
  }
}

CASE(arrivals_alone_open_a_barrier) {
  expect_runs(
      [] {
        for (int i = 0; i < 3; ++i) {
          ptx::bar_arrive(1, 64);
          ptx::sync_cta();
        }
      },
      64);
}

CASE(a_ring_of_buffers_with_arrivals_loses_nothing) {
  constexpr int kRounds = 12, kStages = 2;
  for (int seed = 0; seed < 8; ++seed) {
    configure(seed % 3, kLandAtWait, 50, seed);
    int wrong = 0;
    expect_runs(
        [&] {
          POD_DYNAMIC_SMEM(smem);
          int* cells = reinterpret_cast<int*>(smem);
          const int lane = thread_index() % 64;
          for (int i = 0; i < kRounds; ++i) {
            const int stage = i % kStages, full = 1 + stage, empty = 3 + stage;
            int* cell = cells + stage * 64;
            if (thread_index() < 64) {
              if (i >= kStages) ptx::bar_sync(empty, 128);
              cell[lane] = i * 64 + lane;
              ptx::bar_arrive(full, 128);
            } else {
              ptx::bar_sync(full, 128);
              wrong += cell[lane ^ 32] != i * 64 + (lane ^ 32);
              if (i + kStages < kRounds) ptx::bar_arrive(empty, 128);
            }
          }
        },
        128);
    expect(wrong == 0, std::to_string(wrong) + " values were of another round");
  }
}

CASE(warpgroups_move_registers_each_at_its_own_time) {
  for (int order = kAscending; order <= kRandom; ++order) {
    configure(order, kLandAtWait, 20);
    expect_runs(
        [] {
          if (thread_index() < 128) {
            ptx::lower_registers<40>();
          } else {
            ptx::raise_registers<232>();
            ptx::bar_sync(1, 128);
            ptx::lower_registers<24>();
            ptx::bar_sync(1, 128);
            ptx::raise_registers<24>();
          }
        },
        256, 5);
  }
}

CASE(lanes_of_a_warp_at_different_barriers) {
  expect_error({"divergent barrier", "barrier 1 for 32", "barrier 2 for 32"},
               [] { ptx::bar_sync(1 + thread_index() / 16, 32); });
}

CASE(a_barrier_that_one_warp_never_reaches) {
  expect_error(
      {"deadlock", "cta 0 warp 0 waits at barrier 0 (32 of 64 threads)"},
      [] {
        if (thread_index() < 32) ptx::sync_cta();
      },
      64);
}

CASE(two_barriers_that_wait_for_each_other) {
  expect_error(
      {"deadlock", "warp 0 waits at barrier 1", "; cta 0 warp 1 waits at barrier 2"},
      [] { ptx::bar_sync(1 + thread_index() / 32, 64); }, 64);
}

CASE(warps_that_give_a_barrier_different_counts) {
  expect_error(
      {"barrier 1: this warp expects", "64", "96"},
      [] { ptx::bar_sync(1, thread_index() < 32 ? 64 : 96); }, 96);
}

CASE(barriers_that_do_not_exist) {
  expect_error({"bar.sync 16, 32"}, [] { ptx::bar_sync(16, 32); });
  expect_error({"bar.sync 1, 48"}, [] { ptx::bar_sync(1, 48); }, 64);
  expect_error({"bar.sync 1, 64"}, [] { ptx::bar_sync(1, 64); });
  expect_error({"bar.arrive -1, 32"}, [] { ptx::bar_arrive(-1, 32); });
}

CASE(arrivals_that_give_a_barrier_another_count) {
  expect_error(
      {"barrier 1: this warp expects", "64", "96"},
      [] {
        if (thread_index() < 32) {
          ptx::bar_arrive(1, 64);
        } else {
          ptx::bar_sync(1, 96);
        }
      },
      96);
}

CASE(a_second_arrival_before_the_barrier_opened) {
  expect_error(
      {"barrier 3: this warp has arrived already, and the barrier, at 32 of 64 threads, has not "
       "opened since"},
      [] {
        if (thread_index() >= 32) return;
        ptx::bar_arrive(3, 64);
        ptx::bar_arrive(3, 64);
      },
      64);
}

CASE(a_wait_where_the_warp_has_arrived_already) {
  expect_error(
      {"barrier 3: this warp has arrived already", "32 of 64 threads"},
      [] {
        if (thread_index() >= 32) return;
        ptx::bar_arrive(3, 64);
        ptx::bar_sync(3, 64);
      },
      64);
}

CASE(arrivals_that_nobody_completed) {
  expect_error(
      {"barrier 3: 128 of 256 threads had come when the CTA ended"},
      [] {
        if (thread_index() < 128) ptx::bar_arrive(3, 256);
      },
      256);
}

CASE(a_wait_for_arrivals_that_never_come) {
  expect_error(
      {"deadlock", "cta 0 warp 1 waits at barrier 2 (64 of 96 threads)"},
      [] {
        const int warp = thread_index() / 32;
        if (warp == 0) ptx::bar_arrive(2, 96);
        if (warp == 1) ptx::bar_sync(2, 96);
      },
      96);
}

CASE(an_arrival_in_divergent_code) {
  expect_error({"divergent warp", "bar.arrive", "bar.sync"}, [] {
    if (thread_index() < 16) {
      ptx::bar_arrive(1, 32);
    } else {
      ptx::bar_sync(1, 32);
    }
  });
  expect_error({"divergent barrier", "barrier 1 for 32", "barrier 2 for 32"},
               [] { ptx::bar_arrive(1 + thread_index() / 16, 32); });
}

CASE(a_move_of_registers_that_a_warp_of_the_group_leaves_out) {
  expect_error(
      {"lower_registers<40>: warp 0 had executed it when the CTA ended, warp 3 had not"},
      [] {
        if (thread_index() < 96) ptx::lower_registers<40>();
      },
      128);
  expect_error(
      {"raise_registers<208>: warp 6 had executed it when the CTA ended, warp 4 had not"},
      [] {
        if (thread_index() / 32 == 6) ptx::raise_registers<208>();
      },
      256);
}

CASE(moves_of_registers_that_differ) {
  expect_error(
      {"divergent setmaxnreg: lane 0 has lower_registers<40>, lane 16 has "
       "raise_registers<40>"},
      [] {
        if (thread_index() % 32 < 16) {
          ptx::lower_registers<40>();
        } else {
          ptx::raise_registers<40>();
        }
      },
      128);
  expect_error(
      {"_registers<", ">: warp ", " of the warpgroup has ", "Give all four warps one count"},
      [] {
        if (thread_index() < 64) {
          ptx::lower_registers<40>();
        } else {
          ptx::lower_registers<48>();
        }
      },
      128);
  expect_error(
      {"warp 2, but the CTA's 96 threads end within its warpgroup"},
      [] {
        if (thread_index() >= 64) ptx::lower_registers<40>();
      },
      96);
}

CASE(moves_of_registers_the_wrong_way) {
  expect_error(
      {"lower_registers<80>: the warp has 40 registers a thread since its "
       "lower_registers<40>. Raise them instead"},
      [] {
        ptx::lower_registers<40>();
        ptx::lower_registers<80>();
      },
      128);
  expect_error(
      {"raise_registers<80>: the warp has 160 registers a thread since its "
       "raise_registers<160>. Lower them instead"},
      [] {
        ptx::raise_registers<160>();
        ptx::raise_registers<80>();
      },
      128);
}
