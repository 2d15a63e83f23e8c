// emulator_unit.h: named cases, run one after the other, each with the emulator set up afresh.
#pragma once

#include <cstdint>
#include <cstdio>
#include <string>
#include <vector>

#include "pod/ptx/async_copy.cuh"
#include "pod/ptx/ldmatrix.cuh"
#include "pod/ptx/math.cuh"
#include "pod/ptx/mma.cuh"
#include "pod/ptx/sync.cuh"

extern "C" {
void pod_emulator_configure(int num_sms, int ctas_per_sm, int order, int copies,
                            int preempt_percent, int seed);
const char* pod_emulator_error();
void pod_emulator_stats(int64_t* out16, int reset);
void* pod_emulator_guarded(int64_t bytes);
void pod_emulator_release(void* block, int64_t bytes);
}

namespace unit {

using namespace pod;
using ptx::cta_index;
using ptx::thread_index;

enum Order { kAscending, kDescending, kRandom };
enum Copies { kLandAtWait, kLandAtIssue };

struct Case {
  const char* name;
  void (*run)();
};

inline std::vector<Case>& cases() {
  static std::vector<Case> all;
  return all;
}

inline std::string& failure() {
  static std::string text;
  return text;
}

inline bool add(const char* name, void (*run)()) {
  cases().push_back({name, run});
  return true;
}

// Keeps the first text of a case that does not hold.
inline void expect(bool holds, const std::string& text) {
  if (!holds && failure().empty()) failure() = text;
}

inline void configure(int order, int copies = kLandAtWait, int preempt_percent = 0, int seed = 1,
                      int num_sms = 2, int ctas_per_sm = 2) {
  pod_emulator_configure(num_sms, ctas_per_sm, order, copies, preempt_percent, seed);
}

template <class Body>
int launch(Body body, int threads = 32, int grid = 1, size_t smem = 4096) {
  return emulator::launch(body, grid, threads, smem);
}

template <class Body>
void expect_runs(Body body, int threads = 32, int grid = 1, size_t smem = 4096) {
  const int code = launch(body, threads, grid, smem);
  expect(code == 0, code ? pod_emulator_error() : "");
}

// In every order: the launch fails, the text has all of `parts`, and the next launch runs.
template <class Body>
void expect_error(std::vector<std::string> parts, Body body, int threads = 32, size_t smem = 4096) {
  for (int order = kAscending; order <= kRandom; ++order) {
    configure(order, kLandAtWait, order == kRandom ? 20 : 0, 3);
    const int code = launch(body, threads, 1, smem);
    const std::string text = pod_emulator_error();
    expect(code == 1, "order " + std::to_string(order) + ": no error");
    for (const std::string& part : parts) {
      expect(text.find(part) != std::string::npos,
             "order " + std::to_string(order) + ": no '" + part + "' in '" + text + "'");
    }
    expect_runs([] { ptx::sync_cta(); }, threads);
  }
}

}  // namespace unit

#define CASE(name)                                         \
  static void name();                                      \
  static const bool name##_added = unit::add(#name, name); \
  static void name()
