// scheduler.cpp: decides which lane runs next. A lane runs until it waits at a collective or ends.

#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <limits>

#include "engine.h"
#include "race_detector.h"

namespace pod::emulator {

Machine machine;

namespace {

constexpr int kListedWarps = 12;  // in the text of a deadlock

char launch_tag;  // what a CTA's threads did is over when the next takes its slot

// The first ready lane in the warp's present order.
Lane& pick_in(Warp& warp) {
  unsigned lane = warp.first;
  while (!(warp.ready >> lane & 1)) lane = (lane + warp.stride) % kLanes;
  return warp.lanes[lane];
}

Lane& switch_target(Lane& next) {
  ++machine.statistics.switches;
  machine.current = &next;
  return next;
}

Lane& pick_or_host() {
  Lane* next = pick_lane();
  return next ? *next : machine.host;
}

void complete(Warp& warp) {
  const races::OnBehalfOfOthers unseen;
  const Collective op = warp.op;
  warp.op = Collective::kNone;
  draw_order(warp);
  switch (op) {
    case Collective::kNone:
      break;
    case Collective::kLdmatrix:
    case Collective::kLdmatrixTrans:
      run_ldmatrix(warp, op == Collective::kLdmatrixTrans);
      break;
    case Collective::kStmatrixX2Trans:
    case Collective::kStmatrixX4Trans:
      run_stmatrix(warp, op == Collective::kStmatrixX2Trans ? 2 : 4);
      break;
    case Collective::kMmaBf16:
    case Collective::kMmaFp16:
      run_mma(warp, op == Collective::kMmaBf16);
      break;
    case Collective::kShflXor:
    case Collective::kShfl:
    case Collective::kWarpUniform:
      run_shuffle(warp, op);
      break;
    case Collective::kSyncWarp:
      ++warp.phase;
      break;
    case Collective::kBarrier:
      return run_barrier(warp, true);
    case Collective::kBarrierArrive:
      return run_barrier(warp, false);
    case Collective::kSetmaxnreg:
      run_setmaxnreg(warp);
      break;
    case Collective::kWgmma:
      run_wgmma(warp);
      break;
    case Collective::kWgmmaFence:
      run_wgmma_fence(warp);
      break;
    case Collective::kWgmmaCommit:
      ++warp.products.group;
      break;
    case Collective::kWgmmaWait:
      run_wgmma_wait(warp);
      break;
  }
  warp.ready = kFullWarp;
}

int waiting_lanes(const Warp& warp) {
  return __builtin_popcount(warp.live & ~warp.ready & ~warp.parked);
}

void first_arrival(Warp& warp, Collective op) {
  if (warp.live != kFullWarp) {
    fail("%s: %d lanes of the warp have returned. A collective needs all 32", name_of(op),
         kLanes - __builtin_popcount(warp.live));
  }
  warp.op = op;
}

[[gnu::cold]] void report_divergence(const Warp& warp, Collective op) {
  fail("divergent warp: %s here, but %d lanes of the warp wait at %s", name_of(op),
       waiting_lanes(warp), name_of(warp.op));
}

}  // namespace

uint32_t random_bits() {
  uint64_t& state = machine.random;  // xorshift64
  state ^= state << 13;
  state ^= state >> 7;
  state ^= state << 17;
  return static_cast<uint32_t>(state >> 16);
}

void draw_preemption() {
  const int percent = machine.configuration.preempt_percent;
  machine.until_preemption = percent <= 0 ? std::numeric_limits<int64_t>::max()
                                          : 1 + random_bits() % (2u * 100 * kLanes / percent);
}

Lane* pick_lane() {
  const size_t count = machine.warps.size();
  const Order order = machine.configuration.order;
  if (order == Order::kRandom) machine.last_warp = random_bits() % count;
  for (size_t step = 1; step <= count; ++step) {
    const size_t away = order == Order::kDescending ? count - step : step;
    const size_t index = (machine.last_warp + away) % count;
    if (machine.warps[index]->ready) {
      machine.last_warp = index;
      return &pick_in(*machine.warps[index]);
    }
  }
  return nullptr;
}

void draw_order(Warp& warp) {
  switch (machine.configuration.order) {
    case Order::kAscending:
      warp.first = 0;
      warp.stride = 1;
      break;
    case Order::kDescending:
      warp.first = kLanes - 1;
      warp.stride = kLanes - 1;
      break;
    case Order::kRandom: {
      const uint32_t bits = random_bits();
      warp.first = bits % kLanes;
      warp.stride = (bits >> 8 | 1) % kLanes;  // odd, so that every lane has its turn
      break;
    }
  }
}

Lane& arrive(Lane& self, Collective op) {
  Warp& warp = *self.warp;
  if (warp.op == Collective::kNone) first_arrival(warp, op);
  if (warp.op != op) report_divergence(warp, op);
  warp.ready &= ~self.bit;
  if (warp.ready == 0 && warp.parked == 0) complete(warp);
  const bool undisturbed = --machine.until_preemption > 0;
  if (!undisturbed) draw_preemption();
  return switch_target(undisturbed && warp.ready ? pick_in(warp) : pick_or_host());
}

Lane& hand_over() { return switch_target(pick_or_host()); }

void before_atomic() {
  ++machine.statistics.atomics;
  const Order order = machine.configuration.order;
  if (order == Order::kAscending || (order == Order::kRandom && (random_bits() & 1))) return;
  Lane& self = *machine.current;
  Lane& next = switch_target(pick_or_host());
  switch_context(self.context, next.context);
}

void sync_warp() {
  Lane& self = *machine.current;
  char* tag = reinterpret_cast<char*>(self.warp) + (self.warp->phase & 1);
  races::release(tag);
  collective(self, Collective::kSyncWarp);
  races::acquire(tag);
}

void finish_lane(Lane& self) {
  Warp& warp = *self.warp;
  require_no_copies(self);
  require_no_wgmma(self);
  require_stack(self);
  require_waited(self);
  if (warp.op != Collective::kNone) {
    fail("divergent warp: this lane returns while %d lanes wait at %s", waiting_lanes(warp),
         name_of(warp.op));
  }
  if (warp.cta->live == 1) {
    require_no_arrivals(*warp.cta);
    require_no_boxes(*warp.cta);
    require_nothing_expected(*warp.cta);
    require_whole_groups_moved(*warp.cta);
  }
  races::release(&launch_tag);
  warp.live &= ~self.bit;
  warp.ready &= ~self.bit;
  machine.cta_finished = --warp.cta->live == 0;
  Lane& next = machine.cta_finished ? machine.host : warp.ready ? pick_in(warp) : pick_or_host();
  switch_context(self.context, switch_target(next).context);
  std::abort();  // a finished fiber is never picked
}

void run_until_idle() {
  machine.cta_finished = false;
  if (Lane* next = pick_lane()) {
    switch_target(*next);
    switch_context(machine.host.context, next->context);
  }
  races::acquire(&launch_tag);
}

void fail(const char* format, ...) {
  char text[600];
  va_list values;
  va_start(values, format);
  int length = vsnprintf(text, sizeof text, format, values);
  va_end(values);
  if (length >= static_cast<int>(sizeof text)) length = sizeof text - 1;
  Lane& self = *machine.current;
  const Cta& cta = *self.warp->cta;
  snprintf(text + length, sizeof text - static_cast<size_t>(length),
           " [cta %d, sm %d, warp %d, thread %d]", cta.index, cta.smid, self.warp->index,
           self.thread);
  machine.error = text;
  switch_context(self.context, switch_target(machine.host).context);
  std::abort();  // the launch is abandoned
}

// Only barriers of both kinds can be waited for in vain: a warp at another collective has lanes
// that run on, or that wait there.
void report_deadlock() {
  std::string text = "deadlock, nothing can run:";
  int listed = 0;
  for (const Warp* warp : machine.warps) {
    const bool waits = warp->blocked_at >= 0 || warp->parked;
    if (!waits || warp->live == 0 || ++listed > kListedWarps) continue;
    text += (listed > 1 ? "; cta " : " cta ") + std::to_string(warp->cta->index) + " warp " +
            std::to_string(warp->index) + " waits at ";
    if (warp->parked) {
      text += parked_text(*warp);
      continue;
    }
    const Barrier& barrier = warp->cta->barriers[warp->blocked_at];
    text += "barrier " + std::to_string(warp->blocked_at) + " (" + std::to_string(barrier.arrived) +
            " of " + std::to_string(barrier.expected) + " threads)";
  }
  if (listed > kListedWarps) {
    text += "; and " + std::to_string(listed - kListedWarps) + " more warps";
  }
  machine.error = text;
}

}  // namespace pod::emulator
