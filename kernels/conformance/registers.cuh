// registers.cuh: runs the wrappers of ptx/registers.cuh, where POD_CONFORMANCE_WGMMA says that the
// target has them.
//
// CTA    two warpgroups; the first gives registers that the second takes
#pragma once

#include "pod/ptx/launch.cuh"
#include "pod/ptx/registers.cuh"
#include "sections.cuh"

namespace pod {
namespace {

constexpr int kFew = 56, kMany = 200;  // of 128 at launch: together no more than that

// Values that lie in registers while `move` changes how many there are.
template <typename Move>
POD_DEVICE void dump_held(uint32_t* out, const uint32_t* words, int thread, Move move) {
  uint32_t held[kHeld];
  POD_UNROLL
  for (int i = 0; i < kHeld; ++i) {
    held[i] = static_cast<uint32_t>(ptx::forget(static_cast<int>(words[i * kThreads + thread])));
  }
  move();
  POD_UNROLL
  for (int i = 0; i < kHeld; ++i) out[i * kThreads + thread] = held[i];
}

template <int threads>
POD_GLOBAL(threads, 2)
registers_kernel(const POD_GRID_CONSTANT ConformanceArguments a) {
  const int thread = ptx::thread_index();
  if (thread < kThreads) {
    dump_held(section<kLowerRegisters>(a), a.words, thread, [] { ptx::lower_registers<kFew>(); });
  } else {
    dump_held(section<kRaiseRegisters>(a), a.words, thread - kThreads,
              [] { ptx::raise_registers<kMany>(); });
  }
}

// Nothing without setmaxnreg: what is not instantiated is not compiled.
template <int tiles = kTiles>
ptx::Error launch_registers(const ConformanceArguments& a) {
  ptx::Error code{};
  if constexpr (tiles > 0) {
    code = ptx::launch(registers_kernel<2 * kThreads>, 1, 2 * kThreads, 0, a.stream, a);
  }
  return code;
}

}  // namespace
}  // namespace pod
