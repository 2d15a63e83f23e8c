// emulator_matrices.cpp: matrices that the emulated GPU stores into shared memory (stmatrix).

#include <cstring>
#include <string>

#include "emulator_unit.h"

using namespace unit;

namespace {

uint16_t element_at(const uint8_t* row, int column) {
  uint16_t bits;
  std::memcpy(&bits, row + 2 * column, 2);
  return bits;
}

// Element (r, c) of matrix i is 64 * i + 8 * r + c.
void fragment(uint32_t (&tiles)[4]) {
  const auto lane = static_cast<uint32_t>(thread_index() % 32);
  for (uint32_t i = 0; i < 4; ++i) {
    const uint32_t low = 64 * i + lane / 4 * 8 + lane % 4 * 2;
    tiles[i] = low | (low + 1) << 16;
  }
}

// Where row j of matrix i goes: any place that no other has.
uint32_t place(uint32_t i, uint32_t j) { return 128 * j + 16 * (i ^ j % 8); }

// The lower lanes store four matrices while the others do something else.
template <typename Other>
void half_a_warp_stores(Other other) {
  POD_DYNAMIC_SMEM(smem);
  uint32_t tiles[4];
  fragment(tiles);
  if (thread_index() < 16) {
    ptx::stmatrix_x4_trans(ptx::smem_address(smem), tiles);
  } else {
    other(ptx::smem_address(smem));
  }
}

}  // namespace

CASE(stmatrix_trans_stores_columns_as_rows) {
  for (int order = kAscending; order <= kRandom; ++order) {
    configure(order);
    expect_runs([] {
      POD_DYNAMIC_SMEM(smem);
      const auto lane = static_cast<uint32_t>(thread_index());
      uint32_t tiles[4], back[4];
      fragment(tiles);
      const uint32_t row = ptx::smem_address(smem) + place(lane / 8, lane % 8);
      ptx::stmatrix_x4_trans(row, tiles);
      ptx::sync_warp();
      for (int c = 0; c < 8; ++c) {
        const int matrix = thread_index() / 8, j = thread_index() % 8;
        const uint16_t got =
            element_at(smem + place(static_cast<uint32_t>(matrix), static_cast<uint32_t>(j)), c);
        expect(got == 64 * matrix + 8 * c + j, "row " + std::to_string(thread_index()));
      }
      ptx::ldmatrix_x4_trans(back, row);
      for (int i = 0; i < 4; ++i) expect(back[i] == tiles[i], "ldmatrix brings them back");
    });
  }
}

CASE(stmatrix_of_two_matrices_takes_the_addresses_of_half_a_warp) {
  for (int order = kAscending; order <= kRandom; ++order) {
    configure(order);
    expect_runs([] {
      POD_DYNAMIC_SMEM(smem);
      const auto lane = static_cast<uint32_t>(thread_index());
      if (lane < 16) std::memset(smem + place(2 + lane / 8, lane % 8), 0, 16);
      ptx::sync_warp();
      uint32_t tiles[4];
      fragment(tiles);
      // The others' are no addresses at all.
      const uint32_t row = lane < 16 ? ptx::smem_address(smem) + place(lane / 8, lane % 8) : 8;
      ptx::stmatrix_x2_trans(row, {tiles[0], tiles[1]});
      ptx::sync_warp();
      for (int c = 0; c < 8; ++c) {
        const int want =
            lane < 16 ? 64 * static_cast<int>(lane / 8) + 8 * c + thread_index() % 8 : 0;
        expect(element_at(smem + place(lane / 8, lane % 8), c) == want,
               "row " + std::to_string(thread_index()));
      }
    });
  }
}

CASE(stmatrix_of_two_and_of_four_matrices_in_one_warp) {
  expect_error({"divergent warp", "stmatrix.x4.trans", "stmatrix.x2.trans"}, [] {
    half_a_warp_stores([](uint32_t smem) { ptx::stmatrix_x2_trans(smem, {0, 0}); });
  });
}

CASE(stmatrix_is_counted_with_its_wavefronts_beyond_the_first) {
  auto extra = [](auto address_of) {
    int64_t counts[16];
    pod_emulator_stats(counts, 1);
    expect_runs([&] {
      POD_DYNAMIC_SMEM(smem);
      const auto lane = static_cast<uint32_t>(thread_index());
      uint32_t tiles[4];
      fragment(tiles);
      ptx::stmatrix_x4_trans(ptx::smem_address(smem) + address_of(lane / 8, lane % 8), tiles);
    });
    pod_emulator_stats(counts, 1);
    expect(counts[12] == 1, "one of the warp: " + std::to_string(counts[12]));
    return counts[13];
  };
  expect(extra([](uint32_t, uint32_t row) { return 128 * row; }) == 4 * 7, "rows of 128 bytes");
  expect(extra([](uint32_t i, uint32_t j) { return place(i, j); }) == 0, "swizzled rows");
}

CASE(stmatrix_outside_shared_memory_or_misaligned) {
  expect_error({"stmatrix: shared address", "multiple of 16"}, [] {
    POD_DYNAMIC_SMEM(smem);
    uint32_t tiles[4];
    fragment(tiles);
    ptx::stmatrix_x4_trans(ptx::smem_address(smem) + 8, tiles);
  });
  expect_error({"stmatrix: shared address", "end within 4096 bytes"}, [] {
    POD_DYNAMIC_SMEM(smem);
    uint32_t tiles[4];
    fragment(tiles);
    const uint32_t last = thread_index() == 31 ? 4096 : 0;
    ptx::stmatrix_x4_trans(ptx::smem_address(smem) + last, tiles);
  });
}

CASE(stmatrix_in_divergent_code) {
  expect_error({"divergent warp", "stmatrix.x4.trans", "sync_warp"},
               [] { half_a_warp_stores([](uint32_t) { ptx::sync_warp(); }); });
}
