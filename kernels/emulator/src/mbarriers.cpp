// mbarriers.cpp: barriers in shared memory. A thread waits at one on its own; the phase ends with
// its last arrival, or with the last of the bytes that were expected.
//
// Bytes come at once, or as late as they may: when somebody waits for a phase that lacks nothing
// else (boxes.cpp).

#include <algorithm>
#include <cinttypes>
#include <cstring>

#include "engine.h"
#include "race_detector.h"

namespace pod::emulator {
namespace {

constexpr uint32_t kBytes = 8;
constexpr int kMostArrivals = (1 << 20) - 1;
constexpr int64_t kMostBytes = (1 << 20) - 1;

Cta& running_cta() { return *machine.current->warp->cta; }

uint64_t token_of(uint32_t address) { return 0x6d62617272696572 ^ address; }

Mbarrier* find(Cta& cta, uint32_t address) {
  for (Mbarrier& barrier : cta.engine.barriers) {
    if (barrier.address == address) return &barrier;
  }
  return nullptr;
}

void wake(Mbarrier& barrier) {
  for (Lane* lane : barrier.waiting) {
    lane->warp->parked &= ~lane->bit;
    lane->warp->ready |= lane->bit;
  }
  barrier.waiting.clear();
}

[[noreturn]] void report_bytes(const Mbarrier& barrier, int64_t in_flight) {
  fail("mbarrier at shared address 0x%x, phase %u: all have arrived, and its boxes bring %" PRId64
       " bytes more than they said. mbarrier_expect() all bytes of a phase in that phase",
       barrier.address, barrier.phase, in_flight - barrier.bytes);
}

void end_phase(Cta& cta, Mbarrier& barrier) {
  if (const int64_t late = bytes_in_flight(cta, barrier)) report_bytes(barrier, late);
  ++barrier.phase;
  barrier.left = barrier.count;
  wake(barrier);
}

// Counts the lane as waiting unless the phase of this parity has ended; the phase's tag.
char* park(Lane& self, uint32_t address, uint32_t parity) {
  const races::OnBehalfOfOthers unseen;
  Mbarrier& barrier = require_mbarrier(address, "mbarrier_wait");
  if ((barrier.phase & 1) == parity) {
    self.warp->ready &= ~self.bit;
    self.warp->parked |= self.bit;
    barrier.waiting.push_back(&self);
    settle(*self.warp->cta, barrier);
  }
  return reinterpret_cast<char*>(barrier.memory) + parity;
}

}  // namespace

// Two tags in turn, as barriers.cpp has them.
char* phase_tag(const Mbarrier& barrier) {
  return reinterpret_cast<char*>(barrier.memory) + (barrier.phase & 1);
}

Mbarrier& require_mbarrier(uint32_t address, const char* what) {
  Mbarrier* barrier = find(running_cta(), address);
  if (!barrier) {
    fail(
        "%s: no mbarrier was initialised at shared address 0x%x. One thread calls mbarrier_init(), "
        "and a barrier of threads comes before others use it",
        what, address);
  }
  if (!barrier->published) {
    fail(
        "%s: thread %d initialised the mbarrier at shared address 0x%x and has not called "
        "mbarrier_publish() since",
        what, barrier->thread, address);
  }
  uint64_t held;
  std::memcpy(&held, barrier->memory, kBytes);
  if (held != token_of(address)) {
    fail("%s: something else was written over the mbarrier at shared address 0x%x", what, address);
  }
  return *barrier;
}

void settle(Cta& cta, Mbarrier& barrier) {
  if (barrier.left > 0) return;
  const int64_t in_flight = bytes_in_flight(cta, barrier);
  if (in_flight > barrier.bytes) report_bytes(barrier, in_flight);
  if (in_flight < barrier.bytes) return;
  if (in_flight > 0) {
    if (barrier.waiting.empty()) return;
    land_boxes(cta, barrier);
  }
  end_phase(cta, barrier);
}

void mbarrier_init(uint32_t address, int arrivals) {
  const races::OnBehalfOfOthers unseen;
  Lane& self = *machine.current;
  Cta& cta = running_cta();
  if (address % kBytes || arrivals < 1 || arrivals > kMostArrivals) {
    fail(
        "mbarrier_init of shared address 0x%x with %d arrivals; an mbarrier lies at a multiple of "
        "8 and counts 1 to %d",
        address, arrivals, kMostArrivals);
  }
  for (const Mbarrier& other : cta.engine.barriers) {
    if (other.address != address) continue;
    fail("mbarrier_init: thread %d has initialised the mbarrier at shared address 0x%x already",
         other.thread, address);
  }
  const SharedTile place = require_shared(address, address + kBytes, "mbarrier_init");
  auto* memory = const_cast<uint8_t*>(place.at(address));
  const uint64_t token = token_of(address);
  std::memcpy(memory, &token, kBytes);
  cta.engine.barriers.push_back(
      {address, memory, arrivals, arrivals, 0, 0, self.thread, false, {}});
}

void mbarrier_publish() {
  const races::OnBehalfOfOthers unseen;
  for (Mbarrier& barrier : running_cta().engine.barriers) {
    if (barrier.thread == machine.current->thread) barrier.published = true;
  }
}

void mbarrier_arrive(uint32_t address, uint32_t bytes) {
  const races::OnBehalfOfOthers unseen;
  Cta& cta = running_cta();
  Mbarrier& barrier = require_mbarrier(address, bytes ? "mbarrier_expect" : "mbarrier_arrive");
  if (barrier.left == 0) {
    fail(
        "mbarrier at shared address 0x%x, phase %u: an arrival beyond the %d that it counts, "
        "while %" PRId64 " bytes are missing. Wait for the end of the phase first",
        address, barrier.phase, barrier.count, barrier.bytes);
  }
  if (barrier.bytes + bytes > kMostBytes) {
    fail("mbarrier at shared address 0x%x: %" PRId64
         " bytes are expected; it counts up to %" PRId64,
         address, barrier.bytes + bytes, kMostBytes);
  }
  races::release(phase_tag(barrier));
  --barrier.left;
  barrier.bytes += bytes;
  settle(cta, barrier);
}

void mbarrier_wait(uint32_t address, uint32_t parity) {
  Lane& self = *machine.current;
  if (parity > 1) fail("mbarrier_wait for parity %u; a parity is 0 or 1", parity);
  char* tag = park(self, address, parity);
  if (self.warp->parked & self.bit) switch_context(self.context, hand_over().context);
  races::acquire(tag);
}

std::string parked_text(const Warp& warp) {
  for (const Mbarrier& barrier : warp.cta->engine.barriers) {
    const auto ours = std::find_if(barrier.waiting.begin(), barrier.waiting.end(),
                                   [&](const Lane* lane) { return lane->warp == &warp; });
    if (ours == barrier.waiting.end()) continue;
    char text[160];
    snprintf(text, sizeof text,
             "the mbarrier at shared address 0x%x for the end of phase %u (%d of %d arrivals, "
             "%" PRId64 " bytes that no box brings)",
             barrier.address, barrier.phase, barrier.count - barrier.left, barrier.count,
             barrier.bytes - bytes_in_flight(*warp.cta, barrier));
    return text;
  }
  return "no mbarrier";
}

void require_nothing_expected(const Cta& cta) {
  for (const Mbarrier& barrier : cta.engine.barriers) {
    if (barrier.bytes == 0) continue;
    fail("mbarrier at shared address 0x%x: %" PRId64 " bytes were missing when the CTA ended",
         barrier.address, barrier.bytes);
  }
}

}  // namespace pod::emulator
