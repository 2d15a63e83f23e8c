// mbarrier.cuh: barriers in shared memory that count arrivals of threads and bytes of the copy
// engine (sm_90).
//
// A barrier goes through phases 0, 1, ..; the parity of a phase is its number's lowest bit. A phase
// ends when as many arrivals as mbarrier_init() said, and all bytes that mbarrier_expect() said,
// have come. Eight bytes, at a multiple of 8.
//
// Order: one thread inits and publishes; a barrier of threads; then any thread may use it.
#pragma once

#include "pod/ptx/platform.cuh"

namespace pod::ptx {

#ifdef __CUDACC__

// mbarrier.init: `arrivals` end each phase, at least 1.
POD_DEVICE void mbarrier_init(uint32_t barrier, int arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(arrivals) : "memory");
}

// fence.mbarrier_init: what this thread initialised becomes visible to the copy engine. A barrier
// of threads carries that to the others.
POD_DEVICE void mbarrier_publish() {
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}

// mbarrier.arrive: what the thread wrote before is seen by those that wait for the phase.
POD_DEVICE void mbarrier_arrive(uint32_t barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory");
}

// mbarrier.arrive.expect_tx: arrives, and the phase waits for so many bytes more.
POD_DEVICE void mbarrier_expect(uint32_t barrier, uint32_t bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes)
               : "memory");
}

// mbarrier.try_wait.parity until it says so: returns when the phase of this parity has ended, at
// once when the barrier is in the phase after. Bytes that the phase waited for can be read then.
POD_DEVICE void mbarrier_wait(uint32_t barrier, uint32_t parity) {
  asm volatile(
      "{ .reg .pred p;\n"
      "wait: mbarrier.try_wait.parity.shared::cta.b64 p, [%0], %1;\n"
      "@p bra done;\n"
      "bra wait;\n"
      "done: }" ::"r"(barrier),
      "r"(parity)
      : "memory");
}

#else

inline void mbarrier_init(uint32_t barrier, int arrivals) {
  emulator::mbarrier_init(barrier, arrivals);
}
inline void mbarrier_publish() { emulator::mbarrier_publish(); }
inline void mbarrier_arrive(uint32_t barrier) { emulator::mbarrier_arrive(barrier, 0); }
inline void mbarrier_expect(uint32_t barrier, uint32_t bytes) {
  emulator::mbarrier_arrive(barrier, bytes);
}
inline void mbarrier_wait(uint32_t barrier, uint32_t parity) {
  emulator::mbarrier_wait(barrier, parity);
}

#endif

}  // namespace pod::ptx
