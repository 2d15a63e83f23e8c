// matrix.h: 8x8 blocks of 16-bit elements in vector registers.
#pragma once

#include <cstdint>
#include <cstring>

#ifdef __F16C__
#include <immintrin.h>
#endif

namespace pod::emulator {

using Half8 = uint16_t __attribute__((vector_size(16)));
using Word8 = uint32_t __attribute__((vector_size(32)));
using Float8 = float __attribute__((vector_size(32)));

// An 8x8 matrix of 16-bit elements, by rows; unaligned because rows lie anywhere in shared memory.
struct Matrix {
  Half8 rows[8];
};

// Interleaving rows i and i + 4 rotates the six index bits (row, column) by one; three times swaps
// row and column.
inline void interleave(const Matrix& from, Matrix& to) {
  for (int i = 0; i < 4; ++i) {
    const Half8 low = from.rows[i], high = from.rows[i + 4];
    to.rows[2 * i] = __builtin_shufflevector(low, high, 0, 8, 1, 9, 2, 10, 3, 11);
    to.rows[2 * i + 1] = __builtin_shufflevector(low, high, 4, 12, 5, 13, 6, 14, 7, 15);
  }
}

inline void transpose(Matrix& matrix) {
  Matrix once, twice;
  interleave(matrix, once);
  interleave(once, twice);
  interleave(twice, matrix);
}

template <bool is_bf16>
inline void widen(const Half8& row, Float8& out) {
  if constexpr (is_bf16) {
    const Word8 words = __builtin_convertvector(row, Word8) << 16;
    std::memcpy(&out, &words, sizeof out);
    return;
  }
#ifdef __F16C__
  const __m256 floats = _mm256_cvtph_ps(reinterpret_cast<const __m128i&>(row));
  std::memcpy(&out, &floats, sizeof out);
#else
  _Float16 elements[8];
  std::memcpy(elements, &row, sizeof elements);
  for (int i = 0; i < 8; ++i) out[i] = static_cast<float>(elements[i]);
#endif
}

}  // namespace pod::emulator
