// state.h: the emulated GPU: lanes (fibers) in warps, warps in CTAs, CTAs resident on SMs.
//
// One launch runs at a time, on the thread that launched it; nothing here is locked.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "pod/emulator/fiber.h"
#include "pod/emulator/mbarrier.h"
#include "pod/emulator/wgmma.h"

namespace pod::emulator {

constexpr int kLanes = 32;
constexpr uint32_t kFullWarp = ~0u;
constexpr int kBarriers = 16;  // of a CTA
constexpr int kMaxThreads = 1024;

// What a whole warp does together. All lanes must arrive before any goes on.
enum class Collective : uint8_t {
  kNone,
  kLdmatrix,
  kLdmatrixTrans,
  kStmatrixX2Trans,
  kStmatrixX4Trans,
  kMmaBf16,
  kMmaFp16,
  kShflXor,
  kShfl,
  kWarpUniform,
  kSyncWarp,
  kBarrier,
  kBarrierArrive,
  kSetmaxnreg,
  kWgmma,
  kWgmmaFence,
  kWgmmaCommit,
  kWgmmaWait,
};

enum class Order : int { kAscending = 0, kDescending = 1, kRandom = 2 };
enum class Copies : int { kLandAtWait = 0, kLandAtIssue = 1 };

struct Configuration {
  int num_sms = 2;
  int ctas_per_sm = 2;
  Order order = Order::kAscending;
  Copies copies = Copies::kLandAtWait;
  int preempt_percent = 10;  // of the collectives of a warp, in any order; 0: never
  int seed = 1;
};

// Since the last reset; the fields are the words of pod_emulator_stats().
struct Statistics {
  int64_t switches, mma, ldmatrix, ldmatrix_extra_wavefronts, cp_async, barriers, shuffles, ctas;
  int64_t max_resident;  // CTAs on all SMs
  int64_t atomics;
  int64_t wgmma, proxy_fences;  // of a warp, of a thread
  int64_t stmatrix, stmatrix_extra_wavefronts;
  int64_t boxes;
};

// 16 bytes that cp.async has yet to bring.
struct Copy {
  uint8_t* target;
  const void* source;  // null: zeros
  int group;
};

struct Warp;
struct Cta;

// Of one lane, oldest group first, from `landed` on.
struct CopyQueue {
  std::vector<Copy> copies;
  size_t landed = 0;
  unsigned proxy_fences = 0;  // that the lane has executed
  bool unfenced = false;      // a copy has landed since the last of them
};

// The thread whose copy came last to 16 bytes, and how many proxy fences it had executed then.
struct Landing {
  int thread;  // -1: none
  unsigned proxy_fences;
};

// One cache line: a switch touches little else.
struct alignas(64) Lane {
  Context context;
  Warp* warp = nullptr;  // null: the host, which waits for the launch to end
  int index = 0;         // in its warp
  uint32_t bit = 0;
  int thread = 0;            // in its CTA
  int group = 0;             // of the copies issued now
  bool waited = false;       // for the launch before
  uint8_t* stack = nullptr;  // lowest address
  CopyQueue* in_flight = nullptr;
};

// Operands by lane; a lane goes on to its next collective while others still read the results of
// the last, so no two kinds share memory and results lie at their lane's place, too.
struct MmaSlots {
  uint32_t a[4][kLanes];
  uint32_t b[2][kLanes];
  float c[2][kLanes][2];
};
struct LdmatrixSlots {
  uint32_t address[kLanes];
  const uint8_t* row[kLanes];
  uint32_t d[4][kLanes];
};
struct StmatrixSlots {
  uint32_t address[kLanes];
  uint8_t* row[kLanes];
  uint32_t tiles[4][kLanes];
};
struct ShuffleSlots {
  uint32_t value[kLanes];
  int operand[kLanes];
};
struct BarrierSlots {
  int id[kLanes];
  int threads[kLanes];
};
struct RegisterSlots {
  int move[kLanes];  // to so many registers a thread; negative: by lowering
};

struct Warp {
  uint32_t ready = 0;   // lanes that can run; the others wait at `op`, `blocked_at` or an mbarrier
  uint32_t parked = 0;  // lanes that wait at an mbarrier, each on its own
  uint32_t live = 0;    // lanes that have not returned
  unsigned first = 0;   // lanes run in the order first, first + stride, .. modulo 32
  unsigned stride = 1;
  Collective op = Collective::kNone;  // that some lanes have arrived at
  int blocked_at = -1;                // barrier that the whole warp waits at
  int index = 0;                      // in its CTA
  unsigned phase = 0;                 // of sync_warp, for ThreadSanitizer
  Cta* cta = nullptr;
  alignas(64) MmaSlots mma;
  alignas(64) LdmatrixSlots ldmatrix;
  alignas(64) StmatrixSlots stmatrix;
  alignas(64) ShuffleSlots shuffle;
  alignas(64) BarrierSlots barrier;
  alignas(64) RegisterSlots registers;
  alignas(64) WgmmaSlots wgmma;
  WgmmaQueue products;
  std::vector<int> register_moves;  // as in RegisterSlots, in their order
  Lane lanes[kLanes];
  CopyQueue in_flight[kLanes];
};

struct Barrier {
  int arrived = 0;       // threads
  int expected = 0;      // threads
  uint32_t waiting = 0;  // warps
  uint32_t came = 0;     // warps that wait or have only arrived
  unsigned phase = 0;
};

struct StaticVariable {
  const void* key;
  uint32_t offset;
};

// A residency slot of an SM and the CTA that holds it.
struct Cta {
  int index = 0;
  int smid = 0;
  int threads = 0;
  int live = 0;  // threads; 0: the slot is free
  uint8_t* dynamic = nullptr;
  size_t dynamic_bytes = 0;
  uint8_t* dynamic_end = nullptr;  // the page from here on is unreadable
  size_t dynamic_capacity = 0;
  uint8_t* statics = nullptr;
  uint32_t static_bytes = 0;  // in use
  std::vector<StaticVariable> variables;
  std::vector<std::unique_ptr<Warp>> warps;
  Barrier barriers[kBarriers];
  CopyEngine engine;
  std::vector<Landing> landings;  // by shared address / 16
  int unfenced = 0;               // threads with copies that no proxy fence has followed
  GroupStep steps[kMaxThreads / kLanes / kGroupWarps][kGroupSteps];
};

struct Machine {
  Lane* current = nullptr;
  Lane host;
  Configuration configuration;
  Statistics statistics{};
  uint64_t random = 1;
  int64_t until_preemption = 0;  // arrivals
  bool cta_finished = false;
  std::string error;
  std::vector<Warp*> warps;  // of all slots of this launch
  size_t last_warp = 0;
  int grid = 0;
  bool dependent = false;  // whether the launch's threads must wait for the launch before
  void (*body)(void*) = nullptr;
  void* arguments = nullptr;
};

extern Machine machine;

}  // namespace pod::emulator
