// engine.h: what the emulator's own files share; kernels never see it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "pod/emulator/machine.h"

namespace pod::emulator {

// Static variables have the addresses from 0 on, dynamic memory those from here on. Aligned like
// dynamic memory on a GPU: to 16 bytes, no more.
constexpr uint32_t kStaticCapacity = 4096;
constexpr uint32_t kDynamicBase = kStaticCapacity + 16;

// Settings and counts (launch.cpp); both wait for a launch that is under way.
void configure(const Configuration& configuration);
Statistics take_statistics(bool reset);

// The text becomes error() of the calling thread; 1.
int refuse(const std::string& text);

// Lanes and warps (scheduler.cpp).
uint32_t random_bits();
Lane& hand_over();  // to whoever can run now; the caller switches there
void draw_preemption();
void draw_order(Warp& warp);
Lane* pick_lane();  // of any warp; null when none is ready
void run_until_idle();
[[noreturn]] void finish_lane(Lane& self);
void report_deadlock();

// Dependent launches (dependents.cpp): hide() keeps what is handed over and leaves NaN there until
// reveal(), which does nothing a second time.
void hide(const std::vector<Handed>& handed);
void reveal();
void require_waited(const Lane& self);

// Barriers (barriers.cpp).
void run_barrier(Warp& warp, bool waits);
void require_no_arrivals(const Cta& cta);

// Barriers in shared memory (mbarriers.cpp).
Mbarrier& require_mbarrier(uint32_t address, const char* what);
// Once bytes were issued or have come: lands what is waited for, ends the phase if nothing is left.
void settle(Cta& cta, Mbarrier& barrier);
// What a warp's lanes wait for, for the text of a deadlock.
std::string parked_text(const Warp& warp);
void require_nothing_expected(const Cta& cta);
// Orders the copy engine's writes (for ThreadSanitizer), by the phase that is under way.
char* phase_tag(const Mbarrier& barrier);

// Boxes (boxes.cpp).
void reset_engine(Cta& cta, size_t chunks);
void land_boxes(Cta& cta, Mbarrier& barrier);
int64_t bytes_in_flight(const Cta& cta, const Mbarrier& barrier);
// Fails when a box is on its way to these 16 bytes.
void require_landed(const Cta& cta, uint32_t address, const char* what);
// Whether a box is on its way to some byte of these.
bool may_be_unlanded(const Cta& cta, uint32_t first, uint32_t end);
void require_no_boxes(const Cta& cta);

// Counts of registers (register_counts.cpp).
void run_setmaxnreg(Warp& warp);
void require_whole_groups_moved(const Cta& cta);

// Fibers (fibers.cpp). A prepared lane starts the kernel when it is first switched to.
void prepare_stacks(Warp& warp);
void require_stack(const Lane& lane);
void prepare_fiber(Lane& lane);
void prepare_host(Lane& host);

// Collectives (instructions.cpp).
void run_ldmatrix(Warp& warp, bool trans);
void run_stmatrix(Warp& warp, int matrices);
void run_mma(Warp& warp, bool is_bf16);
void run_shuffle(Warp& warp, Collective op);
const char* name_of(Collective op);

// Asynchronous products (wgmma.cpp, wgmma_product.cpp, wgmma_registers.cpp).
constexpr unsigned kWgmmaRows = 16;  // of D, of one warp
inline unsigned first_wgmma_row(const Warp& warp) {
  return static_cast<unsigned>(warp.index % kGroupWarps) * kWgmmaRows;
}
void execute_wgmma(const Warp& warp, Wgmma& op);
// The accumulators of the lanes' d: those in flight already, or else new ones, poisoned.
Accumulators& claim_accumulators(Warp& warp);
void release_accumulators(const Accumulators& d);
// Fails when registers that an earlier instruction used have changed since the last fence.
void require_fenced_registers(Warp& warp, const uint8_t* const* lanes, size_t bytes,
                              const char* what);
void run_wgmma(Warp& warp);
void run_wgmma_fence(Warp& warp);
void run_wgmma_wait(Warp& warp);
void reset_wgmma(Warp& warp);
void require_no_wgmma(const Lane& self);
// Fails when a product in flight of any warp reads some of the bytes from `first` to before `end`.
void require_no_product_reads(const Cta& cta, uint32_t first, uint32_t end, const char* what);

// Memory (memory.cpp). Pages around a guarded block are unreadable; it ends, rounded up to 16
// bytes, where the last of them starts.
uint8_t* allocate_guarded(size_t bytes);
void release_guarded(uint8_t* block, size_t bytes);
void prepare_memory(Cta& cta, size_t dynamic_bytes);  // and poisons it
void require_no_copies(const Lane& self);
// The memory of shared addresses from `first` to before `end`; fails when they are not inside.
SharedTile require_shared(uint32_t first, uint32_t end, const char* what);
// Fails when a copy to the 16 bytes has had no proxy fence of the thread that issued it. `what`
// says who does what with them.
void require_proxy_fence(const Cta& cta, uint32_t address, const char* what);
// The copy engine wrote these 16 bytes, so nobody needs to fence.
void forget_write(Cta& cta, uint32_t address);

// Runs body(); false, with the error set, when it touched memory that it must not (faults.cpp).
bool run_catching_faults(void (*body)());

}  // namespace pod::emulator
