// emulator_boxes.h: what the cases of mbarriers and boxes share: a pool, its map, one barrier.
#pragma once

#include <string>
#include <vector>

#include "emulator_wgmma.h"
#include "pod/ptx/box_copy.cuh"
#include "pod/ptx/mbarrier.cuh"
#include "pod/ptx/shared.cuh"

namespace box_unit {

using namespace wgmma_unit;

// [kPages, kSlots, kHeads, kColumns] with rows between the pages that belong to nobody.
constexpr int kPages = 3, kSlots = 16, kHeads = 2, kColumns = 128, kPageSlots = kSlots + 1;
constexpr int kRows = 16;
constexpr uint32_t kBoxBytes = kRows * 128;

struct Barriers {
  uint64_t full, free, spare;
};

// The element's bits say where it is from.
inline uint16_t element(int page, int slot, int head, int column) {
  return static_cast<uint16_t>((page * kSlots + slot) << 8 | head << 7 | column);
}

struct Pool {
  alignas(16) uint16_t elements[kPages][kPageSlots][kHeads][kColumns];
  ptx::TensorMap map;

  explicit Pool(int rows = kRows) {
    for (int page = 0; page < kPages; ++page) {
      for (int slot = 0; slot < kPageSlots; ++slot) {
        for (int head = 0; head < kHeads; ++head) {
          for (int column = 0; column < kColumns; ++column) {
            elements[page][slot][head][column] =
                slot < kSlots ? element(page, slot, head, column) : uint16_t{0xffff};
          }
        }
      }
    }
    expect(ptx::encode_boxes(&map, shape(), rows) == 0, "the map is made");
  }
  ptx::PagedPool shape() const {
    return {elements,
            kPages,
            kSlots,
            kHeads,
            kColumns,
            sizeof elements[0],
            sizeof elements[0][0],
            sizeof elements[0][0][0]};
  }
};

inline Pool& pool() {
  static Pool one;
  return one;
}

inline Barriers& barriers() {
  POD_STATIC_SMEM(Barriers, all);
  return all;
}
inline uint32_t full() { return ptx::smem_address(&barriers().full); }
inline uint32_t freed() { return ptx::smem_address(&barriers().free); }
inline uint32_t place(uint32_t box = 0) { return ptx::smem_address(atoms()) + box * kBoxBytes; }

// By thread 0; the others see them.
inline void init(int full_arrivals = 1, int free_arrivals = 1) {
  if (thread_index() == 0) {
    ptx::mbarrier_init(full(), full_arrivals);
    ptx::mbarrier_init(freed(), free_arrivals);
    ptx::mbarrier_publish();
  }
  ptx::sync_cta();
}

inline void issue_box(uint32_t to, int column = 0, int head = 0, int slot = 0, int page = 0) {
  ptx::copy_box(to, pool().map, column, head, slot, page, full());
}

// Element of row `row` of the box that landed at `box`.
inline uint16_t landed(uint32_t box, int row, int column) {
  const uint8_t* at = atoms() + box * kBoxBytes + row * 128 + ((column / 8 ^ row % 8) << 4);
  uint16_t bits;
  std::memcpy(&bits, at + column % 8 * 2, 2);
  return bits;
}

template <class Body>
inline void expect_box_error(std::vector<std::string> parts, Body body, int threads = 64) {
  pool();
  expect_error(parts, body, threads, kSmem);
}

}  // namespace box_unit
