// wgmma.cuh: D[64, 8 * kColumns] += A[64, 16] B[16, 8 * kColumns] on one warpgroup (four warps from
// a multiple of four on), 16-bit inputs, fp32 sums, asynchronously (sm_90a).
//
// Warp w of the group holds rows 16w.. of D and, in registers, of A; d[n] is c of mma.m16n8k16 for
// column tile n, a is its a (mma.cuh). In shared memory an operand's rows have w = 128 or 64 bytes
// and the swizzle of as many: bits 4-6 of an address are xored with its bits 7-9, or bits 4-5 with
// bits 7-8. Before that,
//   K-major (wgmma_ss)     A[r][k] and B[k][r] at start + r / 8 * stride + r % 8 * w + 2 * k
//   N-major (wgmma_rs, B)  B[k][n] at start + n / (w / 2) * leading + k / 8 * stride + k % 8 * w
//                          + n % (w / 2) * 2
//   M-major (wgmma_ss_transposed, A)  A[m][k] as B[k][n] N-major, m for n
// Tiles start at multiples of 8 w; the next 16 of k of a K-major tile start 32 bytes further on.
//
// Order of a group: write registers and shared memory; fence_proxy_async() in the threads that
// wrote (or copied) shared memory, then a barrier; wgmma_fence(); issue; wgmma_commit();
// wgmma_wait(). Between issue and wait nothing may touch d, a or the operands' bytes.
#pragma once

#include <type_traits>

#include "pod/ptx/platform.cuh"

namespace pod::ptx {

#ifdef __CUDACC__

// Matrix descriptor: rows of kRowBytes, 128 or 64, base offset 0. Bytes are multiples of 16, below
// 2^18.
template <int kRowBytes>
POD_DEVICE uint64_t wgmma_descriptor(uint32_t smem, uint32_t leading_bytes, uint32_t stride_bytes) {
  static_assert(kRowBytes == 128 || kRowBytes == 64, "swizzles of 128 and of 64 bytes");
  constexpr uint64_t kSwizzle = kRowBytes == 128 ? 1 : 2;
  return static_cast<uint64_t>((smem & 0x3ffff) >> 4) |
         static_cast<uint64_t>(leading_bytes >> 4) << 16 |
         static_cast<uint64_t>(stride_bytes >> 4) << 32 | kSwizzle << 62;
}

// fence.proxy.async: what this thread wrote to shared memory, and its cp.async that it has waited
// for, becomes visible to wgmma. A barrier carries that to other threads.
POD_DEVICE void fence_proxy_async() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

// wgmma.fence: orders earlier accesses of registers before the wgmma to come.
POD_DEVICE void wgmma_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }

// Closes the warp's current group of wgmma; a group may be empty.
POD_DEVICE void wgmma_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }

// Returns when at most `pending` of the warp's newest groups are still in flight.
template <int pending>
POD_DEVICE void wgmma_wait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(pending) : "memory");
}

// No instruction: keeps the compiler from moving uses of d across this place.
template <int kCount>
POD_DEVICE void hold(float (&d)[kCount][4]) {
  POD_UNROLL
  for (int n = 0; n < kCount; ++n) {
    POD_UNROLL
    for (int i = 0; i < 4; ++i) asm volatile("" : "+f"(d[n][i])::"memory");
  }
}

// The registers of 1, 2, 8, 12, 16 and 32 column tiles, as the instruction names them and as it
// gets them.
#define POD_D4 "%0,%1,%2,%3"
#define POD_D8 "%0,%1,%2,%3,%4,%5,%6,%7"
#define POD_D32                                                                    \
  "%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21," \
  "%22,%23,%24,%25,%26,%27,%28,%29,%30,%31"
#define POD_D48 \
  POD_D32       \
  ",%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47"
#define POD_D64                                                                   \
  POD_D32                                                                         \
  ",%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47,%48,%49,%50," \
  "%51,%52,%53,%54,%55,%56,%57,%58,%59,%60,%61,%62,%63"
#define POD_D128                                                                     \
  POD_D64                                                                            \
  ",%64,%65,%66,%67,%68,%69,%70,%71,%72,%73,%74,%75,%76,%77,%78,%79,%80,%81,%82,"    \
  "%83,%84,%85,%86,%87,%88,%89,%90,%91,%92,%93,%94,%95,%96,%97,%98,%99,%100,%101,"   \
  "%102,%103,%104,%105,%106,%107,%108,%109,%110,%111,%112,%113,%114,%115,%116,%117," \
  "%118,%119,%120,%121,%122,%123,%124,%125,%126,%127"
#define POD_TILE(n) "+f"(d[n][0]), "+f"(d[n][1]), "+f"(d[n][2]), "+f"(d[n][3])
#define POD_TILES_2(n) POD_TILE(n), POD_TILE(n + 1)
#define POD_TILES_4(n) POD_TILE(n), POD_TILE(n + 1), POD_TILE(n + 2), POD_TILE(n + 3)
#define POD_TILES_8(n) POD_TILES_4(n), POD_TILES_4(n + 4)
#define POD_TILES_12(n) POD_TILES_8(n), POD_TILES_4(n + 8)
#define POD_TILES_16(n) POD_TILES_8(n), POD_TILES_8(n + 8)
#define POD_TILES_32(n) POD_TILES_16(n), POD_TILES_16(n + 16)

// What follows d is numbered from the count of its registers on. The predicate says whether D is
// added to; the two ones are the signs of A and B, then come their transpositions.
#define POD_WGMMA_SS(shape, type, registers, tiles, a_at, b_at, add_at, transposed)                \
  asm volatile("{ .reg .pred p; setp.ne.b32 p, " add_at ", 0; wgmma.mma_async.sync.aligned." shape \
               ".f32." type "." type " {" registers "}, " a_at ", " b_at ", p, 1, 1, " transposed  \
               ", 0; }"                                                                            \
               : tiles                                                                             \
               : "l"(a), "l"(b), "r"(static_cast<int>(accumulate)))
#define POD_WGMMA_RS(shape, type, registers, tiles, a_at, b_at)                              \
  asm volatile("{ .reg .pred p; setp.eq.b32 p, 0, 0; wgmma.mma_async.sync.aligned." shape    \
               ".f32." type "." type " {" registers "}, {" a_at "}, " b_at ", p, 1, 1, 1; }" \
               : tiles                                                                       \
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b))

// D = A B, or D += A B if `accumulate`. A and B K-major in shared memory; kColumns 1, 2, 8, 12
// or 16.
template <typename T, int kColumns>
POD_DEVICE void wgmma_ss(float (&d)[kColumns][4], uint64_t a, uint64_t b, bool accumulate) {
  static_assert(kColumns == 1 || kColumns == 2 || kColumns == 8 || kColumns == 12 || kColumns == 16,
                "wgmma_ss has 1, 2, 8, 12 or 16 column tiles");
  constexpr bool is_bf16 = std::is_same_v<T, bf16>;
  static_assert(is_bf16 || std::is_same_v<T, fp16>, "wgmma takes bf16 and fp16");
  if constexpr (kColumns == 1 && is_bf16) {
    POD_WGMMA_SS("m64n8k16", "bf16", POD_D4, POD_TILE(0), "%4", "%5", "%6", "0");
  } else if constexpr (kColumns == 1) {
    POD_WGMMA_SS("m64n8k16", "f16", POD_D4, POD_TILE(0), "%4", "%5", "%6", "0");
  } else if constexpr (kColumns == 2 && is_bf16) {
    POD_WGMMA_SS("m64n16k16", "bf16", POD_D8, POD_TILES_2(0), "%8", "%9", "%10", "0");
  } else if constexpr (kColumns == 2) {
    POD_WGMMA_SS("m64n16k16", "f16", POD_D8, POD_TILES_2(0), "%8", "%9", "%10", "0");
  } else if constexpr (kColumns == 8 && is_bf16) {
    POD_WGMMA_SS("m64n64k16", "bf16", POD_D32, POD_TILES_8(0), "%32", "%33", "%34", "0");
  } else if constexpr (kColumns == 8) {
    POD_WGMMA_SS("m64n64k16", "f16", POD_D32, POD_TILES_8(0), "%32", "%33", "%34", "0");
  } else if constexpr (kColumns == 12 && is_bf16) {
    POD_WGMMA_SS("m64n96k16", "bf16", POD_D48, POD_TILES_12(0), "%48", "%49", "%50", "0");
  } else if constexpr (kColumns == 12) {
    POD_WGMMA_SS("m64n96k16", "f16", POD_D48, POD_TILES_12(0), "%48", "%49", "%50", "0");
  } else if constexpr (is_bf16) {
    POD_WGMMA_SS("m64n128k16", "bf16", POD_D64, POD_TILES_16(0), "%64", "%65", "%66", "0");
  } else {
    POD_WGMMA_SS("m64n128k16", "f16", POD_D64, POD_TILES_16(0), "%64", "%65", "%66", "0");
  }
}

// D += A B. A M-major and B K-major in shared memory; kColumns 1 or 2.
template <typename T, int kColumns>
POD_DEVICE void wgmma_ss_transposed(float (&d)[kColumns][4], uint64_t a, uint64_t b) {
  static_assert(kColumns == 1 || kColumns == 2, "wgmma_ss_transposed has 1 or 2 column tiles");
  constexpr bool is_bf16 = std::is_same_v<T, bf16>, accumulate = true;
  static_assert(is_bf16 || std::is_same_v<T, fp16>, "wgmma takes bf16 and fp16");
  if constexpr (kColumns == 1 && is_bf16) {
    POD_WGMMA_SS("m64n8k16", "bf16", POD_D4, POD_TILE(0), "%4", "%5", "%6", "1");
  } else if constexpr (kColumns == 1) {
    POD_WGMMA_SS("m64n8k16", "f16", POD_D4, POD_TILE(0), "%4", "%5", "%6", "1");
  } else if constexpr (is_bf16) {
    POD_WGMMA_SS("m64n16k16", "bf16", POD_D8, POD_TILES_2(0), "%8", "%9", "%10", "1");
  } else {
    POD_WGMMA_SS("m64n16k16", "f16", POD_D8, POD_TILES_2(0), "%8", "%9", "%10", "1");
  }
}

// D += A B. A in registers, B N-major in shared memory; kColumns 8, 12, 16 or 32.
template <typename T, int kColumns>
POD_DEVICE void wgmma_rs(float (&d)[kColumns][4], const uint32_t (&a)[4], uint64_t b) {
  static_assert(kColumns == 8 || kColumns == 12 || kColumns == 16 || kColumns == 32,
                "wgmma_rs has 8, 12, 16 or 32 column tiles");
  constexpr bool is_bf16 = std::is_same_v<T, bf16>;
  static_assert(is_bf16 || std::is_same_v<T, fp16>, "wgmma takes bf16 and fp16");
  if constexpr (kColumns == 8 && is_bf16) {
    POD_WGMMA_RS("m64n64k16", "bf16", POD_D32, POD_TILES_8(0), "%32,%33,%34,%35", "%36");
  } else if constexpr (kColumns == 8) {
    POD_WGMMA_RS("m64n64k16", "f16", POD_D32, POD_TILES_8(0), "%32,%33,%34,%35", "%36");
  } else if constexpr (kColumns == 12 && is_bf16) {
    POD_WGMMA_RS("m64n96k16", "bf16", POD_D48, POD_TILES_12(0), "%48,%49,%50,%51", "%52");
  } else if constexpr (kColumns == 12) {
    POD_WGMMA_RS("m64n96k16", "f16", POD_D48, POD_TILES_12(0), "%48,%49,%50,%51", "%52");
  } else if constexpr (kColumns == 16 && is_bf16) {
    POD_WGMMA_RS("m64n128k16", "bf16", POD_D64, POD_TILES_16(0), "%64,%65,%66,%67", "%68");
  } else if constexpr (kColumns == 16) {
    POD_WGMMA_RS("m64n128k16", "f16", POD_D64, POD_TILES_16(0), "%64,%65,%66,%67", "%68");
  } else if constexpr (is_bf16) {
    POD_WGMMA_RS("m64n256k16", "bf16", POD_D128, POD_TILES_32(0), "%128,%129,%130,%131", "%132");
  } else {
    POD_WGMMA_RS("m64n256k16", "f16", POD_D128, POD_TILES_32(0), "%128,%129,%130,%131", "%132");
  }
}

#undef POD_D4
#undef POD_D8
#undef POD_D32
#undef POD_D48
#undef POD_D64
#undef POD_D128
#undef POD_TILE
#undef POD_TILES_2
#undef POD_TILES_4
#undef POD_TILES_8
#undef POD_TILES_12
#undef POD_TILES_16
#undef POD_TILES_32
#undef POD_WGMMA_SS
#undef POD_WGMMA_RS

#else

template <int kRowBytes>
inline uint64_t wgmma_descriptor(uint32_t smem, uint32_t leading_bytes, uint32_t stride_bytes) {
  static_assert(kRowBytes == 128 || kRowBytes == 64, "swizzles of 128 and of 64 bytes");
  return emulator::wgmma_descriptor(smem, leading_bytes, stride_bytes, kRowBytes);
}
inline void fence_proxy_async() { emulator::fence_proxy_async(); }
inline void wgmma_fence() { emulator::wgmma_fence(); }
inline void wgmma_commit() { emulator::wgmma_commit(); }
template <int pending>
inline void wgmma_wait() {
  emulator::wgmma_wait(pending);
}
template <int kCount>
inline void hold(float (&)[kCount][4]) {}
template <typename T, int kColumns>
inline void wgmma_ss(float (&d)[kColumns][4], uint64_t a, uint64_t b, bool accumulate) {
  static_assert(kColumns == 1 || kColumns == 2 || kColumns == 8 || kColumns == 12 || kColumns == 16,
                "wgmma_ss has 1, 2, 8, 12 or 16 column tiles");
  emulator::wgmma_ss<T>(d, a, b, accumulate);
}
template <typename T, int kColumns>
inline void wgmma_ss_transposed(float (&d)[kColumns][4], uint64_t a, uint64_t b) {
  static_assert(kColumns == 1 || kColumns == 2, "wgmma_ss_transposed has 1 or 2 column tiles");
  emulator::wgmma_ss_transposed<T>(d, a, b);
}
template <typename T, int kColumns>
inline void wgmma_rs(float (&d)[kColumns][4], const uint32_t (&a)[4], uint64_t b) {
  static_assert(kColumns == 8 || kColumns == 12 || kColumns == 16 || kColumns == 32,
                "wgmma_rs has 8, 12, 16 or 32 column tiles");
  emulator::wgmma_rs<T>(d, a, b);
}

#endif

}  // namespace pod::ptx
