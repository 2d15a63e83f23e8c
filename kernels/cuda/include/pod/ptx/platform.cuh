// platform.cuh: one kernel source, two machines. nvcc compiles it for a GPU; a host compiler
// compiles it for the emulated SM of kernels/emulator, which tests use.
//
// Everything that differs is here or in the other headers of ptx/; nothing to the right of ptx/
// may test __CUDACC__ (a test says so).
#pragma once

#include <cstdint>

#ifdef __CUDACC__

#include <cuda_runtime.h>

#define POD_DEVICE __device__ __forceinline__
#define POD_GLOBAL(threads, ctas_per_sm) __global__ void __launch_bounds__(threads, ctas_per_sm)
// Not over-aligned: that would pad the CTA's static variables and can cost a resident CTA.
#define POD_DYNAMIC_SMEM(name) extern __shared__ __align__(16) uint8_t name[]
#define POD_STATIC_SMEM(type, name) __shared__ type name
#define POD_GRID_CONSTANT __grid_constant__
#define POD_UNROLL _Pragma("unroll")
#define POD_PRAGMA(text) _Pragma(#text)
#define POD_UNROLL_BY(count) POD_PRAGMA(unroll count)

namespace pod::ptx {

POD_DEVICE int thread_index() { return static_cast<int>(threadIdx.x); }
POD_DEVICE int cta_index() { return static_cast<int>(blockIdx.x); }
POD_DEVICE int cta_count() { return static_cast<int>(gridDim.x); }

// A value that is the same in all lanes of the warp, said so to the compiler.
POD_DEVICE int warp_uniform(int value) { return __shfl_sync(~0u, value, 0); }
POD_DEVICE uint32_t warp_uniform(uint32_t value) { return __shfl_sync(~0u, value, 0); }

// One instruction, where a comparison and a choice are two and take a detour through predicates.
POD_DEVICE float max(float a, float b) { return fmaxf(a, b); }

// Hides where a value came from: what is derived from it inside of a loop is worked out there,
// instead of being hoisted out of the loop and held in registers that accumulators need.
POD_DEVICE int forget(int value) {
  asm volatile("" : "+r"(value));
  return value;
}
POD_DEVICE uint32_t forget(uint32_t value) {
  asm volatile("" : "+r"(value));
  return value;
}
POD_DEVICE const char* forget(const char* value) {
  asm volatile("" : "+l"(value));
  return value;
}

}  // namespace pod::ptx

#else

#include "pod/emulator/machine.h"

#define POD_DEVICE inline
#define POD_GLOBAL(threads, ctas_per_sm) void
#define POD_DYNAMIC_SMEM(name) uint8_t* name = pod::emulator::dynamic_smem()
#define POD_STATIC_SMEM(type, name) \
  static const char name##_key = 0; \
  type& name =                      \
      *static_cast<type*>(pod::emulator::static_smem(&name##_key, sizeof(type), alignof(type)))
#define POD_GRID_CONSTANT
#define POD_UNROLL
#define POD_UNROLL_BY(count)

namespace pod::ptx {

inline int thread_index() { return pod::emulator::thread_index(); }
inline int cta_index() { return pod::emulator::cta_index(); }
inline int cta_count() { return pod::emulator::cta_count(); }
inline int warp_uniform(int value) { return pod::emulator::warp_uniform(value); }
inline uint32_t warp_uniform(uint32_t value) { return pod::emulator::warp_uniform(value); }
inline int forget(int value) { return value; }
inline uint32_t forget(uint32_t value) { return value; }
inline const char* forget(const char* value) { return value; }
inline float max(float a, float b) { return emulator::max(a, b); }

}  // namespace pod::ptx

#endif

namespace pod {

constexpr int kWarpSize = 32;

// Storage of one element; arithmetic goes through ptx/.
struct bf16 {
  uint16_t bits;
};
struct fp16 {
  uint16_t bits;
};
struct e4m3 {
  uint8_t bits;
};

// 16 bytes of plan data, read in one load on both machines.
struct alignas(16) Int4 {
  int x, y, z, w;
};

POD_DEVICE int min(int a, int b) { return a < b ? a : b; }
POD_DEVICE int max(int a, int b) { return a > b ? a : b; }
POD_DEVICE float max(float a, float b) { return ptx::max(a, b); }
POD_DEVICE int ceil_div(int a, int b) { return (a + b - 1) / b; }

}  // namespace pod
