// instructions.cpp: what a warp's collectives compute, once all operands are there.

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>
#include <limits>

#include "engine.h"
#include "matrix.h"

namespace pod::emulator {
namespace {

// Rows share a wavefront unless two different ones start in the same 16 of the 128 bytes that the
// banks deliver.
int wavefronts(const uint32_t* address) {
  unsigned groups = 0;
  for (int row = 0; row < 8; ++row) groups |= 1u << (address[row] / 16 % 8);
  if (groups == 0xff) return 1;
  int worst = 1, starts[8] = {};
  for (int row = 0; row < 8; ++row) {
    // One access serves all that name the same row.
    if (std::find(address, address + row, address[row]) != address + row) continue;
    worst = std::max(worst, ++starts[address[row] / 16 % 8]);
  }
  return worst;
}

// Eight rows of D += A B; a_low and a_high are their halves of A, 8 columns each.
template <bool is_bf16>
void multiply_half(const Matrix& a_low, const Matrix& a_high, const Float8 (&b)[16], float* c) {
  Float8 a[8][2], sums[8];
  std::memcpy(sums, c, sizeof sums);
  for (int row = 0; row < 8; ++row) {
    widen<is_bf16>(a_low.rows[row], a[row][0]);
    widen<is_bf16>(a_high.rows[row], a[row][1]);
  }
#pragma GCC unroll 16
  for (int k = 0; k < 16; ++k) {
#pragma GCC unroll 8  // sums stay in registers
    for (int row = 0; row < 8; ++row) sums[row] += a[row][k / 8][k % 8] * b[k];
  }
  std::memcpy(c, sums, sizeof sums);
}

// By the fragment layout of ptx/mma.cuh, the words of one register over the lanes are an 8x8 block
// by rows: of A, of B transposed, and, taken in pairs, of C.
template <bool is_bf16>
void multiply(MmaSlots& slots) {
  Matrix a[4], b[2];
  std::memcpy(a, slots.a, sizeof a);
  std::memcpy(b, slots.b, sizeof b);
  Float8 columns[16];
  for (int half = 0; half < 2; ++half) {
    transpose(b[half]);
    for (int k = 0; k < 8; ++k) widen<is_bf16>(b[half].rows[k], columns[8 * half + k]);
  }
  multiply_half<is_bf16>(a[0], a[2], columns, &slots.c[0][0][0]);
  multiply_half<is_bf16>(a[1], a[3], columns, &slots.c[1][0][0]);
}

float flush(float x) {
  return std::fabs(x) < std::numeric_limits<float>::min() ? std::copysign(0.0f, x) : x;
}

}  // namespace

void run_ldmatrix(Warp& warp, bool trans) {
  LdmatrixSlots& slots = warp.ldmatrix;
  for (int i = 0; i < 4; ++i) {
    Matrix matrix;
    for (int row = 0; row < 8; ++row) std::memcpy(&matrix.rows[row], slots.row[8 * i + row], 16);
    if (trans) transpose(matrix);
    // Lane 4 * row + t receives elements 2t, 2t + 1: a row is the words of four lanes in turn.
    std::memcpy(slots.d[i], &matrix, sizeof matrix);
    machine.statistics.ldmatrix_extra_wavefronts += wavefronts(&slots.address[8 * i]) - 1;
  }
  ++machine.statistics.ldmatrix;
}

void run_stmatrix(Warp& warp, int matrices) {
  StmatrixSlots& slots = warp.stmatrix;
  for (int i = 0; i < matrices; ++i) {
    Matrix matrix;
    std::memcpy(&matrix, slots.tiles[i], sizeof matrix);
    transpose(matrix);
    for (int row = 0; row < 8; ++row) std::memcpy(slots.row[8 * i + row], &matrix.rows[row], 16);
    machine.statistics.stmatrix_extra_wavefronts += wavefronts(&slots.address[8 * i]) - 1;
  }
  ++machine.statistics.stmatrix;
}

void run_mma(Warp& warp, bool is_bf16) {
  if (is_bf16) {
    multiply<true>(warp.mma);
  } else {
    multiply<false>(warp.mma);
  }
  ++machine.statistics.mma;
}

void run_shuffle(Warp& warp, Collective op) {
  ShuffleSlots& slots = warp.shuffle;
  uint32_t sent[kLanes];
  std::memcpy(sent, slots.value, sizeof sent);
  for (int lane = 0; lane < kLanes; ++lane) {
    if (op == Collective::kWarpUniform) {
      if (sent[lane] != sent[0]) {
        fail("warp_uniform: lane 0 has %d, lane %d has %d", static_cast<int>(sent[0]), lane,
             static_cast<int>(sent[lane]));
      }
      continue;
    }
    const int operand = slots.operand[lane];
    if (operand < 0 || operand >= kLanes) {
      fail("%s: lane %d names %d, lanes and masks are 0..31", name_of(op), lane, operand);
    }
    slots.value[lane] = sent[op == Collective::kShflXor ? lane ^ operand : operand];
  }
  ++machine.statistics.shuffles;
}

const char* name_of(Collective op) {
  switch (op) {
    case Collective::kNone:
      return "nothing";
    case Collective::kLdmatrix:
      return "ldmatrix";
    case Collective::kLdmatrixTrans:
      return "ldmatrix.trans";
    case Collective::kStmatrixX2Trans:
      return "stmatrix.x2.trans";
    case Collective::kStmatrixX4Trans:
      return "stmatrix.x4.trans";
    case Collective::kMmaBf16:
      return "mma (bf16)";
    case Collective::kMmaFp16:
      return "mma (fp16)";
    case Collective::kShflXor:
      return "shfl.bfly";
    case Collective::kShfl:
      return "shfl.idx";
    case Collective::kWarpUniform:
      return "warp_uniform";
    case Collective::kSyncWarp:
      return "sync_warp";
    case Collective::kBarrier:
      return "bar.sync";
    case Collective::kBarrierArrive:
      return "bar.arrive";
    case Collective::kSetmaxnreg:
      return "setmaxnreg";
    case Collective::kWgmma:
      return "wgmma";
    case Collective::kWgmmaFence:
      return "wgmma.fence";
    case Collective::kWgmmaCommit:
      return "wgmma.commit_group";
    case Collective::kWgmmaWait:
      return "wgmma.wait_group";
  }
  return "unknown";
}

float ex2(float x) { return flush(std::exp2(flush(x))); }
float lg2(float x) { return flush(std::log2(flush(x))); }
float rcp(float x) { return flush(1.0f / flush(x)); }

uint64_t globaltimer() {
  const auto now = std::chrono::steady_clock::now().time_since_epoch();
  return static_cast<uint64_t>(std::chrono::nanoseconds(now).count());
}

}  // namespace pod::emulator
