// sections.cuh: what the conformance kernels are given, and where each wrapper's dump lies.
#pragma once

#include "pod/ptx/platform.cuh"

namespace pod {

// Inputs and outputs, all in memory of the device; layouts below and in pod_conformance_layout().
struct ConformanceArguments {
  const float* values;     // [kValues] operands of ex2, lg2, rcp and pack2
  const uint32_t* words;   // [kWords] bits that only move; not 0 and not ~0
  const uint32_t* mma[2];  // bf16, fp16: [kProducts, 10, 32]: a[4], b[2], c[4] by lane
  const uint32_t* a[2];    // bf16, fp16: [kTiles, 64, 64], two elements a word
  const uint32_t* b[2];    // bf16, fp16: [kTiles, 64, 256]
  const float* c;          // [kTiles, 64, 256]
  uint32_t* out;           // the sections, one after the other
  int* counters;           // [kCounters], any content
  void* stream;
};

constexpr int kThreads = 128;
constexpr int kCtas = 512, kCtaThreads = 64;  // of the kernel that meets many SMs
constexpr int kValues = 8192;
constexpr int kWords = 3 * 4 * kThreads;
constexpr int kProducts = 32;
constexpr int kCounters = 4;
constexpr int kRounds = 16;
constexpr int kMasks = 5;
constexpr int kVotes = 5;
constexpr int kE4m3 = 256;  // words whose bytes are all there are, each at every place
constexpr int kHeld = kWords / kThreads;  // registers of a thread while their number changes

// Of the words of e4m3, those that the target has an instruction for.
#ifdef POD_CONFORMANCE_WIDENS
constexpr int kWidened = kE4m3;
#else
constexpr int kWidened = 0;
#endif

// Products of whole tiles, A [64, 64] B [64, n] + C; none where the target has no wgmma, and then
// no setmaxnreg either.
#ifdef POD_CONFORMANCE_WGMMA
constexpr int kTiles = 4;
#else
constexpr int kTiles = 0;
#endif
constexpr int kRows = 64, kDepth = 64, kMaxColumns = 256;
constexpr int kProduct64 = kTiles * kRows * 64;
constexpr int kFirstProduct64 = kTiles ? kRows * 64 : 0;
constexpr int kWgmmaThreads = kTiles ? kThreads : 0;
constexpr int kBoxes = 8, kBoxWords = kTiles ? 16 * 128 / 4 : 0;  // of 16 rows of 128 bytes
constexpr int kCountWords = kTiles ? 8 : 0;

// One wrapper's dump; a wrapper with several kinds of result has several, told apart by a suffix.
struct Section {
  const char* name;
  int words;
};

enum Place : int {
  kThreadIndex,
  kCtaIndex,
  kWarpUniform,
  kForget,
  kSmemAddress,
  kLdmatrix,
  kLdmatrixTrans,
  kStShared16,
  kLdShared16,
  kMmaBf16,
  kMmaFp16,
  kCpAsync,
  kCpAsyncZero,
  kCpAsyncWait,
  kCpAsyncCommit,
  kCpAsyncAlways,
  kMax,
  kEx2,
  kLg2,
  kRcp,
  kPackBf16,
  kPackFp16,
  kMul2,
  kWidenedByBits,
  kWiden2,
  kOrderBytes,
  kFloatOf,
  kMaxIfPositive,
  kShflXor,
  kShfl,
  kShflSegment4,
  kShflSegment8,
  kShflSegment16,
  kAny,
  kSyncWarp,
  kSyncCta,
  kBarSync,
  kBarArrive,
  kAtomicOld,
  kAtomicSum,
  kClear,
  kSmid,
  kNsmid,
  kGlobaltimer,
  kLaunch,
  kCtaCount,
  kLetDependentsStart,
  kWaitForLaunchBefore,
  kLaunchDependent,
  kWgmmaDescriptor,
  kWgmmaDescriptorRows64,
  kHold,
  kSsBf16N8,
  kSsBf16N16,
  kSsBf16N64,
  kSsBf16N96,
  kSsBf16N128,
  kSsFp16N8,
  kSsFp16N16,
  kSsFp16N64,
  kSsFp16N96,
  kSsFp16N128,
  kTransposedBf16N8,
  kTransposedBf16N16,
  kTransposedFp16N8,
  kTransposedFp16N16,
  kRsBf16N64,
  kRsBf16N128,
  kRsBf16N256,
  kRsFp16N64,
  kRsFp16N128,
  kRsFp16N256,
  kSsBf16Rows64,
  kSsFp16Rows64,
  kTransposedBf16Rows64,
  kTransposedFp16Rows64,
  kRsBf16Rows64,
  kRsFp16Rows64,
  kStmatrixX2Trans,
  kStmatrixX4Trans,
  kFenceProxyAsync,
  kWgmmaFence,
  kWgmmaWait,
  kWgmmaCommit,
  kRaiseRegisters,
  kLowerRegisters,
  kMbarrierInit,
  kMbarrierPublish,
  kMbarrierArrive,
  kMbarrierExpect,
  kMbarrierWait,
  kCopyBox,
  kCopyBoxHint,
  kCopyBoxPart,
  kCopyBoxProduct,
  kPrefetchMap,
  kPlaces
};

constexpr Section kSections[kPlaces] = {{"thread_index", kThreads},
                                        {"cta_index", kCtas},
                                        {"warp_uniform", kThreads},
                                        {"forget", kThreads},
                                        {"smem_address", 2 * kThreads},
                                        {"ldmatrix_x4", 4 * kWarpSize},
                                        {"ldmatrix_x4_trans", 4 * kWarpSize},
                                        {"st_shared_16", 4 * kThreads},
                                        {"ld_shared_16", 4 * kThreads},
                                        {"mma_m16n8k16:bf16", kProducts * 4 * kWarpSize},
                                        {"mma_m16n8k16:fp16", kProducts * 4 * kWarpSize},
                                        {"cp_async_16", 4 * kThreads},
                                        {"cp_async_16:zero", 4 * kThreads},
                                        {"cp_async_wait", 4 * kThreads},
                                        {"cp_async_commit", 4 * kThreads},
                                        {"cp_async_16:always", 4 * kThreads},
                                        {"max", kValues},
                                        {"ex2", kValues},
                                        {"lg2", kValues},
                                        {"rcp", kValues},
                                        {"pack2:bf16", kValues},
                                        {"pack2:fp16", kValues},
                                        {"mul2:products", kValues},
                                        {"mul2:widened", 2 * kE4m3},
                                        {"widen2", 2 * kWidened},
                                        {"order_bytes", 4 * kE4m3},
                                        {"float_of", kValues},
                                        {"max_if_positive", kValues},
                                        {"shfl_xor", kMasks * kWarpSize},
                                        {"shfl", kWarpSize},
                                        {"shfl_segment:4", kWarpSize},
                                        {"shfl_segment:8", kWarpSize},
                                        {"shfl_segment:16", kWarpSize},
                                        {"any", kVotes * kWarpSize},
                                        {"sync_warp", kThreads},
                                        {"sync_cta", kThreads},
                                        {"bar_sync", kThreads},
                                        {"bar_arrive", kThreads},
                                        {"atomic_add:old", kCtas * kCtaThreads},
                                        {"atomic_add:sum", 1},
                                        {"clear", 1},
                                        {"smid", kCtas},
                                        {"nsmid", 1},
                                        {"globaltimer", 4 * kCtas},
                                        {"launch", 1},
                                        {"cta_count", kCtas},
                                        {"let_dependents_start", kCtas},
                                        {"wait_for_launch_before", kCtas},
                                        {"launch_dependent", kCtas},
                                        {"wgmma_descriptor", 2 * kWgmmaThreads},
                                        {"wgmma_descriptor:rows64", 2 * kWgmmaThreads},
                                        {"hold", 8 * kWgmmaThreads},
                                        {"wgmma_ss:bf16_n8", kProduct64 / 8},
                                        {"wgmma_ss:bf16_n16", kProduct64 / 4},
                                        {"wgmma_ss:bf16_n64", kProduct64},
                                        {"wgmma_ss:bf16_n96", kProduct64 / 2 * 3},
                                        {"wgmma_ss:bf16_n128", 2 * kProduct64},
                                        {"wgmma_ss:fp16_n8", kProduct64 / 8},
                                        {"wgmma_ss:fp16_n16", kProduct64 / 4},
                                        {"wgmma_ss:fp16_n64", kProduct64},
                                        {"wgmma_ss:fp16_n96", kProduct64 / 2 * 3},
                                        {"wgmma_ss:fp16_n128", 2 * kProduct64},
                                        {"wgmma_ss_transposed:bf16_n8", kProduct64 / 8},
                                        {"wgmma_ss_transposed:bf16_n16", kProduct64 / 4},
                                        {"wgmma_ss_transposed:fp16_n8", kProduct64 / 8},
                                        {"wgmma_ss_transposed:fp16_n16", kProduct64 / 4},
                                        {"wgmma_rs:bf16_n64", kProduct64},
                                        {"wgmma_rs:bf16_n128", 2 * kProduct64},
                                        {"wgmma_rs:bf16_n256", 4 * kProduct64},
                                        {"wgmma_rs:fp16_n64", kProduct64},
                                        {"wgmma_rs:fp16_n128", 2 * kProduct64},
                                        {"wgmma_rs:fp16_n256", 4 * kProduct64},
                                        {"wgmma_ss:bf16_rows64_n128", 2 * kProduct64},
                                        {"wgmma_ss:fp16_rows64_n128", 2 * kProduct64},
                                        {"wgmma_ss_transposed:bf16_rows64_n16", kProduct64 / 4},
                                        {"wgmma_ss_transposed:fp16_rows64_n16", kProduct64 / 4},
                                        {"wgmma_rs:bf16_rows64_n96", kProduct64 / 2 * 3},
                                        {"wgmma_rs:fp16_rows64_n96", kProduct64 / 2 * 3},
                                        {"stmatrix_x2_trans", kWgmmaThreads / 2},
                                        {"stmatrix_x4_trans", kWgmmaThreads},
                                        {"fence_proxy_async", kFirstProduct64},
                                        {"wgmma_fence", kFirstProduct64},
                                        {"wgmma_wait", kFirstProduct64},
                                        {"wgmma_commit", kFirstProduct64},
                                        {"raise_registers", kHeld * kWgmmaThreads},
                                        {"lower_registers", kHeld * kWgmmaThreads},
                                        {"mbarrier_init", kCountWords},
                                        {"mbarrier_publish", kBoxWords},
                                        {"mbarrier_arrive", kWgmmaThreads},
                                        {"mbarrier_expect", kWgmmaThreads},
                                        {"mbarrier_wait", kWgmmaThreads},
                                        {"copy_box", kBoxes * kBoxWords},
                                        {"copy_box:hint", 2 * kBoxWords},
                                        {"copy_box:part", kBoxWords},
                                        {"copy_box:product", kFirstProduct64},
                                        {"prefetch_map", kBoxWords}};

constexpr int place_of(Place place) {
  int words = 0;
  for (int i = 0; i < place; ++i) words += kSections[i].words;
  return words;
}

template <Place place>
constexpr int kOffset = place_of(place);

template <Place place>
POD_DEVICE uint32_t* section(const ConformanceArguments& a) {
  return a.out + kOffset<place>;
}

union FloatBits {
  float value;
  uint32_t bits;
};

POD_DEVICE uint32_t bits_of(float value) {
  FloatBits both;
  both.value = value;
  return both.bits;
}

POD_DEVICE float float_of(uint32_t bits) {
  FloatBits both;
  both.bits = bits;
  return both.value;
}

}  // namespace pod
