// emulator_wgmma.h: what the cases of wgmma share: swizzled tiles, one product, a warpgroup's runs.
#pragma once

#include <cstring>
#include <string>
#include <vector>

#include "emulator_unit.h"
#include "pod/ptx/wgmma.cuh"

namespace wgmma_unit {

using namespace unit;

constexpr int kGroup = 128;
constexpr size_t kSmem = 64 << 10;

template <class T>
inline uint16_t narrow(float x) {
  return static_cast<uint16_t>(ptx::pack2<T>(x, 0));
}

// The dynamic memory from its first shared address that is a multiple of 1024.
inline uint8_t* atoms() {
  POD_DYNAMIC_SMEM(smem);
  return smem + (1024 - ptx::smem_address(smem) % 1024) % 1024;
}

// Puts an element where a swizzled tile has it, whose rows have kRowBytes; `linear` counts from
// atoms().
template <uint32_t kRowBytes = 128>
void put(uint32_t linear, uint16_t bits) {
  constexpr uint32_t kChunks = kRowBytes / 16;
  const uint32_t chunk = linear / 16 % kChunks ^ linear / 128 % kChunks;
  std::memcpy(atoms() + linear / kRowBytes * kRowBytes + chunk * 16 + linear % 16, &bits, 2);
}

template <int kRowBytes = 128>
uint64_t descriptor(uint32_t at, uint32_t leading, uint32_t stride) {
  return ptx::wgmma_descriptor<kRowBytes>(ptx::smem_address(atoms()) + at, leading, stride);
}

// Two tiles of zeros, made by each thread's share of plain stores and closed by a barrier.
inline void clear_tiles() {
  for (int i = thread_index(); i < 16384; i += kGroup) atoms()[i] = 0;
  ptx::fence_proxy_async();
  ptx::sync_cta();
}

// A[0][0] of the first tile, and B of the second all ones in row 0 of k.
inline void set_product(float x) {
  if (thread_index() == 0) put(0, narrow<bf16>(x));
  for (uint32_t n = 0; n < 64; ++n) {
    if (thread_index() == 0) put(8192 + n / 8 * 1024 + n % 8 * 128, narrow<bf16>(1));
  }
  ptx::fence_proxy_async();
  ptx::sync_cta();
}

inline void issue(float (&d)[8][4], bool accumulate = false) {
  ptx::wgmma_ss<bf16>(d, descriptor(0, 16, 1024), descriptor(8192, 16, 1024), accumulate);
}

inline void copy_16(uint32_t at, const void* source) {
  ptx::cp_async_16(ptx::smem_address(atoms()) + at, source, true);
  ptx::cp_async_commit();
}

template <class Body>
inline void expect_group_runs(Body body) {
  expect_runs(body, kGroup, 1, kSmem);
}

template <class Body>
inline void expect_group_error(std::vector<std::string> parts, Body body) {
  expect_error(
      parts,
      [&] {
        clear_tiles();
        body();
      },
      kGroup, kSmem);
}

alignas(16) inline const uint16_t twos[8] = {0x4000, 0x4000, 0x4000, 0x4000,
                                             0x4000, 0x4000, 0x4000, 0x4000};  // bf16

template <class Check>
void in_every_schedule(Check check) {
  for (int order = kAscending; order <= kRandom; ++order) {
    for (int copies : {kLandAtWait, kLandAtIssue}) {
      configure(order, copies, 20);
      check();
    }
  }
}

}  // namespace wgmma_unit
