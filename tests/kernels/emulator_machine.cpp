// emulator_machine.cpp: scheduling, residency and counts of the emulated GPU.

#include <sys/wait.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <set>
#include <thread>

#include "emulator_unit.h"

using namespace unit;

namespace {

// The order in which threads reached an atomic, a fingerprint of the interleaving.
std::vector<int> interleaving(int order, int preempt_percent, int seed) {
  configure(order, kLandAtWait, preempt_percent, seed);
  std::vector<int> arrivals(4 * 64 * 8, -1);
  int next = 0;
  expect_runs(
      [&] {
        for (int round = 0; round < 8; ++round) {
          const size_t place = static_cast<size_t>(ptx::atomic_add(&next, 1));
          arrivals[place] = 64 * cta_index() + thread_index();
          ptx::sync_warp();
        }
      },
      64, 4);
  return arrivals;
}

std::vector<int> lanes_of_one_warp(int order) {
  configure(order);
  std::vector<int> lanes;
  expect_runs([&] {
    ptx::sync_warp();
    lanes.push_back(thread_index());
  });
  return lanes;
}

}  // namespace

CASE(lanes_run_in_the_configured_order) {
  std::vector<int> rising(32);
  for (int i = 0; i < 32; ++i) rising[static_cast<size_t>(i)] = i;
  const std::vector<int> falling(rising.rbegin(), rising.rend());
  expect(lanes_of_one_warp(kAscending) == rising, "ascending");
  expect(lanes_of_one_warp(kDescending) == falling, "descending");
  std::vector<int> random = lanes_of_one_warp(kRandom);
  expect(random != rising && random != falling, "random");
  std::sort(random.begin(), random.end());
  expect(random == rising, "random runs every lane once");
}

CASE(seeds_change_the_interleaving_and_repeat_it) {
  std::set<std::vector<int>> seen;
  for (int seed = 0; seed < 8; ++seed) seen.insert(interleaving(kRandom, 10, seed));
  expect(seen.size() == 8, std::to_string(seen.size()) + " interleavings of 8 seeds");
  expect(interleaving(kRandom, 10, 3) == interleaving(kRandom, 10, 3), "a seed repeats");
}

CASE(preemption_changes_the_interleaving_in_any_order) {
  for (int order = kAscending; order <= kRandom; ++order) {
    const std::vector<int> calm = interleaving(order, 0, 1);
    expect(interleaving(order, 50, 1) != calm, "order " + std::to_string(order));
    expect(interleaving(order, 50, 1) != interleaving(order, 50, 2),
           "order " + std::to_string(order) + ", another seed");
  }
}

CASE(preemption_stops_a_warp_between_its_lanes) {
  // Without it a lane's round is never cut off from its neighbour's by another warp.
  const std::vector<int> arrivals = interleaving(kAscending, 100, 1);
  int cuts = 0;
  for (size_t i = 1; i < arrivals.size(); ++i) {
    cuts += arrivals[i] / 32 != arrivals[i - 1] / 32 && arrivals[i - 1] % 32 != 31;
  }
  expect(cuts > 8, std::to_string(cuts) + " cuts");
}

CASE(every_cta_runs_once_whatever_the_machine) {
  for (int order = kAscending; order <= kRandom; ++order) {
    for (int sms : {1, 3}) {
      for (int per_sm : {1, 4}) {
        configure(order, kLandAtWait, 10, 1, sms, per_sm);
        std::vector<int> runs(17), held(static_cast<size_t>(sms));
        int64_t counts[16];
        pod_emulator_stats(counts, 1);
        expect_runs(
            [&] {
              expect(ptx::smid() < ptx::nsmid(), "smid");
              if (thread_index() == 0) {
                ++runs[static_cast<size_t>(cta_index())];
                ++held[ptx::smid()];
              }
              ptx::sync_cta();
            },
            32, 17);
        pod_emulator_stats(counts, 1);
        expect(std::count(runs.begin(), runs.end(), 1) == 17, "each CTA once");
        expect(*std::min_element(held.begin(), held.end()) > 0, "every SM takes part");
        expect(counts[7] == 17 && counts[8] == std::min(17, sms * per_sm), "counts of CTAs");
      }
    }
  }
}

CASE(ctas_of_an_sm_are_resident_together) {
  for (int order = kAscending; order <= kRandom; ++order) {
    configure(order, kLandAtWait, 0, 1, 2, 3);
    int started = 0, seen[2] = {0, 0}, alive[2] = {0, 0};
    expect_runs(
        [&] {
          if (thread_index() == 0) ++alive[ptx::smid()];
          ptx::atomic_add(&started, 1);
          ptx::sync_cta();
          if (thread_index() == 0) {
            seen[ptx::smid()] = std::max(seen[ptx::smid()], alive[ptx::smid()]);
          }
          ptx::sync_cta();
          if (thread_index() == 0) --alive[ptx::smid()];
        },
        64, 12);
    expect(seen[0] == 3 && seen[1] == 3, std::to_string(seen[0]) + std::to_string(seen[1]));
  }
}

CASE(random_order_dispatches_ctas_in_random_order) {
  std::set<std::vector<int>> seen;
  for (int seed = 0; seed < 4; ++seed) {
    configure(kRandom, kLandAtWait, 0, seed, 1, 1);
    std::vector<int> started;
    expect_runs(
        [&] {
          if (thread_index() == 0) started.push_back(cta_index());
        },
        32, 12);
    seen.insert(started);
  }
  expect(seen.size() == 4, "four seeds, four orders");
}

CASE(atomics_add_up_under_preemption) {
  configure(kRandom, kLandAtWait, 50, 7);
  int sum = 0;
  std::set<int> old;
  expect_runs([&] { old.insert(ptx::atomic_add(&sum, 2)); }, 64, 6);
  expect(sum == 2 * 6 * 64 && old.size() == 6 * 64, "each thread saw a value of its own");
}

CASE(statistics_count_what_ran) {
  int64_t counts[16];
  pod_emulator_stats(counts, 1);
  alignas(16) static const int source[4] = {};
  int cell = 0;
  expect_runs(
      [&] {
        POD_DYNAMIC_SMEM(smem);
        uint32_t words[4] = {};
        float sums[4] = {};
        ptx::cp_async_16(ptx::smem_address(smem), source, true);
        ptx::cp_async_commit();
        ptx::cp_async_wait<0>();
        ptx::ldmatrix_x4(words, ptx::smem_address(smem));
        ptx::mma_m16n8k16<fp16>(sums, words, 0, 0);
        ptx::mma_m16n8k16<bf16>(sums, words, 0, 0);
        ptx::shfl_xor(sums[0], 1);
        ptx::sync_cta();
        if (thread_index() == 0) ptx::atomic_add(&cell, 1);
      },
      64, 3);
  pod_emulator_stats(counts, 0);
  // switches, mma, ldmatrix, extra wavefronts, cp_async, barriers, shuffles, ctas, resident,
  // atomics
  const int64_t expected[10] = {counts[0], 12, 6, 0, 192, 6, 6, 3, 3, 3};
  expect(std::memcmp(counts, expected, sizeof expected) == 0, "counts");
  expect(counts[0] >= 6 * 32 * 5 && counts[0] < 6 * 32 * 8, "switches");
  pod_emulator_stats(counts, 1);
  expect(counts[1] == 12, "not reset before");
  pod_emulator_stats(counts, 0);
  expect(std::count(counts, counts + 16, 0) == 16, "reset");
}

CASE(the_global_timer_never_runs_backwards) {
  expect_runs([] {
    const uint64_t begin = ptx::globaltimer();
    ptx::sync_warp();
    expect(ptx::globaltimer() >= begin, "later");
  });
}

CASE(launches_of_several_host_threads_do_not_mix) {
  int sums[2] = {0, 0}, codes[2] = {0, 0};
  std::string errors[2];
  std::atomic<int> started{0};
  auto work = [&](int me) {
    for (++started; started < 2;) std::this_thread::yield();
    for (int round = 0; round < 100; ++round) {
      codes[me] += launch(
          [&] {
            for (int i = 0; i < 200; ++i) ptx::sync_cta();
            if (me == 1) ptx::shfl(0, 99);
            sums[me] += 1;
          },
          64);
    }
    errors[me] = pod_emulator_error();
  };
  std::thread first(work, 0), second(work, 1);
  first.join();
  second.join();
  expect(sums[0] == 100 * 64 && codes[0] == 0 && errors[0].empty(), "the good thread");
  expect(sums[1] == 0 && codes[1] == 100 && !errors[1].empty(), "the thread with errors");
}

CASE(guarded_memory_is_aligned_and_ends_at_an_unreadable_page) {
  for (int64_t bytes : {1, 16, 4096, 5008}) {
    char* block = static_cast<char*>(pod_emulator_guarded(bytes));
    expect(reinterpret_cast<uintptr_t>(block) % 16 == 0, "alignment");
    std::memset(block, 1, static_cast<size_t>(bytes));
    volatile char* end = block + (bytes + 15) / 16 * 16;
    expect(launch([&] { *end; }) == 1, "a read behind the end");
    pod_emulator_release(block, bytes);
    expect(launch([&] { *static_cast<volatile char*>(block); }) == 1, "a read after release");
  }
}
