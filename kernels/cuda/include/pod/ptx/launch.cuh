// launch.cuh: what the host asks of the driver, or of the emulated SMs.
#pragma once

#include "pod/arguments.h"
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

// Lets a kernel have so much dynamic shared memory, and its SM prefer that to cache. It belongs to
// the current device's context.
template <typename Kernel>
Error allow_smem(Kernel kernel, int bytes) {
  const Error code =
      cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
  if (code) return code;
  return cudaFuncSetAttribute(kernel, cudaFuncAttributePreferredSharedMemoryCarveout,
                              cudaSharedmemCarveoutMaxShared);
}

// SMs of a device; 0 if the driver does not say.
inline int sm_count(int device) {
  int count = 0;
  const Error code = cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, device);
  return code ? 0 : count;
}

// What the driver says of a kernel launched with so many threads and so much dynamic shared memory.
template <typename Kernel>
Error kernel_info(Kernel kernel, int threads, int smem, KernelInfo* out) {
  cudaFuncAttributes attributes;
  const Error code = cudaFuncGetAttributes(&attributes, kernel);
  if (code) return code;
  out->registers = attributes.numRegs;
  out->static_smem = static_cast<int>(attributes.sharedSizeBytes);
  out->dynamic_smem = smem;
  out->local_bytes = static_cast<int>(attributes.localSizeBytes);
  return cudaOccupancyMaxActiveBlocksPerMultiprocessor(&out->ctas_per_sm, kernel, threads, smem);
}

// Work on the side stream starts after what is on the main stream, and the main stream goes on
// after it; events belong to the call, so calls on other streams cannot meet them.
template <typename OnSide, typename OnMain>
Error fork_join(void* main_stream, void* side_stream, OnSide on_side, OnMain on_main) {
  const auto main = static_cast<cudaStream_t>(main_stream);
  const auto side = static_cast<cudaStream_t>(side_stream);
  cudaEvent_t fork = nullptr, join = nullptr;
  Error code = cudaEventCreateWithFlags(&fork, cudaEventDisableTiming);
  if (!code) code = cudaEventCreateWithFlags(&join, cudaEventDisableTiming);
  if (!code) code = cudaEventRecord(fork, main);
  if (!code) code = cudaStreamWaitEvent(side, fork, 0);
  if (!code) code = on_side();
  if (!code) code = on_main();
  if (!code) code = cudaEventRecord(join, side);
  if (!code) code = cudaStreamWaitEvent(main, join, 0);
  if (fork) cudaEventDestroy(fork);
  if (join) cudaEventDestroy(join);
  return code;
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

template <typename Kernel>
Error allow_smem(Kernel, int) {
  return 0;
}

inline int sm_count(int) { return static_cast<int>(emulator::nsmid()); }

template <typename Kernel>
Error kernel_info(Kernel, int, int smem, KernelInfo* out) {
  *out = {0, 0, smem, 0, 0};
  return 0;
}

template <typename OnSide, typename OnMain>
Error fork_join(void*, void*, OnSide on_side, OnMain on_main) {
  const Error code = on_side();
  return code ? code : on_main();
}

#endif

}  // namespace pod::ptx
