// machine.h: the instructions of the emulated GPU, as pod/ptx/*.cuh call them without nvcc.
//
// A collective stores the lane's operands beside those of its warp, waits until all 32 lanes have
// arrived, and takes its result. Everything else takes effect at once in the calling lane.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "pod/emulator/fiber.h"
#include "pod/emulator/halves.h"
#include "pod/emulator/launch.h"
#include "pod/emulator/mbarrier.h"
#include "pod/emulator/state.h"

namespace pod {
namespace emulator {

// Marks the running lane as waiting at `op`, runs `op` if it was the last, and picks who runs now.
Lane& arrive(Lane& self, Collective op);
// Counts an atomic and may let another warp run first: what a GPU may do anywhere shows best there.
void before_atomic();
// The 16 bytes at a shared address, to be read by ldmatrix, or to be written by stmatrix.
const uint8_t* ldmatrix_row(uint32_t address);
uint8_t* stmatrix_row(uint32_t address);
void st_shared_16(uint32_t address, const void* bytes);
void ld_shared_16(void* bytes, uint32_t address);
// Ends the launch with this text and the thread's place.
[[noreturn]] void fail(const char* format, ...) __attribute__((format(printf, 1, 2)));

// A lane in the midst of its warp hands over to its neighbour; arrive() does the rest.
inline void collective(Lane& self, Collective op) {
#ifndef POD_EMULATOR_TSAN  // it would see lanes race for the state of their warp
  Warp& warp = *self.warp;
  // Guessed from the place in the order alone: a chain of loads here is what a switch costs.
  Lane& neighbour = warp.lanes[(static_cast<unsigned>(self.index) + warp.stride) % kLanes];
  if (warp.op == op && (warp.ready & neighbour.bit) && --machine.until_preemption > 0) {
    warp.ready &= ~self.bit;
    ++machine.statistics.switches;
    machine.current = &neighbour;
    return switch_context(self.context, neighbour.context);
  }
#endif
  Lane& next = arrive(self, op);
  switch_context(self.context, next.context);
}

inline int thread_index() { return machine.current->thread; }
inline int cta_index() { return machine.current->warp->cta->index; }
inline int cta_count() { return machine.grid; }
inline uint32_t smid() { return static_cast<uint32_t>(machine.current->warp->cta->smid); }
inline uint32_t nsmid() { return static_cast<uint32_t>(machine.configuration.num_sms); }
uint64_t globaltimer();

inline uint8_t* dynamic_smem() { return machine.current->warp->cta->dynamic; }
// The CTA's variable of this key; poisoned when the CTA starts.
void* static_smem(const void* key, size_t bytes, size_t alignment);
// Static variables and dynamic memory have different ranges of addresses, as on a GPU.
uint32_t smem_address(const void* object);

void cp_async_16(uint32_t smem, const void* gmem, bool valid);
inline void cp_async_commit() { ++machine.current->group; }
void cp_async_wait(int pending);

inline void ldmatrix_x4(uint32_t (&d)[4], uint32_t row_address, bool trans) {
  Lane& self = *machine.current;
  LdmatrixSlots& slots = self.warp->ldmatrix;
  slots.address[self.index] = row_address;
  slots.row[self.index] = ldmatrix_row(row_address);
  collective(self, trans ? Collective::kLdmatrixTrans : Collective::kLdmatrix);
  for (int i = 0; i < 4; ++i) d[i] = slots.d[i][self.index];
}

// Of kCount matrices; the first 8 * kCount lanes give addresses.
template <int kCount>
inline void stmatrix_trans(uint32_t row_address, const uint32_t (&tiles)[kCount]) {
  static_assert(kCount == 2 || kCount == 4, "stmatrix stores two or four matrices");
  Lane& self = *machine.current;
  StmatrixSlots& slots = self.warp->stmatrix;
  if (self.index < 8 * kCount) {
    slots.address[self.index] = row_address;
    slots.row[self.index] = stmatrix_row(row_address);
  }
  for (int i = 0; i < kCount; ++i) slots.tiles[i][self.index] = tiles[i];
  collective(self, kCount == 2 ? Collective::kStmatrixX2Trans : Collective::kStmatrixX4Trans);
}

template <class T>
inline void mma_m16n8k16(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  constexpr bool is_bf16 = std::is_same_v<T, bf16>;
  static_assert(is_bf16 || std::is_same_v<T, fp16>, "mma takes bf16 and fp16");
  Lane& self = *machine.current;
  MmaSlots& slots = self.warp->mma;
  const int lane = self.index;
  for (int i = 0; i < 4; ++i) slots.a[i][lane] = a[i];
  slots.b[0][lane] = b0;
  slots.b[1][lane] = b1;
  for (int i = 0; i < 4; ++i) slots.c[i / 2][lane][i % 2] = c[i];
  collective(self, is_bf16 ? Collective::kMmaBf16 : Collective::kMmaFp16);
  for (int i = 0; i < 4; ++i) c[i] = slots.c[i / 2][lane][i % 2];
}

// wgmma: operands as in ptx/wgmma.cuh. Nothing of d holds until a wait for the group (wgmma.cpp).
// Rows of `row_bytes`, 128 or 64, and the swizzle of as many.
uint64_t wgmma_descriptor(uint32_t smem, uint32_t leading_bytes, uint32_t stride_bytes,
                          uint32_t row_bytes);
void fence_proxy_async();
void wgmma_fence();
void wgmma_commit();
void wgmma_wait(int pending);
void issue_wgmma(const WgmmaForm& form, float* d, const uint32_t* a);

template <class T, int kColumns>
inline void wgmma_ss(float (&d)[kColumns][4], uint64_t a, uint64_t b, bool accumulate) {
  static_assert(std::is_same_v<T, bf16> || std::is_same_v<T, fp16>, "wgmma takes bf16 and fp16");
  issue_wgmma({a, b, kColumns, std::is_same_v<T, bf16>, false, accumulate}, &d[0][0], nullptr);
}

template <class T, int kColumns>
inline void wgmma_ss_transposed(float (&d)[kColumns][4], uint64_t a, uint64_t b) {
  static_assert(std::is_same_v<T, bf16> || std::is_same_v<T, fp16>, "wgmma takes bf16 and fp16");
  issue_wgmma({a, b, kColumns, std::is_same_v<T, bf16>, false, true, true}, &d[0][0], nullptr);
}

template <class T, int kColumns>
inline void wgmma_rs(float (&d)[kColumns][4], const uint32_t (&a)[4], uint64_t b) {
  static_assert(std::is_same_v<T, bf16> || std::is_same_v<T, fp16>, "wgmma takes bf16 and fp16");
  issue_wgmma({0, b, kColumns, std::is_same_v<T, bf16>, true, true}, &d[0][0], a);
}

inline uint32_t shuffle(Collective op, uint32_t value, int operand) {
  Lane& self = *machine.current;
  ShuffleSlots& slots = self.warp->shuffle;
  slots.value[self.index] = value;
  slots.operand[self.index] = operand;
  collective(self, op);
  return slots.value[self.index];
}

inline float shuffle(Collective op, float value, int operand) {
  uint32_t bits;
  std::memcpy(&bits, &value, 4);
  bits = shuffle(op, bits, operand);
  std::memcpy(&value, &bits, 4);
  return value;
}

inline uint32_t shfl_xor(uint32_t value, int mask) {
  return shuffle(Collective::kShflXor, value, mask);
}
inline float shfl_xor(float value, int mask) { return shuffle(Collective::kShflXor, value, mask); }
inline float shfl(float value, int lane) { return shuffle(Collective::kShfl, value, lane); }
inline int shfl(int value, int lane) {
  return static_cast<int>(shuffle(Collective::kShfl, static_cast<uint32_t>(value), lane));
}

// The value, which must be the same in all lanes of the warp.
inline int warp_uniform(int value) {
  return static_cast<int>(shuffle(Collective::kWarpUniform, static_cast<uint32_t>(value), 0));
}

void sync_warp();
void sync_cta();
// Of a dependent launch: what the launch before wrote for it can be read from here on.
void wait_for_launch_before();
void bar_sync(int id, int threads);
void bar_arrive(int id, int threads);

void raise_registers(int count);
void lower_registers(int count);

inline int atomic_add(int* gmem, int value) {
  before_atomic();
  return __atomic_fetch_add(gmem, value, __ATOMIC_RELAXED);
}

// The approximate functions flush subnormal inputs and outputs; otherwise they are exact here.
float ex2(float x);
float lg2(float x);
float rcp(float x);

// A number rather than NaN, and 0 rather than -0, as max.f32 does.
inline float max(float a, float b) {
  if (a == b) return std::signbit(a) ? b : a;
  return a > b || b != b ? a : b;
}

}  // namespace emulator
}  // namespace pod
