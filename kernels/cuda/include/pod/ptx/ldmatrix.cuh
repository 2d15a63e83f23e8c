// ldmatrix.cuh: two or four 8x8 matrices of 16-bit elements between shared memory and MMA
// fragments.
//
// Lane 8 * i + j gives the 16-byte aligned address of row j of matrix i. Lane l receives in d[i]
// the elements (l / 4, 2 * (l % 4)) and (l / 4, 2 * (l % 4) + 1) of matrix i, low half first;
// `trans` swaps row and column. stmatrix (sm_90) goes the other way with the same lanes; of two
// matrices only the first 16 give addresses.
#pragma once

#include "pod/ptx/platform.cuh"

namespace pod::ptx {

#ifdef __CUDACC__

POD_DEVICE void ldmatrix_x4(uint32_t (&d)[4], uint32_t row_address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(d[0]), "=r"(d[1]), "=r"(d[2]), "=r"(d[3])
               : "r"(row_address)
               : "memory");
}

POD_DEVICE void ldmatrix_x4_trans(uint32_t (&d)[4], uint32_t row_address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(d[0]), "=r"(d[1]), "=r"(d[2]), "=r"(d[3])
               : "r"(row_address)
               : "memory");
}

// Row j of matrix i in memory is column j of its fragment.
POD_DEVICE void stmatrix_x4_trans(uint32_t row_address, const uint32_t (&tiles)[4]) {
  asm volatile(
      "stmatrix.sync.aligned.m8n8.x4.trans.shared.b16 [%0], {%1,%2,%3,%4};" ::"r"(row_address),
      "r"(tiles[0]), "r"(tiles[1]), "r"(tiles[2]), "r"(tiles[3])
      : "memory");
}

POD_DEVICE void stmatrix_x2_trans(uint32_t row_address, const uint32_t (&tiles)[2]) {
  asm volatile("stmatrix.sync.aligned.m8n8.x2.trans.shared.b16 [%0], {%1,%2};" ::"r"(row_address),
               "r"(tiles[0]), "r"(tiles[1])
               : "memory");
}

#else

inline void ldmatrix_x4(uint32_t (&d)[4], uint32_t row_address) {
  emulator::ldmatrix_x4(d, row_address, false);
}
inline void ldmatrix_x4_trans(uint32_t (&d)[4], uint32_t row_address) {
  emulator::ldmatrix_x4(d, row_address, true);
}
inline void stmatrix_x4_trans(uint32_t row_address, const uint32_t (&tiles)[4]) {
  emulator::stmatrix_trans(row_address, tiles);
}
inline void stmatrix_x2_trans(uint32_t row_address, const uint32_t (&tiles)[2]) {
  emulator::stmatrix_trans(row_address, tiles);
}

#endif

}  // namespace pod::ptx
