// emulator_wgmma.cpp: wgmma of the emulated GPU: products, their asynchrony, and misuse.

#include <cmath>
#include <cstdlib>
#include <cstring>

#include "emulator_unit.h"
#include "pod/ptx/wgmma.cuh"

using namespace unit;

namespace {

constexpr int kGroup = 128;
constexpr size_t kSmem = 64 << 10;

// Integers that both types hold exactly, so that sums are exact in any order.
std::vector<float> numbers(int count, int seed) {
  std::vector<float> all(static_cast<size_t>(count));
  std::srand(static_cast<unsigned>(seed));
  for (float& x : all) x = static_cast<float>(std::rand() % 9 - 4);
  return all;
}

template <class T>
uint16_t narrow(float x) {
  return static_cast<uint16_t>(ptx::pack2<T>(x, 0));
}

// The dynamic memory from its first shared address that is a multiple of 1024.
uint8_t* atoms() {
  POD_DYNAMIC_SMEM(smem);
  return smem + (1024 - ptx::smem_address(smem) % 1024) % 1024;
}

// Puts an element where a swizzled tile has it; `linear` counts from atoms().
void put(uint32_t linear, uint16_t bits) {
  uint8_t* base = atoms();
  const uint32_t chunk = linear / 16 % 8 ^ linear / 128 % 8;
  std::memcpy(base + linear / 128 * 128 + chunk * 16 + linear % 16, &bits, 2);
}

uint64_t descriptor(uint32_t at, uint32_t leading, uint32_t stride) {
  return ptx::wgmma_descriptor(ptx::smem_address(atoms()) + at, leading, stride);
}

void open_gate() {
  ptx::fence_proxy_async();
  ptx::sync_cta();
  ptx::wgmma_fence();
}

// Row and column of d[n][i] of a thread.
int row_of(int thread, int i) { return thread / 32 * 16 + thread % 32 / 4 + i / 2 * 8; }
int column_of(int thread, int n, int i) { return 8 * n + thread % 4 * 2 + i % 2; }

constexpr uint32_t kStrideA = 1024, kStrideB = 2048, kLeadingB = 16 << 10;
constexpr int kDepth = 64;

template <int kColumns>
void compare(const char* what, const std::vector<float>& a, const std::vector<float>& b,
             const std::vector<float>& c, const std::vector<float>& d) {
  constexpr int kN = 8 * kColumns;
  for (int m = 0; m < 64; ++m) {
    for (int n = 0; n < kN; ++n) {
      float sum = c[static_cast<size_t>(m * kN + n)];
      for (int k = 0; k < kDepth; ++k) {
        sum += a[static_cast<size_t>(m * kDepth + k)] * b[static_cast<size_t>(k * kN + n)];
      }
      expect(d[static_cast<size_t>(m * kN + n)] == sum,
             what + (" D[" + std::to_string(m)) + "][" + std::to_string(n) + "]");
    }
  }
}

// D = A B over 64 of k in four steps, `accumulate` from the first or the second on.
template <class T, int kColumns>
void check_ss(bool from_c) {
  constexpr int kN = 8 * kColumns;
  const std::vector<float> a = numbers(64 * kDepth, 1), b = numbers(kDepth * kN, 2);
  const std::vector<float> c = from_c ? numbers(64 * kN, 3) : std::vector<float>(64 * kN, 0.f);
  std::vector<float> out(64 * kN);
  expect_runs(
      [&] {
        const int thread = thread_index();
        for (int i = thread; i < 64 * kDepth; i += kGroup) {
          const auto r = static_cast<uint32_t>(i / kDepth), k = static_cast<uint32_t>(i % kDepth);
          put(r / 8 * kStrideA + r % 8 * 128 + k * 2, narrow<T>(a[static_cast<size_t>(i)]));
        }
        for (int i = thread; i < kDepth * kN; i += kGroup) {
          const auto k = static_cast<uint32_t>(i / kN), n = static_cast<uint32_t>(i % kN);
          put(8192 + n / 8 * kStrideB + n % 8 * 128 + k * 2, narrow<T>(b[static_cast<size_t>(i)]));
        }
        float d[kColumns][4];
        for (int n = 0; n < kColumns; ++n) {
          for (int i = 0; i < 4; ++i) {
            const int at = row_of(thread, i) * kN + column_of(thread, n, i);
            d[n][i] = from_c ? c[static_cast<size_t>(at)] : NAN;
          }
        }
        open_gate();
        for (uint32_t k = 0; k < kDepth / 16; ++k) {
          ptx::wgmma_ss<T>(d, descriptor(32 * k, 16, kStrideA),
                           descriptor(8192 + 32 * k, 16, kStrideB), from_c || k > 0);
        }
        ptx::wgmma_commit();
        ptx::wgmma_wait<0>();
        for (int n = 0; n < kColumns; ++n) {
          for (int i = 0; i < 4; ++i) {
            const int at = row_of(thread, i) * kN + column_of(thread, n, i);
            out[static_cast<size_t>(at)] = d[n][i];
          }
        }
      },
      kGroup, 1, kSmem);
  compare<kColumns>("ss", a, b, c, out);
}

template <class T, int kColumns>
void check_rs() {
  constexpr int kN = 8 * kColumns;
  const std::vector<float> a = numbers(64 * kDepth, 4), b = numbers(kDepth * kN, 5);
  const std::vector<float> c = numbers(64 * kN, 6);
  std::vector<float> out(64 * kN);
  expect_runs(
      [&] {
        const int thread = thread_index();
        for (int i = thread; i < kDepth * kN; i += kGroup) {
          const auto k = static_cast<uint32_t>(i / kN), n = static_cast<uint32_t>(i % kN);
          put(n / 64 * kLeadingB + k / 8 * kStrideB + k % 8 * 128 + n % 64 * 2,
              narrow<T>(b[static_cast<size_t>(i)]));
        }
        float d[kColumns][4];
        for (int n = 0; n < kColumns; ++n) {
          for (int i = 0; i < 4; ++i) {
            d[n][i] = c[static_cast<size_t>(row_of(thread, i) * kN + column_of(thread, n, i))];
          }
        }
        uint32_t fragments[kDepth / 16][4];
        for (int step = 0; step < kDepth / 16; ++step) {
          for (int i = 0; i < 4; ++i) {
            const int row = row_of(thread, i % 2 * 2), k = 16 * step + thread % 4 * 2 + i / 2 * 8;
            const float* pair = &a[static_cast<size_t>(row * kDepth + k)];
            fragments[step][i] = ptx::pack2<T>(pair[0], pair[1]);
          }
        }
        open_gate();
        for (uint32_t step = 0; step < kDepth / 16; ++step) {
          ptx::wgmma_rs<T>(d, fragments[step],
                           descriptor(step * 2 * kStrideB, kLeadingB, kStrideB));
        }
        ptx::wgmma_commit();
        ptx::wgmma_wait<0>();
        for (int n = 0; n < kColumns; ++n) {
          for (int i = 0; i < 4; ++i) {
            out[static_cast<size_t>(row_of(thread, i) * kN + column_of(thread, n, i))] = d[n][i];
          }
        }
      },
      kGroup, 1, 80 << 10);
  compare<kColumns>("rs", a, b, c, out);
}

template <class Check>
void in_every_schedule(Check check) {
  for (int order = kAscending; order <= kRandom; ++order) {
    for (int copies : {kLandAtWait, kLandAtIssue}) {
      configure(order, copies, 20);
      check();
    }
  }
}

}  // namespace

CASE(wgmma_ss_bf16_n64) {
  in_every_schedule([] { check_ss<bf16, 8>(false); });
  in_every_schedule([] { check_ss<bf16, 8>(true); });
}
CASE(wgmma_ss_fp16_n64) {
  in_every_schedule([] { check_ss<fp16, 8>(false); });
}
CASE(wgmma_ss_bf16_n128) {
  in_every_schedule([] { check_ss<bf16, 16>(false); });
}
CASE(wgmma_ss_fp16_n128) {
  in_every_schedule([] { check_ss<fp16, 16>(false); });
  in_every_schedule([] { check_ss<fp16, 16>(true); });
}
CASE(wgmma_rs_bf16_n64) {
  in_every_schedule([] { check_rs<bf16, 8>(); });
}
CASE(wgmma_rs_fp16_n64) {
  in_every_schedule([] { check_rs<fp16, 8>(); });
}
CASE(wgmma_rs_bf16_n128) {
  in_every_schedule([] { check_rs<bf16, 16>(); });
}
CASE(wgmma_rs_fp16_n128) {
  in_every_schedule([] { check_rs<fp16, 16>(); });
}
CASE(wgmma_rs_bf16_n256) {
  in_every_schedule([] { check_rs<bf16, 32>(); });
}
CASE(wgmma_rs_fp16_n256) {
  in_every_schedule([] { check_rs<fp16, 32>(); });
}

namespace {

// Two tiles of zeros, made by each thread's share of plain stores and closed by a barrier.
void clear_tiles() {
  for (int i = thread_index(); i < 16384; i += kGroup) atoms()[i] = 0;
  ptx::fence_proxy_async();
  ptx::sync_cta();
}

// A[0][0] of the first tile, and B of the second all ones in row 0 of k.
void set_product(float x) {
  if (thread_index() == 0) put(0, narrow<bf16>(x));
  for (uint32_t n = 0; n < 64; ++n) {
    if (thread_index() == 0) put(8192 + n / 8 * 1024 + n % 8 * 128, narrow<bf16>(1));
  }
  ptx::fence_proxy_async();
  ptx::sync_cta();
}

void issue(float (&d)[8][4], bool accumulate = false) {
  ptx::wgmma_ss<bf16>(d, descriptor(0, 16, 1024), descriptor(8192, 16, 1024), accumulate);
}

void copy_16(uint32_t at, const void* source) {
  ptx::cp_async_16(ptx::smem_address(atoms()) + at, source, true);
  ptx::cp_async_commit();
}

template <class Body>
void expect_group_runs(Body body) {
  expect_runs(body, kGroup, 1, kSmem);
}

template <class Body>
void expect_group_error(std::vector<std::string> parts, Body body) {
  expect_error(
      parts,
      [&] {
        clear_tiles();
        body();
      },
      kGroup, kSmem);
}

alignas(16) const uint16_t twos[8] = {0x4000, 0x4000, 0x4000, 0x4000,
                                      0x4000, 0x4000, 0x4000, 0x4000};  // bf16

}  // namespace

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
    ptx::wgmma_ss<bf16>(d, descriptor(0, 16, 1024) ^ uint64_t{3} << 62, descriptor(0, 16, 1024),
                        false);
  });
}

CASE(wgmma_tiles_that_start_inside_a_swizzle_atom) {
  expect_group_error({"wgmma, B", "byte 128 of a swizzle atom", "plus 0, 32, 64 or 96"}, [] {
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
    ptx::wgmma_ss<bf16>(d, descriptor(0, 16, 1024), ptx::wgmma_descriptor(0, 16, 1024), false);
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
  const std::vector<std::string> parts = {"wgmma reads shared address",
                                          "cp.async of thread 77 wrote", "fence_proxy_async()"};
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
    auto& half = reinterpret_cast<float(&)[8][4]>(d[8]);
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
