// wgmma_product.cpp: what one wgmma adds to the 16 rows of D that a warp holds.

#include <cstring>

#include "engine.h"
#include "matrix.h"

namespace pod::emulator {
namespace {

template <bool is_bf16>
void load(const void* bytes, Float8& out) {
  Half8 chunk;
  std::memcpy(&chunk, bytes, sizeof chunk);
  widen<is_bf16>(chunk, out);
}

template <bool is_bf16>
void load_a(const Warp& warp, const Wgmma& op, Float8 (&a)[kWgmmaRows][2]) {
  for (unsigned half = 0; half < 2; ++half) {
    for (unsigned row = 0; row < kWgmmaRows; ++row) {
      // As for mma, the words of one register over the lanes are an 8x8 block by rows.
      const void* chunk =
          op.form.a_in_registers
              ? static_cast<const void*>(&op.registers[2 * half + row / 8][row % 8 * 4])
              : op.a.at(op.a.along_k(first_wgmma_row(warp) + row, half));
      load<is_bf16>(chunk, a[row][half]);
    }
  }
}

// The same of A M-major.
template <bool is_bf16>
void load_a_m_major(const Warp& warp, const Wgmma& op, Float8 (&a)[kWgmmaRows][2]) {
  for (unsigned half = 0; half < 2; ++half) {
    for (unsigned tile = 0; tile < 2; ++tile) {
      Matrix block;
      for (unsigned k = 0; k < 8; ++k) {
        const uint32_t address = op.a.along_n(8 * half + k, first_wgmma_row(warp) / 8 + tile);
        std::memcpy(&block.rows[k], op.a.at(address), 16);
      }
      transpose(block);
      for (unsigned row = 0; row < 8; ++row)
        widen<is_bf16>(block.rows[row], a[8 * tile + row][half]);
    }
  }
}

// Rows k of B in column tile n.
template <bool is_bf16>
void load_b(const Wgmma& op, unsigned n, Float8 (&b)[16]) {
  if (op.form.a_in_registers) {
    for (unsigned k = 0; k < 16; ++k) load<is_bf16>(op.b.at(op.b.along_n(k, n)), b[k]);
    return;
  }
  for (unsigned half = 0; half < 2; ++half) {
    Matrix block;
    for (unsigned row = 0; row < 8; ++row) {
      std::memcpy(&block.rows[row], op.b.at(op.b.along_k(8 * n + row, half)), 16);
    }
    transpose(block);
    for (unsigned k = 0; k < 8; ++k) widen<is_bf16>(block.rows[k], b[8 * half + k]);
  }
}

template <bool is_bf16>
void multiply(const Warp& warp, const Wgmma& op) {
  Float8 a[kWgmmaRows][2], b[16], sums[8];
  if (op.form.a_m_major) {
    load_a_m_major<is_bf16>(warp, op, a);
  } else {
    load_a<is_bf16>(warp, op, a);
  }
  const auto* scalars = reinterpret_cast<const float (*)[16]>(a);
  for (int n = 0; n < op.form.columns; ++n) {
    load_b<is_bf16>(op, static_cast<unsigned>(n), b);
    for (int half = 0; half < 2; ++half) {
      float* values = &op.d->values[n][half][0][0];
      std::memcpy(sums, values, sizeof sums);
#pragma GCC unroll 16
      for (int k = 0; k < 16; ++k) {
#pragma GCC unroll 8  // sums stay in registers
        for (int row = 0; row < 8; ++row) sums[row] += scalars[8 * half + row][k] * b[k];
      }
      std::memcpy(values, sums, sizeof sums);
    }
  }
}

}  // namespace

void execute_wgmma(const Warp& warp, Wgmma& op) {
  if (!op.form.accumulate) {
    std::memset(op.d->values, 0, static_cast<size_t>(op.form.columns) * sizeof op.d->values[0]);
  }
  if (op.form.is_bf16) {
    multiply<true>(warp, op);
  } else {
    multiply<false>(warp, op);
  }
  op.executed = true;
}

}  // namespace pod::emulator
