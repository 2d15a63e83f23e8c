// barriers.cpp: the numbered barriers of a CTA. A warp comes to one to wait (bar.sync) or only to
// be counted (bar.arrive).

#include "engine.h"
#include "race_detector.h"

namespace pod::emulator {
namespace {

// A barrier of which the last warp has come lets all of them go.
void open_barrier(Cta& cta, Barrier& barrier) {
  for (uint32_t waiting = barrier.waiting; waiting; waiting &= waiting - 1) {
    Warp& warp = *cta.warps[static_cast<size_t>(__builtin_ctz(waiting))];
    warp.ready = kFullWarp;
    warp.blocked_at = -1;
  }
  barrier.arrived = 0;
  barrier.waiting = 0;
  barrier.came = 0;
  ++barrier.phase;
}

void require_same_lanes(const BarrierSlots& slots) {
  for (int lane = 1; lane < kLanes; ++lane) {
    if (slots.id[lane] == slots.id[0] && slots.threads[lane] == slots.threads[0]) continue;
    fail(
        "divergent barrier: lane 0 of the warp gives barrier %d for %d threads, lane %d gives "
        "barrier %d for %d. Name one barrier in all lanes",
        slots.id[0], slots.threads[0], lane, slots.id[lane], slots.threads[lane]);
  }
}

// Stores the lane's operands. The returned tag orders the present phase. Two tags in turn: a thread
// already on its way to the next phase must not count as having synchronized with one that has yet
// to leave this phase.
char* come(Lane& self, int id, int threads, const char* what) {
  Cta& cta = *self.warp->cta;
  if (id < 0 || id >= kBarriers || threads <= 0 || threads % kLanes || threads > cta.threads) {
    fail("%s %d, %d: ids are 0..%d, counts are multiples of 32 up to the CTA's %d threads", what,
         id, threads, kBarriers - 1, cta.threads);
  }
  self.warp->barrier.id[self.index] = id;
  self.warp->barrier.threads[self.index] = threads;
  return reinterpret_cast<char*>(&cta.barriers[id]) + (cta.barriers[id].phase & 1);
}

}  // namespace

void run_barrier(Warp& warp, bool waits) {
  require_same_lanes(warp.barrier);
  const int id = warp.barrier.id[0], threads = warp.barrier.threads[0];
  Barrier& barrier = warp.cta->barriers[id];
  const uint32_t self = 1u << warp.index;
  if (barrier.came & self) {
    fail(
        "barrier %d: this warp has arrived already, and the barrier, at %d of %d threads, has not "
        "opened since. A warp comes once per opening; wait for what shows that it has opened",
        id, barrier.arrived, barrier.expected);
  }
  if (barrier.arrived && barrier.expected != threads) {
    fail("barrier %d: this warp expects %d threads, those that have come expect %d. Give one count",
         id, threads, barrier.expected);
  }
  ++machine.statistics.barriers;
  barrier.expected = threads;
  barrier.arrived += kLanes;
  barrier.came |= self;
  if (waits) {
    barrier.waiting |= self;
    warp.blocked_at = id;
  } else {
    warp.ready = kFullWarp;
  }
  if (barrier.arrived == threads) open_barrier(*warp.cta, barrier);
}

void require_no_arrivals(const Cta& cta) {
  for (int id = 0; id < kBarriers; ++id) {
    const Barrier& barrier = cta.barriers[id];
    if (!barrier.arrived) continue;
    fail(
        "barrier %d: %d of %d threads had come when the CTA ended. Every bar_arrive needs the "
        "others of its barrier",
        id, barrier.arrived, barrier.expected);
  }
}

void sync_cta() { bar_sync(0, machine.current->warp->cta->threads); }

void bar_sync(int id, int threads) {
  Lane& self = *machine.current;
  char* tag = come(self, id, threads, "bar.sync");
  races::release(tag);
  collective(self, Collective::kBarrier);
  races::acquire(tag);
}

void bar_arrive(int id, int threads) {
  Lane& self = *machine.current;
  races::release(come(self, id, threads, "bar.arrive"));
  collective(self, Collective::kBarrierArrive);
}

}  // namespace pod::emulator
