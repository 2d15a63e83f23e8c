// faults.cpp: a wild access of a kernel becomes an error text; the process goes on.

#include <pthread.h>
#include <setjmp.h>
#include <signal.h>

#include <cstdio>

#include "engine.h"

namespace pod::emulator {

#ifdef POD_EMULATOR_TSAN

// ThreadSanitizer has signal handlers of its own and does not follow a jump out of one.
bool run_catching_faults(void (*body)()) {
  body();
  return true;
}

#else

namespace {

constexpr int kSignals[] = {SIGSEGV, SIGBUS, SIGFPE};
constexpr int kSignalCount = 3;

sigjmp_buf way_out;
pthread_t owner;
volatile sig_atomic_t running = 0;
struct sigaction previous[kSignalCount];
char handler_stack[64 << 10];  // a fiber that overflowed its stack has none left
char fault_text[256];

void restore_handlers() {
  for (int i = 0; i < kSignalCount; ++i) sigaction(kSignals[i], &previous[i], nullptr);
}

void describe(int signal_number, const void* address) {
  const Lane* lane = machine.current;
  const char* what = signal_number == SIGFPE ? "arithmetic fault at" : "bad access to";
  if (!lane || !lane->warp) {
    snprintf(fault_text, sizeof fault_text, "%s %p outside any thread", what, address);
    return;
  }
  const Cta& cta = *lane->warp->cta;
  const uint8_t* byte = static_cast<const uint8_t*>(address);
  const bool past_shared = byte >= cta.dynamic_end && byte < cta.dynamic_end + 4096;
  const uint8_t* lowest = lane->warp->lanes[0].stack;
  const bool below_stack = byte < lowest && byte >= lowest - 2 * 4096;
  const char* hint = past_shared   ? " (past the end of dynamic shared memory)"
                     : below_stack ? " (stack overflow)"
                                   : "";
  snprintf(fault_text, sizeof fault_text, "%s %p%s [cta %d, sm %d, warp %d, thread %d]", what,
           address, hint, cta.index, cta.smid, lane->warp->index, lane->thread);
}

void on_fault(int signal_number, siginfo_t* info, void*) {
  if (!running || !pthread_equal(pthread_self(), owner)) {
    restore_handlers();  // not ours: the access repeats and meets whoever was there before
    return;
  }
  describe(signal_number, info->si_addr);
  siglongjmp(way_out, 1);
}

}  // namespace

bool run_catching_faults(void (*body)()) {
  owner = pthread_self();
  stack_t stack{}, previous_stack{};
  stack.ss_sp = handler_stack;
  stack.ss_size = sizeof handler_stack;
  sigaltstack(&stack, &previous_stack);
  struct sigaction action{};
  action.sa_sigaction = on_fault;
  action.sa_flags = SA_SIGINFO | SA_ONSTACK;
  for (int i = 0; i < kSignalCount; ++i) sigaction(kSignals[i], &action, &previous[i]);
  const bool faulted = sigsetjmp(way_out, 1) != 0;
  if (!faulted) {
    running = 1;
    body();
  }
  running = 0;
  restore_handlers();
  sigaltstack(&previous_stack, nullptr);
  if (faulted) machine.error = fault_text;
  return !faulted;
}

#endif

}  // namespace pod::emulator
