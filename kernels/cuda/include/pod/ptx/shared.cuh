// shared.cuh: 16 bytes between shared memory and registers.
#pragma once

#include "pod/ptx/platform.cuh"

namespace pod::ptx {

#ifdef __CUDACC__

// st.shared.v4: `smem` is a multiple of 16. Other threads see it after a barrier only.
POD_DEVICE void st_shared_16(uint32_t smem, Int4 value) {
  asm volatile("st.shared.v4.b32 [%0], {%1,%2,%3,%4};" ::"r"(smem), "r"(value.x), "r"(value.y),
               "r"(value.z), "r"(value.w)
               : "memory");
}

// ld.shared.v4 from a multiple of 16.
POD_DEVICE Int4 ld_shared_16(uint32_t smem) {
  Int4 value;
  asm volatile("ld.shared.v4.b32 {%0,%1,%2,%3}, [%4];"
               : "=r"(value.x), "=r"(value.y), "=r"(value.z), "=r"(value.w)
               : "r"(smem)
               : "memory");
  return value;
}

#else

inline void st_shared_16(uint32_t smem, Int4 value) { emulator::st_shared_16(smem, &value); }
inline Int4 ld_shared_16(uint32_t smem) {
  Int4 value;
  emulator::ld_shared_16(&value, smem);
  return value;
}

#endif

}  // namespace pod::ptx
