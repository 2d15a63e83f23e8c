// wgmma.h: asynchronous products of a warp: operands, the queue, and the registers in flight.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

namespace pod::emulator {

constexpr int kGroupWarps = 4;  // of a warpgroup
constexpr int kMaxColumnTiles = 32;

// What an instruction says besides its operands; the same in all threads of the warpgroup.
struct WgmmaForm {
  uint64_t a, b;  // descriptors; a is 0 for A in registers
  int columns;    // tiles of 8
  bool is_bf16, a_in_registers, accumulate;
  bool a_m_major = false;
};

struct WgmmaSlots {
  WgmmaForm form[32];
  uint8_t* d[32];  // the lanes' registers
  const uint8_t* a_at[32];
  uint32_t a[4][32];
  int pending[32];
};

// An operand in shared memory, as its descriptor says.
struct SharedTile {
  const uint8_t* memory;  // of the address `base`
  uint32_t base;
  uint32_t first, end;  // shared addresses that it lies between
  uint32_t start, leading, stride, row_bytes;

  // Shared address of columns 8 * chunk.. of k of row `row`; K-major.
  uint32_t along_k(unsigned row, unsigned chunk) const {
    return swizzled(start + row / 8 * stride + row % 8 * row_bytes + chunk * 16);
  }
  // Shared address of columns 8 * tile.. of n of row k; N-major, or of m of A, M-major.
  uint32_t along_n(unsigned k, unsigned tile) const {
    const uint32_t tiles = row_bytes / 16;
    return swizzled(start + tile / tiles * leading + k / 8 * stride + k % 8 * row_bytes +
                    tile % tiles * 16);
  }
  const uint8_t* at(uint32_t address) const { return memory + (address - base); }

 private:
  uint32_t swizzled(uint32_t address) const { return address ^ (address >> 3 & (row_bytes - 16)); }
};

// Accumulators that instructions in flight write. The lanes see poison meanwhile.
struct Accumulators {
  uint8_t* lanes[32];
  int columns;
  int writers;                                         // in flight; 0: free
  alignas(64) float values[kMaxColumnTiles][2][8][8];  // by column tile: rows 0-7, rows 8-15
};

struct Wgmma {
  WgmmaForm form;
  SharedTile a, b;
  uint32_t registers[4][32];
  Accumulators* d;
  int group;
  bool executed;
};

// Registers that an instruction has used and another may use again. Whoever writes them in between
// must fence after it.
struct Watched {
  const uint8_t* lanes[32];
  size_t bytes;  // of a lane
  bool fenced;   // at_fence holds their content at the last fence
  std::vector<uint8_t> at_fence;

  void remember();
};

// Of one warp, oldest first, from `done` on.
struct WgmmaQueue {
  std::vector<Wgmma> issued;
  size_t done = 0;
  int group = 0;        // of what is issued now
  bool fenced = false;  // since the last wait
  unsigned count = 0;   // of all that the warp issued
  std::vector<std::unique_ptr<Accumulators>> accumulators;
  std::vector<Watched> watched;
};

// What a warp of a warpgroup issued as its instruction number `count`; the others must do the same.
struct GroupStep {
  unsigned count = 0;
  WgmmaForm form{};
};
constexpr unsigned kGroupSteps = 32;  // that are remembered

}  // namespace pod::emulator
