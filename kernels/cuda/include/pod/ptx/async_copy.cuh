// async_copy.cuh: cp.async, 16 bytes from global to shared memory without registers (sm_80+).
#pragma once

#include "pod/ptx/platform.cuh"

namespace pod::ptx {

#ifdef __CUDACC__

// 32-bit address of a shared-memory object, as the instructions below take it.
POD_DEVICE uint32_t smem_address(const void* object) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(object));
}

// cp.async.cg: past L1. Both addresses 16-byte aligned; writes zeros and reads nothing if !valid.
POD_DEVICE void cp_async_16(uint32_t smem, const void* gmem, bool valid) {
  asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16, %2;" ::"r"(smem), "l"(gmem),
               "r"(valid ? 16 : 0)
               : "memory");
}

POD_DEVICE void cp_async_16(uint32_t smem, const void* gmem) {
  asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16;" ::"r"(smem), "l"(gmem)
               : "memory");
}

// Closes the thread's current group of copies; a group may be empty.
POD_DEVICE void cp_async_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }

// Returns when at most `pending` of the thread's newest groups are still in flight. Other threads
// see the bytes after a barrier only.
template <int pending>
POD_DEVICE void cp_async_wait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(pending) : "memory");
}

#else

inline uint32_t smem_address(const void* object) { return emulator::smem_address(object); }
inline void cp_async_16(uint32_t smem, const void* gmem, bool valid) {
  emulator::cp_async_16(smem, gmem, valid);
}
inline void cp_async_16(uint32_t smem, const void* gmem) {
  emulator::cp_async_16(smem, gmem, true);
}
inline void cp_async_commit() { emulator::cp_async_commit(); }
template <int pending>
inline void cp_async_wait() {
  emulator::cp_async_wait(pending);
}

#endif

}  // namespace pod::ptx
