// control.cpp: the C functions by which tests set up the emulator inside a variant's library.

#include <cstring>

#include "engine.h"

#define POD_EXPORT extern "C" __attribute__((visibility("default")))

using namespace pod::emulator;

// Applies to launches from now on. order: 0 ascending, 1 descending, 2 random; copies: 0 land at
// their wait and are poison until then, 1 land at issue.
POD_EXPORT void pod_emulator_configure(int num_sms, int ctas_per_sm, int order, int copies,
                                       int preempt_percent, int seed) {
  configure({num_sms, ctas_per_sm, static_cast<Order>(order), static_cast<Copies>(copies),
             preempt_percent, seed});
}

// Of the calling thread's last failed launch.
POD_EXPORT const char* pod_emulator_error() { return error(); }

// The fields of Statistics in their order, then zeros.
POD_EXPORT void pod_emulator_stats(int64_t* out16, int reset) {
  const Statistics statistics = take_statistics(reset != 0);
  static_assert(sizeof statistics <= 16 * sizeof(int64_t));
  std::memset(out16, 0, 16 * sizeof(int64_t));
  std::memcpy(out16, &statistics, sizeof statistics);
}

// Memory that ends, rounded up to 16 bytes, at an unreadable page; null when there is none left.
POD_EXPORT void* pod_emulator_guarded(int64_t bytes) {
  try {
    return allocate_guarded(static_cast<size_t>(bytes));
  } catch (const std::bad_alloc&) {
    return nullptr;
  }
}

POD_EXPORT void pod_emulator_release(void* block, int64_t bytes) {
  release_guarded(static_cast<uint8_t*>(block), static_cast<size_t>(bytes));
}
