// conformance.cu: runs every wrapper of pod/ptx on given inputs and dumps what it returns.
//
// Compiled like csrc/variant.cu, for a GPU by nvcc and for the emulated SM by a host compiler, so
// that the two machines can be compared word by word. It lies apart from the kernel's sources
// because their hash names every compiled variant.

#include <algorithm>
#include <string>

#include "boxes.cuh"
#include "bytes.cuh"
#include "dependents.cuh"
#include "narrow_rows.cuh"
#include "pod/ptx/async_copy.cuh"
#include "pod/ptx/launch.cuh"
#include "pod/ptx/ldmatrix.cuh"
#include "pod/ptx/math.cuh"
#include "pod/ptx/mma.cuh"
#include "pod/ptx/shared.cuh"
#include "pod/ptx/sync.cuh"
#include "registers.cuh"
#include "sections.cuh"
#include "swapped.cuh"
#include "wgmma.cuh"

namespace pod {
namespace {

POD_DEVICE void dump_indices(const ConformanceArguments& a, uint32_t* smem, int thread) {
  POD_STATIC_SMEM(Int4, statics);
  const int warp = thread / kWarpSize;
  section<kThreadIndex>(a)[thread] = static_cast<uint32_t>(thread);
  section<kWarpUniform>(a)[thread] =
      static_cast<uint32_t>(ptx::warp_uniform(static_cast<int>(a.words[warp])));
  section<kForget>(a)[thread] = static_cast<uint32_t>(ptx::forget(thread * 3 + 1));
  // Differences, because where shared memory begins is each machine's own affair.
  uint32_t* address = section<kSmemAddress>(a) + 2 * thread;
  address[0] = ptx::smem_address(smem + thread) - ptx::smem_address(smem);
  address[1] = ptx::smem_address(&statics.w) - ptx::smem_address(&statics);
}

// Rows at permuted places: the addresses of the lanes matter, not their order.
POD_DEVICE void dump_ldmatrix(const ConformanceArguments& a, uint32_t* smem, int thread) {
  smem[thread] = a.words[thread];
  ptx::sync_cta();
  if (thread < kWarpSize) {
    const uint32_t address = ptx::smem_address(smem + (thread * 5 + 3) % kWarpSize * 4);
    uint32_t plain[4], trans[4];
    ptx::ldmatrix_x4(plain, address);
    ptx::ldmatrix_x4_trans(trans, address);
    for (int i = 0; i < 4; ++i) {
      section<kLdmatrix>(a)[i * kWarpSize + thread] = plain[i];
      section<kLdmatrixTrans>(a)[i * kWarpSize + thread] = trans[i];
    }
  }
  ptx::sync_cta();
}

// Each thread stores where another one loads, and both see whose numbers came.
POD_DEVICE void dump_shared_16(const ConformanceArguments& a, uint32_t* smem, int thread) {
  const int other = (thread * 5 + 3) % kThreads;
  const uint32_t* words = a.words + 4 * thread;
  const auto word = [words](int i) { return static_cast<int>(words[i]); };
  ptx::st_shared_16(ptx::smem_address(smem + 4 * other), {word(0), word(1), word(2), word(3)});
  ptx::sync_cta();
  for (int i = 0; i < 4; ++i) section<kStShared16>(a)[4 * thread + i] = smem[4 * thread + i];
  const Int4 loaded = ptx::ld_shared_16(ptx::smem_address(smem + 4 * other));
  uint32_t* to = section<kLdShared16>(a) + 4 * thread;
  to[0] = static_cast<uint32_t>(loaded.x), to[1] = static_cast<uint32_t>(loaded.y);
  to[2] = static_cast<uint32_t>(loaded.z), to[3] = static_cast<uint32_t>(loaded.w);
  ptx::sync_cta();
}

template <typename T>
POD_DEVICE void dump_mma(const uint32_t* in, uint32_t* out, int thread) {
  const int lane = thread % kWarpSize;
  for (int product = thread / kWarpSize; product < kProducts; product += kThreads / kWarpSize) {
    const uint32_t* operands = in + product * 10 * kWarpSize + lane;
    uint32_t fragment[4];
    float c[4];
    for (int i = 0; i < 4; ++i) fragment[i] = operands[i * kWarpSize];
    for (int i = 0; i < 4; ++i) c[i] = float_of(operands[(6 + i) * kWarpSize]);
    ptx::mma_m16n8k16<T>(c, fragment, operands[4 * kWarpSize], operands[5 * kWarpSize]);
    for (int i = 0; i < 4; ++i) out[(product * 4 + i) * kWarpSize + lane] = bits_of(c[i]);
  }
}

POD_DEVICE void dump_16(uint32_t* out, const uint32_t* smem, int thread) {
  for (int i = 0; i < 4; ++i) out[4 * thread + i] = smem[4 * thread + i];
}

// Three groups of copies, the last one without bytes to read. What a wait for the oldest must
// bring is read by the thread that copied it, all of it by another one after the barrier.
POD_DEVICE void dump_cp_async(const ConformanceArguments& a, uint32_t* smem, int thread) {
  uint32_t *first = smem, *second = smem + 4 * kThreads, *zeros = smem + 8 * kThreads;
  for (int i = 0; i < 12; ++i) smem[i * kThreads + thread] = ~0u;
  ptx::sync_cta();
  const uint32_t* source = a.words + 4 * thread;
  ptx::cp_async_16(ptx::smem_address(first + 4 * thread), source, true);
  ptx::cp_async_commit();
  ptx::cp_async_16(ptx::smem_address(second + 4 * thread), source + 4 * kThreads, true);
  ptx::cp_async_commit();
  ptx::cp_async_16(ptx::smem_address(zeros + 4 * thread), source, false);
  ptx::cp_async_commit();
  ptx::cp_async_commit();  // empty, so that the wait for all but two covers both copies
  ptx::cp_async_wait<3>();
  dump_16(section<kCpAsyncWait>(a), first, thread);
  ptx::cp_async_wait<2>();
  dump_16(section<kCpAsyncCommit>(a), second, thread);
  ptx::cp_async_wait<0>();
  ptx::sync_cta();
  const int other = kThreads - 1 - thread;
  dump_16(section<kCpAsync>(a), first, other);
  dump_16(section<kCpAsyncZero>(a), zeros, other);
  ptx::sync_cta();
  ptx::cp_async_16(ptx::smem_address(zeros + 4 * thread), source + 4 * kThreads);
  ptx::cp_async_commit();
  ptx::cp_async_wait<0>();
  dump_16(section<kCpAsyncAlways>(a), zeros, thread);
  ptx::sync_cta();
}

POD_DEVICE void dump_math(const ConformanceArguments& a, int thread) {
  for (int i = thread; i < kValues; i += kThreads) {
    const float lo = a.values[i], hi = a.values[kValues - 1 - i];
    section<kEx2>(a)[i] = bits_of(ptx::ex2(lo));
    section<kLg2>(a)[i] = bits_of(ptx::lg2(lo));
    section<kRcp>(a)[i] = bits_of(ptx::rcp(lo));
    section<kMax>(a)[i] = bits_of(ptx::max(lo, hi));
    section<kPackBf16>(a)[i] = ptx::pack2<bf16>(lo, hi);
    section<kPackFp16>(a)[i] = ptx::pack2<fp16>(lo, hi);
    // By what e4m3 is widened with, and by a number that rounds.
    section<kMul2>(a)[i] =
        ptx::mul2(ptx::pack2<fp16>(lo, hi), i % 2 == 0 ? 0x5c005c00u : 0x42004200u);
    section<kFloatOf>(a)[i] = bits_of(ptx::float_of(bits_of(lo)));
    section<kMaxIfPositive>(a)[i] = bits_of(ptx::max_if_positive(lo, hi, a.values[i / 2]));
  }
}

POD_DEVICE void dump_shuffles(const ConformanceArguments& a, int thread) {
  if (thread >= kWarpSize) return;
  const float value = float_of(a.words[thread]);
  for (int i = 0; i < kMasks; ++i) {
    section<kShflXor>(a)[i * kWarpSize + thread] = bits_of(ptx::shfl_xor(value, 1 << i));
  }
  const int from = ptx::shfl(static_cast<int>(a.words[thread]), (thread * 7 + 3) % kWarpSize);
  section<kShfl>(a)[thread] = static_cast<uint32_t>(from);
  const int word = static_cast<int>(a.words[thread]);
  section<kShflSegment4>(a)[thread] =
      static_cast<uint32_t>(ptx::shfl_segment<4>(word, (thread * 3 + 1) % 4));
  section<kShflSegment8>(a)[thread] =
      static_cast<uint32_t>(ptx::shfl_segment<8>(word, (thread * 3 + 1) % 8));
  section<kShflSegment16>(a)[thread] =
      static_cast<uint32_t>(ptx::shfl_segment<16>(word, (thread * 3 + 1) % 16));
  // By no lane, one lane, some that depend on data, all but one, all.
  const bool votes[kVotes] = {false, thread == 17, (a.words[thread] & 0x3f) == 0, thread != 17,
                              true};
  for (int i = 0; i < kVotes; ++i) {
    section<kAny>(a)[i * kWarpSize + thread] = static_cast<uint32_t>(ptx::any(votes[i]));
  }
}

// `threads` threads pass numbers on through shared memory, as often as there are rounds; a barrier
// that lets one of them through too early changes the sum. `wait` is the barrier.
template <typename Wait>
POD_DEVICE uint32_t exchange(uint32_t* smem, int thread, int threads, int rounds, Wait wait) {
  uint32_t sum = static_cast<uint32_t>(thread);
  for (int round = 1; round <= rounds; ++round) {
    smem[thread] = sum;
    wait();
    sum = sum * 3 + smem[(thread + round * 5 + 1) % threads];
    wait();
  }
  return sum;
}

// The halves of the CTA answer each other through shared memory: in each turn one writes, arrives
// and goes on, and the other waits and reads.
POD_DEVICE uint32_t answer(uint32_t* smem, int thread, int rounds) {
  constexpr int kHalf = kThreads / 2;
  const int half = thread / kHalf;
  const uint32_t* other = smem + (1 - half) * kHalf;
  uint32_t sum = static_cast<uint32_t>(thread);
  for (int round = 1; round <= rounds; ++round) {
    for (int turn = 0; turn < 2; ++turn) {
      if (half == turn) {
        smem[thread] = sum;
        ptx::bar_arrive(3 + turn, kThreads);
      } else {
        ptx::bar_sync(3 + turn, kThreads);
        sum = sum * 3 + other[(thread + round * 5 + 1) % kHalf];
      }
    }
  }
  return sum;
}

POD_DEVICE void dump_barriers(const ConformanceArguments& a, uint32_t* smem, int thread) {
  const int warp = thread / kWarpSize, lane = thread % kWarpSize;
  section<kSyncWarp>(a)[thread] =
      exchange(smem + warp * kWarpSize, lane, kWarpSize, kRounds, [] { ptx::sync_warp(); });
  ptx::sync_cta();
  section<kSyncCta>(a)[thread] = exchange(smem, thread, kThreads, kRounds, [] { ptx::sync_cta(); });
  // Two halves with a named barrier each and different numbers of rounds.
  constexpr int kHalf = kThreads / 2;
  const int half = warp / 2;
  section<kBarSync>(a)[thread] =
      exchange(smem + half * kHalf, thread % kHalf, kHalf, kRounds * (half + 1),
               [half] { ptx::bar_sync(1 + half, kHalf); });
  ptx::sync_cta();
  section<kBarArrive>(a)[thread] = answer(smem, thread, kRounds);
}

POD_GLOBAL(kThreads, 1) instructions_kernel(const POD_GRID_CONSTANT ConformanceArguments a) {
  POD_DYNAMIC_SMEM(bytes);
  uint32_t* smem = reinterpret_cast<uint32_t*>(bytes);
  const int thread = ptx::thread_index();
  dump_indices(a, smem, thread);
  dump_ldmatrix(a, smem, thread);
  dump_shared_16(a, smem, thread);
  dump_mma<bf16>(a.mma[0], section<kMmaBf16>(a), thread);
  dump_mma<fp16>(a.mma[1], section<kMmaFp16>(a), thread);
  dump_cp_async(a, smem, thread);
  dump_math(a, thread);
  dump_bytes(a, thread);
  dump_shuffles(a, thread);
  dump_barriers(a, smem, thread);
  if (thread == 0) {
    *section<kAtomicSum>(a) = static_cast<uint32_t>(a.counters[1]);
    *section<kClear>(a) = static_cast<uint32_t>(a.counters[2]);
    *section<kLaunch>(a) = static_cast<uint32_t>(kPlaces);
  }
}

// Many CTAs, so that all SMs take part.
POD_GLOBAL(kCtaThreads, 1) machine_kernel(const POD_GRID_CONSTANT ConformanceArguments a) {
  const int thread = ptx::thread_index(), cta = ptx::cta_index();
  const uint64_t begin = ptx::globaltimer();
  const int number = cta * kCtaThreads + thread;
  section<kAtomicOld>(a)[number] = static_cast<uint32_t>(ptx::atomic_add(a.counters, 1));
  ptx::atomic_add(a.counters + 1, number);
  ptx::sync_cta();
  if (thread != 0) return;
  section<kCtaIndex>(a)[cta] = static_cast<uint32_t>(cta);
  section<kSmid>(a)[cta] = ptx::smid();
  if (cta == 0) *section<kNsmid>(a) = ptx::nsmid();
  const uint64_t end = ptx::globaltimer();
  uint32_t* times = section<kGlobaltimer>(a) + 4 * cta;
  times[0] = static_cast<uint32_t>(begin);
  times[1] = static_cast<uint32_t>(begin >> 32);
  times[2] = static_cast<uint32_t>(end);
  times[3] = static_cast<uint32_t>(end >> 32);
}

thread_local std::string error;

ptx::Error run(const ConformanceArguments& a) {
  ptx::Error code = ptx::clear(a.counters, kCounters * sizeof(int), a.stream);
  if (!code) code = ptx::launch(machine_kernel, kCtas, kCtaThreads, 0, a.stream, a);
  if (!code) code = ptx::launch(instructions_kernel, 1, kThreads, kWords * 4, a.stream, a);
  if (!code) code = launch_dependents(a);
  if (!code) code = launch_wgmma(a);
  if (!code) code = launch_swapped(a);
  if (!code) code = launch_narrow_rows(a);
  if (!code) code = launch_registers(a);
  if (!code) code = launch_boxes(a);
  return code;
}

std::string layout_text() {
  std::string text = "values " + std::to_string(kValues) + "\nwords " + std::to_string(kWords) +
                     "\nproducts " + std::to_string(kProducts) + "\ncounters " +
                     std::to_string(kCounters) + "\ntiles " + std::to_string(kTiles) + "\n";
  for (const Section& section : kSections) {
    text += std::string(section.name) + ' ' + std::to_string(section.words) + '\n';
  }
  return text;
}

}  // namespace
}  // namespace pod

#define POD_EXPORT extern "C" __attribute__((visibility("default")))

// Launches on the arguments' stream of the current device. 0, or 1 and pod_error().
POD_EXPORT int pod_conformance(const pod::ConformanceArguments* arguments) {
  const pod::ptx::Error code = pod::run(*arguments);
  if (code) pod::error = pod::ptx::error_text(code);
  return code ? 1 : 0;
}

// Lines "name words": five sizes of inputs, then the sections of `out` in their order.
POD_EXPORT const char* pod_conformance_layout() {
  static const std::string text = pod::layout_text();
  return text.c_str();
}

// The calling thread's last error.
POD_EXPORT const char* pod_error() { return pod::error.c_str(); }
