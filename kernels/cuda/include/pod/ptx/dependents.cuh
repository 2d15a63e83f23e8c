// dependents.cuh: a launch whose CTAs may start before those of the launch before have ended.
//
// ptx/launch.cuh's launch_dependent() asks for it; without it, and before sm_90, both do nothing.
// Source: PTX ISA 8.5, 9.7.13.13, griddepcontrol.
#pragma once

#include "pod/ptx/platform.cuh"

namespace pod::ptx {

#ifdef __CUDACC__

// griddepcontrol.launch_dependents: the CTA has nothing against a dependent launch that starts.
// Once all CTAs have said so or ended, its CTAs take what room there is on the SMs.
POD_DEVICE void let_dependents_start() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;");
#endif
}

// griddepcontrol.wait: until the launch before has ended and all that it wrote can be read. Every
// thread calls it, also one that reads nothing: what is launched next waits for this launch alone.
POD_DEVICE void wait_for_launch_before() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

#else

inline void let_dependents_start() {}
inline void wait_for_launch_before() { emulator::wait_for_launch_before(); }

#endif

}  // namespace pod::ptx
