// emulator_wgmma_swapped.cpp: wgmma of the emulated GPU with A M-major and with 16 columns: which
// bytes it reads, when its results come, and what it reports.

#include "emulator_wgmma.h"
#include "pod/ptx/ldmatrix.cuh"

using namespace wgmma_unit;

namespace {

constexpr uint32_t kRowsOfB = 8192;

void issue_transposed(float (&d)[2][4], uint32_t a = 0) {
  ptx::wgmma_ss_transposed<bf16>(d, descriptor(a, 0, 1024), descriptor(kRowsOfB, 16, 1024));
}

void finish() {
  ptx::wgmma_commit();
  ptx::wgmma_wait<0>();
}

// A[k = 9][m = 16 .. 23], which only the second warp reads.
constexpr uint32_t kOfWarp1 = 1024 + 128 + (2 ^ 1) * 16;

// The second warp stores zeros over the first 512 bytes of A, which hold 0 .. 3 of k.
void store_matrices() {
  const auto lane = static_cast<uint32_t>(thread_index() % 32);
  const uint32_t zeros[4] = {};
  if (thread_index() / 32 == 1) {
    ptx::stmatrix_x4_trans(ptx::smem_address(atoms()) + 16 * lane, zeros);
  }
}

}  // namespace

CASE(wgmma_a_m_major_must_start_at_a_swizzle_atom) {
  expect_group_error({"wgmma, A", "byte 32 of a swizzle atom", "multiple of 1024."}, [] {
    float d[2][4] = {};
    ptx::wgmma_fence();
    issue_transposed(d, 32);
  });
}

CASE(wgmma_a_m_major_outside_shared_memory) {
  expect_group_error({"wgmma, A", "of dynamic memory, which has 65536 bytes"}, [] {
    float d[2][4] = {};
    ptx::wgmma_fence();
    issue_transposed(d, 62 << 10);
  });
}

CASE(wgmma_that_differs_in_the_order_of_a) {
  expect_group_error({"divergent wgmma: instruction 1", "its warpgroup"}, [] {
    float d[2][4] = {};
    ptx::wgmma_fence();
    if (thread_index() / 32 == 2) {
      ptx::wgmma_ss<bf16>(d, descriptor(0, 0, 1024), descriptor(kRowsOfB, 16, 1024), true);
    } else {
      issue_transposed(d);
    }
    finish();
  });
}

CASE(few_accumulators_are_poison_until_the_wait) {
  in_every_schedule([] {
    expect_group_runs([] {
      clear_tiles();
      set_product(3);
      float d[2][4] = {{1, 1, 1, 1}, {1, 1, 1, 1}};
      ptx::wgmma_fence();
      issue_transposed(d);
      ptx::wgmma_commit();
      expect(std::isnan(d[0][0]) && std::isnan(d[1][3]), "in flight");
      ptx::wgmma_wait<0>();
      const float want = thread_index() < 4 ? 4.f : 1.f;
      expect(d[0][0] == want && d[1][1] == want && d[1][2] == 1, "landed");
    });
  });
  expect_group_error({"lane 5 wrote accumulators while a wgmma was in flight"}, [] {
    float d[2][4] = {};
    ptx::wgmma_fence();
    issue_transposed(d);
    ptx::wgmma_commit();
    if (thread_index() % 32 == 5) d[1][3] = 1;
    ptx::wgmma_wait<0>();
  });
}

CASE(copies_into_a_m_major_without_a_proxy_fence) {
  expect_group_error({"wgmma reads shared address", "which thread 77 wrote", "warp 1"}, [] {
    if (thread_index() == 77) copy_16(kOfWarp1, twos);
    ptx::cp_async_wait<0>();
    ptx::sync_cta();
    float d[2][4] = {};
    ptx::wgmma_fence();
    issue_transposed(d);
    finish();
  });
}

CASE(bytes_beside_a_m_major_need_no_proxy_fence) {
  in_every_schedule([] {
    expect_group_runs([] {
      clear_tiles();
      // A[k = 16]: the next step's. B: row 16.
      if (thread_index() == 77) copy_16(2048, twos);
      if (thread_index() == 78) copy_16(kRowsOfB + 2048, twos);
      ptx::cp_async_wait<0>();
      ptx::sync_cta();
      float d[2][4] = {};
      ptx::wgmma_fence();
      issue_transposed(d);
      finish();
      expect(d[1][3] == 0, "zeros");
    });
  });
}

CASE(stored_matrices_reach_wgmma_with_a_proxy_fence_only) {
  const auto multiply = [] {
    ptx::sync_cta();
    float d[2][4] = {};
    ptx::wgmma_fence();
    issue_transposed(d);
    finish();
  };
  expect_group_error({"wgmma reads shared address", "st.shared or stmatrix", "fence_proxy_async()"},
                     [=] {
                       store_matrices();
                       multiply();
                     });
  in_every_schedule([=] {
    expect_group_runs([=] {
      clear_tiles();
      store_matrices();
      ptx::fence_proxy_async();
      multiply();
    });
  });
}
