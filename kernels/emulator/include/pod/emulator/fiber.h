// fiber.h: a thread of the emulated GPU is a fiber; switching from one to the next is the hot path.
//
// The switch is inlined where a lane waits, as a jump to the place where the next lane waits. Most
// often all lanes wait at one place, so the branch predictor knows the target; returning through
// the stack of another fiber would miss each time, because the predictor pairs calls with returns.
#pragma once

#if !defined(__x86_64__) && !defined(POD_EMULATOR_UCONTEXT)
#define POD_EMULATOR_UCONTEXT
#endif
#ifdef POD_EMULATOR_UCONTEXT
#include <ucontext.h>
#endif

namespace pod::emulator {

// Where a fiber waits. Valid only while it does not run.
struct Context {
  void* stack = nullptr;   // its stack pointer
  void* resume = nullptr;  // the instruction that it goes on with
#ifdef POD_EMULATOR_UCONTEXT
  ucontext_t* portable = nullptr;
#endif
#ifdef POD_EMULATOR_TSAN
  void* race_fiber = nullptr;  // ThreadSanitizer's name for it
#endif
};

#ifndef POD_EMULATOR_UCONTEXT

#ifdef __AVX512F__
#define POD_EMULATOR_WIDE_REGISTERS                                                             \
  , "xmm16", "xmm17", "xmm18", "xmm19", "xmm20", "xmm21", "xmm22", "xmm23", "xmm24", "xmm25",   \
      "xmm26", "xmm27", "xmm28", "xmm29", "xmm30", "xmm31", "k1", "k2", "k3", "k4", "k5", "k6", \
      "k7"
#else
#define POD_EMULATOR_WIDE_REGISTERS
#endif

// Saves only what the compiler keeps alive here: every register is declared lost. rbp is saved by
// hand because it may be the frame pointer. Callers call other functions, too, so they have no red
// zone that the push could overwrite.
[[gnu::always_inline]] inline void jump_context(Context& from, Context& to) {
  Context* save = &from;
  Context* load = &to;
  asm volatile(
      "push %%rbp\n\t"
      "lea 1f(%%rip), %%rax\n\t"
      "mov %%rsp, (%[save])\n\t"
      "mov %%rax, 8(%[save])\n\t"
      "mov (%[load]), %%rsp\n\t"
      "jmp *8(%[load])\n"
      "1:\n\t"
      "pop %%rbp"
      : [save] "+D"(save), [load] "+S"(load)
      :
      : "rax", "rbx", "rcx", "rdx", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15", "xmm0",
        "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11",
        "xmm12", "xmm13", "xmm14", "xmm15", "cc", "memory" POD_EMULATOR_WIDE_REGISTERS);
}

#endif

#if defined(POD_EMULATOR_UCONTEXT) || defined(POD_EMULATOR_TSAN)
// Out of line: ThreadSanitizer must not see the switch inside a function that it instruments.
void switch_context(Context& from, Context& to);
#else
[[gnu::always_inline]] inline void switch_context(Context& from, Context& to) {
  jump_context(from, to);
}
#endif

}  // namespace pod::emulator
