// launch.cuh: what the host asks of the driver, or of the emulated SMs.
#pragma once

#include <vector>

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

// Whether GPU and driver let launches overlap, also in a graph.
inline bool may_overlap() {
  constexpr int kArchitectures[] = {__CUDA_ARCH_LIST__}, kFirstDriver = 12030;
  int driver = 0;
  return kArchitectures[0] >= 900 && cudaDriverGetVersion(&driver) == cudaSuccess &&
         driver >= kFirstDriver;
}

// As launch(), without dynamic shared memory: its CTAs may start before the launch before on the
// stream has ended (dependents.cuh), where they may.
template <typename Kernel, typename Arguments>
Error launch_dependent(Kernel kernel, int grid, int threads, void* stream,
                       const Arguments& arguments) {
  cudaLaunchAttribute overlap{};
  overlap.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  overlap.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config{};
  config.gridDim = grid;
  config.blockDim = threads;
  config.stream = static_cast<cudaStream_t>(stream);
  config.attrs = &overlap;
  static const bool overlaps = may_overlap();
  config.numAttrs = overlaps ? 1 : 0;
  return cudaLaunchKernelEx(&config, kernel, arguments);
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

// What a merge reads of the launch before; of rows of O as much as the narrowest have.
inline std::vector<emulator::Handed> handed_over(const KernelArguments& a) {
  constexpr size_t kLeastHeadDim = 64;
  const auto rows = static_cast<size_t>(reinterpret_cast<const PlanHeader*>(a.plan)->partial_rows);
  return {{a.partial_sums, rows * sizeof(RowSums)},
          {a.partial_o, rows * kLeastHeadDim * sizeof(float)}};
}
template <typename Arguments>
std::vector<emulator::Handed> handed_over(const Arguments&) {
  return {};
}

// What is handed over reads as NaN until a thread has waited for the launch before.
template <typename Kernel, typename Arguments>
Error launch_dependent(Kernel kernel, int grid, int threads, void*, const Arguments& arguments) {
  return emulator::launch_dependent(kernel, grid, threads, handed_over(arguments), arguments);
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
