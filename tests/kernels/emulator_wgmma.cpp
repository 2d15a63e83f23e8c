// emulator_wgmma.cpp: wgmma of the emulated GPU: its products, of every shape and type.

#include "emulator_wgmma.h"

#include <cmath>
#include <cstdlib>

using namespace wgmma_unit;

namespace {

// Integers that both types hold exactly, so that sums are exact in any order.
std::vector<float> numbers(int count, int seed) {
  std::vector<float> all(static_cast<size_t>(count));
  std::srand(static_cast<unsigned>(seed));
  for (float& x : all) x = static_cast<float>(std::rand() % 9 - 4);
  return all;
}

void open_gate() {
  ptx::fence_proxy_async();
  ptx::sync_cta();
  ptx::wgmma_fence();
}

// Row and column of d[n][i] of a thread.
int row_of(int thread, int i) { return thread / 32 * 16 + thread % 32 / 4 + i / 2 * 8; }
int column_of(int thread, int n, int i) { return 8 * n + thread % 4 * 2 + i % 2; }

constexpr uint32_t kStrideA = 1024, kStrideB = 2048, kLeadingA = 8 << 10, kLeadingB = 16 << 10;
constexpr uint32_t kPanelA = 8 << 10, kPanelB = 32 << 10, kFirstB = 2 * kPanelA;
constexpr int kDepth = 64;

// Where a tile of rows of `width` bytes has element `across` of row `along`, before its swizzle.
uint32_t place(uint32_t along, uint32_t across, uint32_t width, uint32_t stride, uint32_t panel) {
  const uint32_t bytes = across * 2;
  return bytes / width * panel + along / 8 * stride + along % 8 * width + bytes % width;
}

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

// D = A B over 64 of k in four steps, `accumulate` from the first or the second on. A K-major or,
// `transposed`, M-major.
template <class T, int kColumns, bool transposed = false, uint32_t kWidth = 128>
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
          const uint32_t at = transposed ? place(k, r, kWidth, kStrideA, kLeadingA)
                                         : place(r, k, kWidth, kStrideA, kPanelA);
          put<kWidth>(at, narrow<T>(a[static_cast<size_t>(i)]));
        }
        for (int i = thread; i < kDepth * kN; i += kGroup) {
          const auto k = static_cast<uint32_t>(i / kN), n = static_cast<uint32_t>(i % kN);
          put<kWidth>(kFirstB + place(n, k, kWidth, kStrideB, kPanelB),
                      narrow<T>(b[static_cast<size_t>(i)]));
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
          const uint32_t at_b = kFirstB + place(0, 16 * k, kWidth, kStrideB, kPanelB);
          const uint64_t columns = descriptor<kWidth>(at_b, 16, kStrideB);
          if constexpr (transposed) {
            const uint32_t leading = kWidth == 128 ? 0 : kLeadingA;
            ptx::wgmma_ss_transposed<T>(d, descriptor<kWidth>(2 * kStrideA * k, leading, kStrideA),
                                        columns);
          } else {
            const uint32_t at_a = place(0, 16 * k, kWidth, kStrideA, kPanelA);
            ptx::wgmma_ss<T>(d, descriptor<kWidth>(at_a, 16, kStrideA), columns, from_c || k > 0);
          }
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
      kGroup, 1, 96 << 10);
  compare<kColumns>("ss", a, b, c, out);
}

template <class T, int kColumns, uint32_t kWidth = 128>
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
          put<kWidth>(place(k, n, kWidth, kStrideB, kLeadingB),
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
                           descriptor<kWidth>(step * 2 * kStrideB, kLeadingB, kStrideB));
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

}  // namespace

CASE(wgmma_ss_bf16_n16) {
  in_every_schedule([] { check_ss<bf16, 2>(false); });
  in_every_schedule([] { check_ss<bf16, 2>(true); });
}
CASE(wgmma_ss_fp16_n16) {
  in_every_schedule([] { check_ss<fp16, 2>(false); });
}
CASE(wgmma_ss_transposed_bf16_n16) {
  in_every_schedule([] { check_ss<bf16, 2, true>(true); });
}
CASE(wgmma_ss_transposed_fp16_n16) {
  in_every_schedule([] { check_ss<fp16, 2, true>(true); });
}
CASE(wgmma_ss_bf16_n64) {
  in_every_schedule([] { check_ss<bf16, 8>(false); });
  in_every_schedule([] { check_ss<bf16, 8>(true); });
}
CASE(wgmma_ss_fp16_n64) {
  in_every_schedule([] { check_ss<fp16, 8>(false); });
}
CASE(wgmma_ss_bf16_n96) {
  in_every_schedule([] { check_ss<bf16, 12>(true); });
}
CASE(wgmma_ss_fp16_n96) {
  in_every_schedule([] { check_ss<fp16, 12>(false); });
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
CASE(wgmma_rs_fp16_n96) {
  in_every_schedule([] { check_rs<fp16, 12>(); });
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
CASE(wgmma_ss_bf16_rows_of_64) {
  in_every_schedule([] { check_ss<bf16, 16, false, 64>(false); });
  in_every_schedule([] { check_ss<bf16, 1, false, 64>(true); });
}
CASE(wgmma_ss_transposed_fp16_rows_of_64) {
  in_every_schedule([] { check_ss<fp16, 2, true, 64>(true); });
}
CASE(wgmma_rs_bf16_rows_of_64) {
  in_every_schedule([] { check_rs<bf16, 12, 64>(); });
}
