// launch.cuh: starts a kernel on a stream, or on the emulated SMs.
#pragma once

#include "pod/ptx/platform.cuh"

namespace pod::ptx {

#ifdef __CUDACC__

using Error = cudaError_t;
inline const char* error_text(Error error) { return cudaGetErrorString(error); }

template <typename Kernel, typename Arguments>
Error launch(Kernel kernel, int grid, int threads, int smem, void* stream,
             const Arguments& arguments) {
  kernel<<<grid, threads, smem, static_cast<cudaStream_t>(stream)>>>(arguments);
  return cudaGetLastError();
}

inline Error clear(void* memory, size_t bytes, void* stream) {
  return cudaMemsetAsync(memory, 0, bytes, static_cast<cudaStream_t>(stream));
}

#else

using Error = int;
inline const char* error_text(Error) { return emulator::error(); }

template <typename Kernel, typename Arguments>
Error launch(Kernel kernel, int grid, int threads, int smem, void*, const Arguments& arguments) {
  return emulator::launch(kernel, grid, threads, smem, arguments);
}

inline Error clear(void* memory, size_t bytes, void*) {
  std::memset(memory, 0, bytes);
  return 0;
}

#endif

}  // namespace pod::ptx
