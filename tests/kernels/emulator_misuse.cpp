// emulator_misuse.cpp: every wrong use of the machine ends the launch with a text that says which.

#include <cstring>

#include "emulator_unit.h"

using namespace unit;

namespace {

int sink;

[[gnu::noinline]] int overflow(int depth) {
  volatile char frame[1024];
  frame[0] = static_cast<char>(depth);
  return depth < 0 ? 0 : overflow(depth + 1) + frame[0];
}

[[gnu::noinline]] void fill_large_frame() {
  volatile char frame[140 << 10];
  for (volatile char& byte : frame) byte = 1;
}

}  // namespace

CASE(collectives_in_divergent_code) {
  expect_error({"divergent warp", "shfl.bfly", "sync_warp"}, [] {
    if (thread_index() < 16) {
      ptx::shfl_xor(1.f, 1);
    } else {
      ptx::sync_warp();
    }
  });
}

CASE(a_collective_without_lanes_that_returned) {
  expect_error({"return", "shfl.bfly"}, [] {
    if (thread_index() > 20) return;
    ptx::shfl_xor(1.f, 1);
  });
}

CASE(a_misaligned_ldmatrix_row) {
  expect_error({"ldmatrix", "multiple of 16"}, [] {
    POD_DYNAMIC_SMEM(smem);
    uint32_t d[4];
    ptx::ldmatrix_x4(d, ptx::smem_address(smem) + 8);
  });
}

CASE(an_ldmatrix_row_outside_shared_memory) {
  expect_error({"ldmatrix", "byte 4096 of dynamic memory", "within 4096 bytes", "thread 16]"}, [] {
    POD_DYNAMIC_SMEM(smem);
    uint32_t d[4];
    const uint32_t row = thread_index() == 16 ? 4096u : 0u;
    ptx::ldmatrix_x4(d, ptx::smem_address(smem) + row);
  });
}

CASE(an_address_that_is_a_bare_offset) {
  expect_error({"ldmatrix", "static memory"}, [] {
    uint32_t d[4];
    ptx::ldmatrix_x4(d, 0);
  });
}

CASE(a_pointer_that_is_not_shared_memory) {
  expect_error({"not in shared memory"}, [] { ptx::smem_address(&sink); });
}

CASE(static_variables_that_do_not_fit) {
  struct Large {
    char bytes[4097];
  };
  expect_error({"static shared variables need 4097 bytes"}, [] {
    POD_STATIC_SMEM(Large, large);
    large.bytes[0] = 0;
  });
}

CASE(copies_with_bad_addresses) {
  alignas(16) static const char source[32] = {};
  expect_error({"cp.async", "multiple of 16"}, [] {
    POD_DYNAMIC_SMEM(smem);
    ptx::cp_async_16(ptx::smem_address(smem) + 4, source, true);
  });
  expect_error({"cp.async", "within 4096 bytes"}, [] {
    POD_DYNAMIC_SMEM(smem);
    ptx::cp_async_16(ptx::smem_address(smem) + 4096, source, true);
  });
  expect_error({"cp.async: source", "multiple of 16"}, [] {
    POD_DYNAMIC_SMEM(smem);
    ptx::cp_async_16(ptx::smem_address(smem), source + 8, true);
  });
  expect_error({"bad access to", "thread 5]"}, [] {
    POD_DYNAMIC_SMEM(smem);
    if (thread_index() == 5) ptx::cp_async_16(ptx::smem_address(smem), nullptr, true);
  });
}

CASE(copies_that_are_never_waited_for) {
  alignas(16) static const char source[16] = {};
  expect_error({"1 cp.async in flight"}, [] {
    POD_DYNAMIC_SMEM(smem);
    ptx::cp_async_16(ptx::smem_address(smem), source, true);
    ptx::cp_async_commit();
    ptx::cp_async_wait<1>();
  });
}

CASE(values_that_are_not_uniform) {
  expect_error({"warp_uniform: lane 0 has 1, lane 31 has 2"},
               [] { ptx::warp_uniform(thread_index() == 31 ? 2 : 1); });
}

CASE(shuffles_from_lanes_that_do_not_exist) {
  expect_error({"shfl.idx", "names 32"}, [] { ptx::shfl(0, 32); });
  expect_error({"shfl.bfly", "names -1"}, [] { ptx::shfl_xor(0.f, -1); });
}

CASE(a_store_behind_shared_memory) {
  expect_error({"past the end of dynamic shared memory", "cta 0", "thread 3]"}, [] {
    POD_DYNAMIC_SMEM(smem);
    if (thread_index() == 3) *static_cast<volatile uint8_t*>(smem + 4096) = 1;
  });
}

CASE(a_store_to_nowhere) {
  expect_error({"bad access to", "thread 7]"}, [] {
    volatile int* volatile nowhere = nullptr;
    if (thread_index() == 7) *nowhere = 1;
  });
}

CASE(a_stack_overflow) {
  expect_error({"stack overflow", "thread 9]"}, [] {
    if (thread_index() == 9) sink += overflow(0);
  });
}

CASE(a_frame_that_reaches_into_the_next_stack) {
  expect_error({"stack overflow", "thread 9]"}, [] {
    if (thread_index() == 9) fill_large_frame();
  });
}

CASE(a_division_by_zero) {
  volatile int one = 1, zero = 0;
  expect_error({"arithmetic fault"}, [&] { sink = one / zero; });
}

CASE(launches_that_no_gpu_would_take) {
  auto nothing = [] {};
  expect(launch(nothing, 32, 0) == 1, "no CTAs");
  expect(launch(nothing, 33) == 1, "33 threads");
  expect(launch(nothing, 1056) == 1, "1056 threads");
  expect(launch(nothing, 32, 1, 228 << 10) == 1, "228 KiB of shared memory");
  configure(3);
  expect(launch(nothing) == 1, "an order that does not exist");
  configure(kAscending, kLandAtWait, 101);
  expect(launch(nothing) == 1, "101 percent");
  configure(kAscending, kLandAtWait, 0, 1, 0);
  expect(launch(nothing) == 1, "no SM");
}
