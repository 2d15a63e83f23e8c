// mma.cuh: D[16, 8] += A[16, 16] B[16, 8] on one warp, 16-bit inputs, fp32 sums (sm_80+).
//
// Lane l, g = l / 4, t = l % 4 holds (PTX ISA, mma.m16n8k16):
//   a[0] A[g][2t..]   a[1] A[g + 8][2t..]   a[2] A[g][2t + 8..]   a[3] A[g + 8][2t + 8..]
//   b0   B[2t..][g]   b1   B[2t + 8..][g]
//   c[0], c[1] C[g][2t, 2t + 1]             c[2], c[3] C[g + 8][2t, 2t + 1]
#pragma once

#include "pod/ptx/platform.cuh"

namespace pod::ptx {

#ifdef __CUDACC__

template <typename T>
POD_DEVICE void mma_m16n8k16(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1);

template <>
POD_DEVICE void mma_m16n8k16<bf16>(float (&c)[4], const uint32_t (&a)[4], uint32_t b0,
                                   uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
      "{%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

template <>
POD_DEVICE void mma_m16n8k16<fp16>(float (&c)[4], const uint32_t (&a)[4], uint32_t b0,
                                   uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
      "{%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

#else

template <typename T>
inline void mma_m16n8k16(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  emulator::mma_m16n8k16<T>(c, a, b0, b1);
}

#endif

}  // namespace pod::ptx
