// fibers.cpp: stacks and first steps of fibers.

#include <cstring>

#include "engine.h"

#ifdef POD_EMULATOR_TSAN
#include <sanitizer/tsan_interface.h>
#endif

namespace pod::emulator {
namespace {

// The stacks of a warp lie side by side above one unreadable page: a page for each lane would use
// up the mappings that a process may have. No power of two, because then the same variable of all
// lanes would compete for one set of the L1 cache; an odd number of lines visits every set.
constexpr size_t kStackBytes = (128 << 10) + 17 * 64;
constexpr uint64_t kUntouched = 0x5ac5a11e57ac4b07;  // lowest word of a stack

// The first thing that a fiber runs; finish_lane() never comes back.
void enter() {
  machine.body(machine.arguments);
  finish_lane(*machine.current);
}

uint8_t* stack_top(const Lane& lane) { return lane.stack + kStackBytes; }

}  // namespace

#ifdef POD_EMULATOR_UCONTEXT

static void jump_context(Context& from, Context& to) { swapcontext(from.portable, to.portable); }

static void prepare_context(Lane& lane) {
  if (!lane.context.portable) lane.context.portable = new ucontext_t;
  ucontext_t& context = *lane.context.portable;
  getcontext(&context);
  context.uc_stack.ss_sp = lane.stack;
  context.uc_stack.ss_size = static_cast<size_t>(stack_top(lane) - lane.stack);
  context.uc_link = nullptr;
  makecontext(&context, enter, 0);
}

#else

static void prepare_context(Lane& lane) {
  // As after a call: a return address, here none, above a 16-byte boundary.
  void** top = reinterpret_cast<void**>(stack_top(lane)) - 1;
  *top = nullptr;
  lane.context.stack = top;
  lane.context.resume = reinterpret_cast<void*>(&enter);
}

#endif

#if defined(POD_EMULATOR_UCONTEXT) || defined(POD_EMULATOR_TSAN)
void switch_context(Context& from, Context& to) {
  if (&from == &to) return;
#ifdef POD_EMULATOR_TSAN
  __tsan_switch_to_fiber(to.race_fiber, __tsan_switch_to_fiber_no_sync);
#endif
  jump_context(from, to);
}
#endif

void prepare_stacks(Warp& warp) {
  if (warp.lanes[0].stack) return;
  uint8_t* stacks = allocate_guarded(kLanes * kStackBytes);
  for (Lane& lane : warp.lanes) lane.stack = stacks + static_cast<size_t>(lane.index) * kStackBytes;
}

void require_stack(const Lane& lane) {
  if (std::memcmp(lane.stack, &kUntouched, sizeof kUntouched)) {
    fail("stack overflow: a thread has %zu bytes for its variables", kStackBytes);
  }
}

void prepare_fiber(Lane& lane) {
  std::memcpy(lane.stack, &kUntouched, sizeof kUntouched);
#ifdef POD_EMULATOR_TSAN
  if (lane.context.race_fiber) __tsan_destroy_fiber(lane.context.race_fiber);
  lane.context.race_fiber = __tsan_create_fiber(0);
#endif
  prepare_context(lane);
}

void prepare_host(Lane& host) {
#ifdef POD_EMULATOR_UCONTEXT
  if (!host.context.portable) host.context.portable = new ucontext_t;
#endif
#ifdef POD_EMULATOR_TSAN
  host.context.race_fiber = __tsan_get_current_fiber();
#endif
  host.warp = nullptr;
}

}  // namespace pod::emulator
