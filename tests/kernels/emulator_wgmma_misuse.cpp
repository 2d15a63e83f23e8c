// emulator_wgmma_misuse.cpp: wgmma of the emulated GPU: what it reports.

#include "emulator_wgmma.h"

using namespace wgmma_unit;

CASE(wgmma_without_its_fence) {
  expect_group_error({"wgmma without a wgmma_fence()", "since the start"}, [] {
    float d[8][4];
    issue(d);
  });
  expect_group_error({"wgmma without a wgmma_fence()", "the last wait"}, [] {
    float d[8][4];
    ptx::wgmma_fence();
    issue(d);
    ptx::wgmma_commit();
    ptx::wgmma_wait<0>();
    issue(d);
  });
}

CASE(wgmma_that_is_never_waited_for) {
  expect_group_error({"thread returns with 1 wgmma in flight, the last not committed"}, [] {
    float d[8][4];
    ptx::wgmma_fence();
    issue(d);
  });
  expect_group_error({"thread returns with 1 wgmma in flight. Wait for all groups first"}, [] {
    float d[8][4], e[8][4];
    ptx::wgmma_fence();
    issue(d);
    ptx::wgmma_commit();
    issue(e);
    ptx::wgmma_commit();
    ptx::wgmma_wait<1>();
  });
}

CASE(wgmma_descriptors_that_cannot_be) {
  expect_group_error({"wgmma_descriptor", "multiple of 16"}, [] { descriptor(8, 16, 1024); });
  expect_group_error({"wgmma_descriptor", "below 2^18"}, [] { descriptor(0, 1 << 18, 1024); });
  expect_group_error({"wgmma, A", "another swizzle"}, [] {
    float d[8][4];
    ptx::wgmma_fence();
    ptx::wgmma_ss<bf16>(d, descriptor(0, 16, 1024) ^ uint64_t{2} << 62, descriptor(0, 16, 1024),
                        false);
  });
}

CASE(wgmma_tiles_that_start_inside_a_swizzle_atom) {
  expect_group_error(
      {"wgmma, B", "byte 128 of a swizzle atom", "multiple of 1024 plus a multiple of 32"}, [] {
        float d[8][4];
        ptx::wgmma_fence();
        ptx::wgmma_ss<bf16>(d, descriptor(96, 16, 1024), descriptor(8192 + 128, 16, 1024), false);
      });
  expect_group_error({"wgmma, B", "byte 32 of a swizzle atom", "multiple of 1024."}, [] {
    float d[8][4] = {};
    const uint32_t a[4] = {};
    ptx::wgmma_fence();
    ptx::wgmma_rs<bf16>(d, a, descriptor(32, 8192, 1024));
  });
  expect_group_error({"wgmma, A", "byte 96 of a swizzle atom", "multiple of 512 plus"}, [] {
    float d[8][4];
    ptx::wgmma_fence();
    ptx::wgmma_ss<bf16>(d, descriptor<64>(32 + 64, 16, 512), descriptor<64>(8192, 16, 512), false);
  });
}

CASE(wgmma_tiles_outside_shared_memory) {
  expect_group_error({"wgmma, A", "of dynamic memory, which has 65536 bytes"}, [] {
    float d[8][4];
    ptx::wgmma_fence();
    ptx::wgmma_ss<bf16>(d, descriptor(57 << 10, 16, 1024), descriptor(0, 16, 1024), false);
  });
  expect_group_error({"wgmma, B", "of dynamic memory, which has 65536 bytes"}, [] {
    float d[16][4] = {};
    const uint32_t a[4] = {};
    ptx::wgmma_fence();
    ptx::wgmma_rs<bf16>(d, a, descriptor(0, 63 << 10, 1024));
  });
  expect_group_error({"wgmma, B", "bytes 0 to 8192 of static memory, which has 0 bytes"}, [] {
    float d[8][4];
    ptx::wgmma_fence();
    ptx::wgmma_ss<bf16>(d, descriptor(0, 16, 1024), ptx::wgmma_descriptor<128>(0, 16, 1024), false);
  });
}

CASE(wgmma_of_a_warp_without_a_full_warpgroup) {
  expect_error(
      {"wgmma of warp 4", "160 threads"},
      [] {
        if (thread_index() < kGroup) return;
        float d[8][4];
        ptx::wgmma_fence();
        issue(d);
      },
      160, kSmem);
}

CASE(wgmma_that_differs_within_a_warp) {
  expect_group_error({"divergent wgmma: lane 9 gives other descriptors"}, [] {
    float d[8][4];
    ptx::wgmma_fence();
    issue(d, thread_index() % 32 == 9);
  });
}

CASE(wgmma_that_differs_within_a_warpgroup) {
  expect_group_error({"divergent wgmma: instruction 2", "its warpgroup"}, [] {
    float d[8][4];
    ptx::wgmma_fence();
    issue(d);
    issue(d, thread_index() / 32 != 2);
    ptx::wgmma_commit();
    ptx::wgmma_wait<0>();
  });
}

CASE(wgmma_in_divergent_code) {
  expect_group_error({"divergent warp", "wgmma.commit_group", "wgmma.wait_group"}, [] {
    if (thread_index() % 32 < 16) {
      ptx::wgmma_commit();
    } else {
      ptx::wgmma_wait<0>();
    }
  });
}

CASE(copies_that_wgmma_reads_without_a_proxy_fence) {
  const std::vector<std::string> parts = {
      "wgmma reads shared address", "which thread 77 wrote by cp.async", "fence_proxy_async()"};
  auto multiply = [] {
    float d[8][4];
    ptx::sync_cta();
    ptx::wgmma_fence();
    issue(d);
    ptx::wgmma_commit();
    ptx::wgmma_wait<0>();
  };
  expect_group_error(parts, [=] {  // none
    if (thread_index() == 77) copy_16(8192, twos);
    ptx::cp_async_wait<0>();
    multiply();
  });
  expect_group_error(parts, [=] {  // too early
    if (thread_index() == 77) copy_16(16, twos);
    ptx::fence_proxy_async();
    ptx::cp_async_wait<0>();
    multiply();
  });
  expect_group_error(parts, [=] {  // of all threads but the one that copied
    if (thread_index() == 77) copy_16(0, twos);
    ptx::cp_async_wait<0>();
    if (thread_index() != 77) ptx::fence_proxy_async();
    multiply();
  });
  expect_group_error(parts, [=] {  // B of wgmma_rs
    float d[8][4] = {};
    const uint32_t a[4] = {};
    if (thread_index() == 77) copy_16(8192 + 2047 - 15, twos);
    ptx::cp_async_wait<0>();
    ptx::sync_cta();
    ptx::wgmma_fence();
    ptx::wgmma_rs<bf16>(d, a, descriptor(8192, 8192, 1024));
  });
}

CASE(bytes_that_wgmma_does_not_read_need_no_proxy_fence) {
  in_every_schedule([] {
    expect_group_runs([] {
      clear_tiles();
      // Columns 16..23 of k of row 0: the next step's.
      if (thread_index() == 77) copy_16(8192 + 32, twos);
      ptx::cp_async_wait<0>();
      ptx::sync_cta();
      float d[8][4];
      ptx::wgmma_fence();
      issue(d);
      ptx::wgmma_commit();
      ptx::wgmma_wait<0>();
      expect(d[0][0] == 0, "zeros");
    });
  });
}

CASE(accumulators_that_are_touched_while_in_flight) {
  expect_group_error({"lane 5 wrote accumulators while a wgmma was in flight"}, [] {
    float d[8][4];
    ptx::wgmma_fence();
    issue(d);
    ptx::wgmma_commit();
    if (thread_index() % 32 == 5) d[3][1] = 1;
    ptx::wgmma_wait<0>();
  });
  expect_group_error({"part of the accumulators of another one in flight"}, [] {
    float d[16][4];
    auto& half = reinterpret_cast<float (&)[8][4]>(d[8]);
    ptx::wgmma_fence();
    ptx::wgmma_ss<bf16>(d, descriptor(0, 16, 1024), descriptor(0, 16, 1024), false);
    issue(half);
  });
}

CASE(registers_that_change_after_the_fence) {
  // Known from the second use on.
  expect_group_error({"wgmma on accumulators that lane 7 has changed since the last wgmma_fence()"},
                     [] {
                       float d[8][4] = {};
                       for (int round = 0; round < 2; ++round) {
                         ptx::wgmma_fence();
                         if (thread_index() % 32 == 7) d[5][2] += 1;
                         issue(d, true);
                         ptx::wgmma_commit();
                         ptx::wgmma_wait<0>();
                       }
                     });
  expect_group_error({"wgmma on registers of A that lane 9 has changed"}, [] {
    float d[8][4] = {}, e[8][4] = {};
    uint32_t a[4] = {};
    ptx::wgmma_fence();
    ptx::wgmma_rs<bf16>(d, a, descriptor(0, 8192, 1024));
    ptx::wgmma_commit();
    ptx::wgmma_fence();
    if (thread_index() % 32 == 9) a[3] = 1;
    ptx::wgmma_rs<bf16>(e, a, descriptor(0, 8192, 1024));
    ptx::wgmma_commit();
    ptx::wgmma_wait<0>();
  });
}

CASE(registers_that_change_before_the_fence) {
  in_every_schedule([] {
    expect_group_runs([] {
      clear_tiles();
      float d[8][4] = {};
      uint32_t a[4] = {};
      for (int round = 0; round < 3; ++round) {
        for (auto& tile : d) tile[round] += 1;
        a[round] += 1;
        ptx::wgmma_fence();
        ptx::wgmma_rs<bf16>(d, a, descriptor(0, 8192, 1024));
        issue(d, true);
        ptx::wgmma_commit();
        ptx::wgmma_wait<0>();
      }
      expect(d[7][0] == 1 && d[7][2] == 1 && d[7][3] == 0, "sums of zeros beside what was there");
    });
  });
}
