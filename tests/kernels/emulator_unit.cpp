// emulator_unit.cpp: the emulated instructions against formulas written down independently.

#include "emulator_unit.h"

#include <cmath>
#include <cstdlib>
#include <cstring>
#include <limits>

using namespace unit;

namespace {

uint16_t bits16(uint32_t packed, int half) { return static_cast<uint16_t>(packed >> 16 * half); }

float from_bf16(uint16_t bits) {
  const uint32_t word = uint32_t{bits} << 16;
  float value;
  std::memcpy(&value, &word, 4);
  return value;
}

// D = A B + C with the strides of CuTe's MMA_Traits for SM80_16x8x16_F32BF16BF16F32_TN:
// A (M16, K16): ((4, 8), (2, 2, 2)) : ((32, 1), (16, 8, 128))
// B (N8, K16):  ((4, 8), (2, 2))    : ((16, 1), (8, 64))
// C (M16, N8):  ((4, 8), (2, 2))    : ((32, 1), (16, 8))
template <class T>
void multiply_by_cute_strides(const float* a, const float* b, const float* c, float* d) {
  const int t0 = thread_index() % 4, t1 = thread_index() / 4;
  uint32_t a_words[4], b_words[2];
  float sums[4];
  for (int i = 0; i < 4; ++i) {
    const float* first = a + t0 * 32 + t1 + i % 2 * 8 + i / 2 * 128;
    a_words[i] = ptx::pack2<T>(first[0], first[16]);
    sums[i] = c[t0 * 32 + t1 + i % 2 * 16 + i / 2 * 8];
  }
  for (int i = 0; i < 2; ++i) {
    const float* first = b + t0 * 16 + t1 + i * 64;
    b_words[i] = ptx::pack2<T>(first[0], first[8]);
  }
  ptx::mma_m16n8k16<T>(sums, a_words, b_words[0], b_words[1]);
  for (int i = 0; i < 4; ++i) d[t0 * 32 + t1 + i % 2 * 16 + i / 2 * 8] = sums[i];
}

template <class T>
void check_mma() {
  float a[256], b[128], c[128], d[128];
  std::srand(1);
  for (float& x : a) x = static_cast<float>(std::rand() % 17 - 8);
  for (float& x : b) x = static_cast<float>(std::rand() % 17 - 8);
  for (float& x : c) x = static_cast<float>(std::rand() % 9);
  for (int order = kAscending; order <= kRandom; ++order) {
    configure(order);
    expect_runs([&] { multiply_by_cute_strides<T>(a, b, c, d); });
    for (int m = 0; m < 16; ++m) {
      for (int n = 0; n < 8; ++n) {
        float sum = c[m + 16 * n];
        for (int k = 0; k < 16; ++k) sum += a[m + 16 * k] * b[n + 8 * k];
        expect(d[m + 16 * n] == sum, "D[" + std::to_string(m) + "][" + std::to_string(n) + "]");
      }
    }
  }
}

void check_ldmatrix(bool trans) {
  expect_runs([&] {
    POD_DYNAMIC_SMEM(smem);
    uint16_t* elements = reinterpret_cast<uint16_t*>(smem);
    const int lane = thread_index();
    for (int i = lane; i < 256; i += 32) elements[i] = static_cast<uint16_t>(i);
    ptx::sync_warp();
    uint32_t d[4];
    const uint32_t row = ptx::smem_address(smem) + static_cast<uint32_t>(lane) * 16;
    trans ? ptx::ldmatrix_x4_trans(d, row) : ptx::ldmatrix_x4(d, row);
    for (int i = 0; i < 4; ++i) {
      for (int half = 0; half < 2; ++half) {
        const int g = lane / 4, t = 2 * (lane % 4) + half;
        const int element = 64 * i + (trans ? 8 * t + g : 8 * g + t);
        expect(bits16(d[i], half) == element, "lane " + std::to_string(lane));
      }
    }
  });
}

}  // namespace

CASE(mma_bf16_fragments_follow_cute_strides) { check_mma<bf16>(); }
CASE(mma_fp16_fragments_follow_cute_strides) { check_mma<fp16>(); }

CASE(mma_sums_in_fp32) {
  expect_runs([] {
    // 1 + 2^-7 squared is no bf16; and 2^-20 would vanish beside it in less than fp32.
    const uint32_t x = ptx::pack2<bf16>(1.0078125f, 0), b = ptx::pack2<bf16>(1.0078125f, 0);
    const uint32_t a[4] = {x, x, 0, 0};
    float c[4] = {0x1p-20f, 0x1p-20f, 0x1p-20f, 0x1p-20f};
    ptx::mma_m16n8k16<bf16>(c, a, b, 0);
    // Each lane puts x into an even column of the left half of A: four products a row.
    const float sum = 4 * 1.0078125f * 1.0078125f + 0x1p-20f;
    for (float value : c) expect(value == sum, std::to_string(value));
  });
}

CASE(ldmatrix_gives_lane_l_row_l_over_4) { check_ldmatrix(false); }
CASE(ldmatrix_trans_swaps_row_and_column) { check_ldmatrix(true); }

CASE(shuffles_move_any_lanes_value) {
  for (int order = kAscending; order <= kRandom; ++order) {
    configure(order);
    expect_runs([] {
      const int lane = thread_index();
      for (int mask = 0; mask < 32; ++mask) {
        const float other = ptx::shfl_xor(static_cast<float>(lane), mask);
        expect(other == static_cast<float>(lane ^ mask), "shfl_xor");
        expect(ptx::shfl(100 + lane, mask) == 100 + mask, "shfl of one lane");
      }
      expect(ptx::shfl(lane, (lane + 5) % 32) == (lane + 5) % 32, "shfl of a lane each");
      expect(ptx::warp_uniform(7) == 7, "warp_uniform");
    });
  }
}

CASE(approximate_functions_keep_their_special_values) {
  const float inf = std::numeric_limits<float>::infinity(), tiny = 1e-40f;
  expect(ptx::ex2(-inf) == 0 && ptx::ex2(0) == 1 && ptx::ex2(3) == 8, "ex2");
  expect(ptx::ex2(-140) == 0, "ex2 flushes a subnormal result");
  expect(ptx::lg2(0) == -inf && ptx::lg2(8) == 3, "lg2");
  expect(ptx::lg2(tiny) == -inf, "lg2 flushes a subnormal input");
  expect(ptx::rcp(0) == inf && ptx::rcp(inf) == 0 && ptx::rcp(4) == 0.25f, "rcp");
  expect(ptx::rcp(tiny) == inf && ptx::rcp(3e38f) == 0, "rcp flushes subnormals");
}

CASE(pack2_rounds_to_nearest_even_and_puts_lo_low) {
  expect(ptx::pack2<bf16>(1, -2) == 0xc0003f80u, "order of halves, bf16");
  expect(ptx::pack2<fp16>(1, -2) == 0xc0003c00u, "order of halves, fp16");
  expect(bits16(ptx::pack2<bf16>(1 + 0x1p-8f, 0), 0) == 0x3f80, "tie to even, down");
  expect(bits16(ptx::pack2<bf16>(1 + 3 * 0x1p-8f, 0), 0) == 0x3f82, "tie to even, up");
  expect(bits16(ptx::pack2<fp16>(1 + 0x1p-11f, 0), 0) == 0x3c00, "tie to even, fp16");
  expect(bits16(ptx::pack2<fp16>(65520, 0), 0) == 0x7c00, "overflow of fp16");
  expect(bits16(ptx::pack2<bf16>(3.4e38f, 0), 0) == 0x7f80, "overflow of bf16");
  const float nan = std::numeric_limits<float>::quiet_NaN();
  expect(ptx::pack2<bf16>(nan, nan) == 0x7fff7fffu, "NaN, bf16");
  expect(ptx::pack2<fp16>(nan, nan) == 0x7fff7fffu, "NaN, fp16");
  expect(std::isnan(from_bf16(0x7fff)), "0x7fff is a NaN");
}

CASE(copies_land_at_their_wait_and_are_poison_until_then) {
  alignas(16) int source[4][4] = {{1, 1, 1, 1}, {2, 2, 2, 2}, {3, 3, 3, 3}};
  expect_runs([&] {
    if (thread_index() != 0) return;
    POD_DYNAMIC_SMEM(smem);
    const int* target = reinterpret_cast<const int*>(smem);
    const uint32_t address = ptx::smem_address(smem);
    for (uint32_t group = 0; group < 3; ++group) {
      std::memset(smem + 16 * group, 0, 16);
      ptx::cp_async_16(address + 16 * group, source[group], true);
      ptx::cp_async_commit();
    }
    expect(target[0] == -1 && target[8] == -1, "in flight");
    ptx::cp_async_wait<3>();
    expect(target[0] == -1, "three groups may be in flight");
    ptx::cp_async_wait<1>();
    expect(target[3] == 1 && target[7] == 2 && target[8] == -1, "the newest is in flight");
    source[2][0] = 4;
    ptx::cp_async_wait<0>();
    expect(target[8] == 4 && target[9] == 3, "the last has landed, with the latest data");
  });
}

CASE(copies_can_land_at_issue) {
  alignas(16) int source[4] = {5, 5, 5, 5};
  configure(kAscending, kLandAtIssue);
  expect_runs([&] {
    POD_DYNAMIC_SMEM(smem);
    ptx::cp_async_16(ptx::smem_address(smem), source, true);
    expect(*reinterpret_cast<int*>(smem) == 5, "landed");
  });
}

CASE(uncommitted_copies_belong_to_the_next_group) {
  alignas(16) int source[4] = {5, 5, 5, 5};
  expect_runs([&] {
    if (thread_index() != 0) return;
    POD_DYNAMIC_SMEM(smem);
    ptx::cp_async_16(ptx::smem_address(smem), source, true);
    ptx::cp_async_wait<0>();
    expect(*reinterpret_cast<int*>(smem) == -1, "a wait is for committed groups");
    ptx::cp_async_commit();
    ptx::cp_async_wait<0>();
  });
}

CASE(invalid_copies_write_zeros_and_read_nothing) {
  expect_runs([] {
    POD_DYNAMIC_SMEM(smem);
    const int offset = 16 * thread_index();
    ptx::cp_async_16(ptx::smem_address(smem + offset), nullptr, false);
    ptx::cp_async_commit();
    ptx::cp_async_wait<0>();
    for (int i = 0; i < 16; ++i) expect(smem[offset + i] == 0, "zero");
  });
}

CASE(ldmatrix_counts_wavefronts_beyond_the_first) {
  auto extra = [](auto address_of) {
    int64_t counts[16];
    pod_emulator_stats(counts, 1);
    expect_runs([&] {
      POD_DYNAMIC_SMEM(smem);
      uint32_t d[4];
      const auto lane = static_cast<uint32_t>(thread_index());
      ptx::ldmatrix_x4(d, ptx::smem_address(smem) + address_of(lane / 8, lane % 8));
    });
    pod_emulator_stats(counts, 1);
    return counts[3];
  };
  expect(extra([](uint32_t, uint32_t row) { return 128 * row; }) == 4 * 7, "rows of 128 bytes");
  expect(extra([](uint32_t, uint32_t row) { return 64 * row; }) == 4 * 3, "rows of 64 bytes");
  expect(extra([](uint32_t m, uint32_t row) { return 128 * row + 16 * (row ^ m); }) == 0,
         "swizzled rows of 128 bytes");
  expect(extra([](uint32_t, uint32_t) { return 0u; }) == 0, "one row for all lanes");
  expect(extra([](uint32_t, uint32_t row) { return row / 2 * 128; }) == 4 * 3, "rows read twice");
}

int main() {
  int failures = 0;
  for (const Case& test : cases()) {
    failure().clear();
    configure(kAscending);
    test.run();
    failures += !failure().empty();
    printf("%s\t%s\n", test.name, failure().empty() ? "ok" : failure().c_str());
    fflush(stdout);
  }
  return failures != 0;
}
