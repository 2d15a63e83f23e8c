// registers.cuh: moves registers of a CTA from one warpgroup to another (sm_90a).
//
// All four warps of a warpgroup execute it with one count, and synchronize before the next move.
// ptxas ignores it unless __launch_bounds__ tells the count at launch.
#pragma once

#include "pod/ptx/platform.cuh"

namespace pod::ptx {

template <int count>
constexpr bool kIsRegisterCount = count % 8 == 0 && count >= 24 && count <= 256;

#ifdef __CUDACC__

// setmaxnreg.inc: waits until the CTA has so many to give; no fewer than the warp has.
template <int count>
POD_DEVICE void raise_registers() {
  static_assert(kIsRegisterCount<count>, "counts of registers are multiples of 8 in 24..256");
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(count) : "memory");
}

// setmaxnreg.dec: gives back what is above `count`; no more than the warp has.
template <int count>
POD_DEVICE void lower_registers() {
  static_assert(kIsRegisterCount<count>, "counts of registers are multiples of 8 in 24..256");
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(count) : "memory");
}

#else

template <int count>
inline void raise_registers() {
  static_assert(kIsRegisterCount<count>, "counts of registers are multiples of 8 in 24..256");
  emulator::raise_registers(count);
}
template <int count>
inline void lower_registers() {
  static_assert(kIsRegisterCount<count>, "counts of registers are multiples of 8 in 24..256");
  emulator::lower_registers(count);
}

#endif

}  // namespace pod::ptx
