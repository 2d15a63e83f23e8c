// fma_block.h: the register-blocked product that both Q.K^T and P.V of a prefill item run on.
//
// Query rows are the vector dimension: S^T = K Q^T and O^T = V^T P^T read K and V as they lie, by
// broadcast, so neither is transposed, and the softmax needs no sum across lanes.
#pragma once

#include "pod/cpu/launch.h"
#include "pod/cpu/vec.h"

namespace pod::cpu::POD_ISA {

#if POD_ISA_AVX512
inline constexpr int kBlockRows = 8;  // 8 x 2 accumulators cover FMA latency x ports
#else
inline constexpr int kBlockRows = 4;  // 4 x 2 accumulators, 2 operands, 1 broadcast of 16
#endif
inline constexpr int kPanelVecs = 2;
inline constexpr int kPanelRows = kPanelVecs * kLanes;

// At once: about as many lines as a core has buffers for misses. One more and the loads of the
// products wait for memory; what is late is issued after later blocks, or read when it is used.
inline constexpr int kBurstBytes = 16 * 64;

// Out of line: inside the product's loops it would cost them registers.
__attribute__((noinline, cold)) inline void issue(Stream& stream) {
  int left = kBurstBytes;
  while (stream.credit >= kWholeRow && stream.next < stream.end && left > 0) {
    const char* row = *stream.next++;
    for (int i = 0; i < stream.row_bytes; i += 64) __builtin_prefetch(row + i, 0, 2);
    stream.credit -= kWholeRow;
    left -= stream.row_bytes;
  }
}

// Prefetches what is due after a block of `depth` multiply-adds. Between blocks, not within their
// loops: those keep the multipliers busy only while nothing interrupts them.
inline void step(Stream& stream, int depth) {
  stream.credit += stream.pace * depth;
  if (__builtin_expect(stream.credit >= kWholeRow, 0)) issue(stream);
}

// c[m][:] = alpha * c[m][:] + sum over k of a(m, k) * b[k][:], for kBlockRows values of m.
//
// a      kDepthMajor: a[k * a_stride + m], else a[m * a_stride + k]
// b      [depth][kVecs * kLanes]
// c      [kBlockRows][kVecs * kLanes]
// alpha  kVecs vectors, or null: c is written, not read
//
// The new products are added up before they meet c: c may be a sum of many such.
template <int kVecs, bool kDepthMajor>
inline void fma_block(const float* a, int a_stride, const float* b, int depth, const VecF* alpha,
                      float* c, Stream& stream) {
  VecF acc[kBlockRows][kVecs];
#pragma GCC unroll 8
  for (int m = 0; m < kBlockRows; ++m) {
#pragma GCC unroll 4
    for (int v = 0; v < kVecs; ++v) acc[m][v] = VecF{};
  }
#pragma GCC unroll 4
  for (int k = 0; k < depth; ++k) {
    VecF row[kVecs];
#pragma GCC unroll 4
    for (int v = 0; v < kVecs; ++v) row[v] = load(b + (k * kVecs + v) * kLanes);
#pragma GCC unroll 8
    for (int m = 0; m < kBlockRows; ++m) {
      const VecF x = broadcast(kDepthMajor ? a[k * a_stride + m] : a[m * a_stride + k]);
#pragma GCC unroll 4
      for (int v = 0; v < kVecs; ++v) acc[m][v] += row[v] * x;
    }
  }
#pragma GCC unroll 8
  for (int m = 0; m < kBlockRows; ++m) {
#pragma GCC unroll 4
    for (int v = 0; v < kVecs; ++v) {
      float* to = c + (m * kVecs + v) * kLanes;
      store(to, alpha ? load(to) * alpha[v] + acc[m][v] : acc[m][v]);
    }
  }
  step(stream, depth);
}

}  // namespace pod::cpu::POD_ISA
