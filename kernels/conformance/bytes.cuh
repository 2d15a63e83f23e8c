// bytes.cuh: dumps of what orders and widens bytes.
#pragma once

#include "pod/layout/bytes.cuh"
#include "sections.cuh"

namespace pod {
namespace {

// Every byte at every place of a word: widened by the instruction and without it.
POD_DEVICE void dump_bytes(const ConformanceArguments& a, int thread) {
  for (uint32_t i = thread; i < kE4m3; i += kThreads) {
    const uint32_t word = i | ((i + 1) & 255) << 8 | ((i + 77) & 255) << 16 | ((i * 3) & 255) << 24;
    uint32_t* ordered = section<kOrderBytes>(a) + 4 * i;
    ordered[0] = word;
    ordered[1] = ptx::order_bytes<0x1404>(word);
    ordered[2] = ptx::order_bytes<0x3424>(word);
    ordered[3] = ptx::order_bytes<0x3120>(word);
    section<kWidenedByBits>(a)[2 * i] = layout::widen2_by_bits<0>(word);
    section<kWidenedByBits>(a)[2 * i + 1] = layout::widen2_by_bits<1>(word);
    if constexpr (kWidened > 0) {
      section<kWiden2>(a)[2 * i] = layout::widen2<0>(word);
      section<kWiden2>(a)[2 * i + 1] = layout::widen2<1>(word);
    }
  }
}

}  // namespace
}  // namespace pod
