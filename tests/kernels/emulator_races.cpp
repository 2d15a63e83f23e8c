// emulator_races.cpp: kernels with and without data races, for ThreadSanitizer to tell apart.
//
// emulator_races NAME runs one of them; ThreadSanitizer's exit code says whether it saw a race.

#include <cstdio>
#include <cstring>

#include "emulator_race_boxes.h"
#include "pod/ptx/async_copy.cuh"
#include "pod/ptx/ldmatrix.cuh"
#include "pod/ptx/sync.cuh"
#include "pod/ptx/wgmma.cuh"

using namespace race_boxes;

namespace {

constexpr int kHalf = kThreads / 2;
alignas(16) int source[kThreads * 4];
int counter;

struct Shared {
  int value;
};

// The thread's share of the tile.
void fill_tile(int value) {
  for (uint32_t i = 0; i < kTileBytes / 4; i += kThreads) {
    reinterpret_cast<int*>(tile())[i + static_cast<uint32_t>(thread_index())] = value;
  }
  ptx::fence_proxy_async();
}

void issue_product(float (&d)[8][4]) {
  const uint64_t descriptor = ptx::wgmma_descriptor<128>(ptx::smem_address(tile()), 16, 1024);
  ptx::wgmma_fence();
  ptx::wgmma_ss<bf16>(d, descriptor, descriptor, false);
  ptx::wgmma_commit();
}

// Of A M-major, by the same bytes.
void issue_transposed(float (&d)[2][4]) {
  const uint64_t descriptor = ptx::wgmma_descriptor<128>(ptx::smem_address(tile()), 16, 1024);
  ptx::wgmma_fence();
  ptx::wgmma_ss_transposed<bf16>(d, descriptor, descriptor);
  ptx::wgmma_commit();
}

// The thread's row of its warp's matrices, 16 bytes of the tile.
uint8_t* matrix_row(int thread) { return tile() + 16 * thread; }

void store_matrices(int thread) {
  const uint32_t zeros[4] = {};
  ptx::stmatrix_x4_trans(ptx::smem_address(matrix_row(thread)), zeros);
}

int* cells() {
  POD_DYNAMIC_SMEM(smem);
  return reinterpret_cast<int*>(smem);
}

// Half of the CTA fills a buffer for the other half, which gives it back.
void pass_on(int rounds) {
  const int thread = thread_index();
  for (int round = 0; round < rounds; ++round) {
    if (thread < kHalf) {
      if (round > 0) ptx::bar_sync(2, kThreads);
      cells()[thread] = round;
      ptx::bar_arrive(1, kThreads);
    } else {
      ptx::bar_sync(1, kThreads);
      use(cells()[thread - kHalf]);
      if (round + 1 < rounds) ptx::bar_arrive(2, kThreads);
    }
  }
}

// A pipeline as the kernels have it: copies, matrices, wgmma, a shared variable, reuse of the
// buffer.
void clean() {
  POD_DYNAMIC_SMEM(smem);
  POD_STATIC_SMEM(Shared, shared);
  const int thread = thread_index();
  for (int round = 0; round < 3; ++round) {
    if (thread == 0) shared.value = ptx::atomic_add(&counter, 1);
    ptx::cp_async_16(ptx::smem_address(smem + 16 * thread), source + 4 * thread, true);
    ptx::cp_async_commit();
    ptx::cp_async_wait<0>();
    ptx::sync_cta();
    uint32_t d[4];
    ptx::ldmatrix_x4(d, ptx::smem_address(smem + 16 * (kThreads - 1 - thread)));
    use(shared.value);
    ptx::sync_cta();
    smem[thread] = 0;
    ptx::sync_warp();
    use(smem[thread ^ 1]);
    ptx::sync_cta();
    fill_tile(0);
    ptx::sync_cta();
    float sums[8][4];
    issue_product(sums);
    ptx::wgmma_wait<0>();
    use(static_cast<int>(sums[7][3]));
    ptx::sync_cta();
    store_matrices(thread);
    ptx::fence_proxy_async();
    ptx::sync_cta();
    use(*matrix_row(kThreads - 1 - thread));
    float few[2][4] = {};
    issue_transposed(few);
    ptx::wgmma_wait<0>();
    use(static_cast<int>(few[1][3]));
    ptx::sync_cta();
    pass_on(5);
    ptx::sync_cta();
  }
  read_boxes(5);
}

void counter_without_atomic() {
  if (thread_index() == 0) counter = counter + 1;
}

void shared_variable_without_barrier() {
  POD_STATIC_SMEM(Shared, shared);
  if (thread_index() == 0) shared.value = 1;
  use(shared.value);
}

void buffer_reused_without_barrier() {
  POD_DYNAMIC_SMEM(smem);
  for (int round = 0; round < 2; ++round) {
    smem[thread_index()] = 0;
    ptx::sync_cta();
    use(smem[thread_index() ^ 32]);
  }
}

void lanes_without_warp_sync() {
  POD_DYNAMIC_SMEM(smem);
  smem[16 * thread_index()] = 0;
  uint32_t d[4];
  ptx::ldmatrix_x4(d, ptx::smem_address(smem + 16 * (thread_index() ^ 1)));
}

void stored_matrices_read_without_warp_sync() {
  store_matrices(thread_index());
  use(*matrix_row(thread_index() ^ 1));
}

void matrices_stored_over_what_others_read() {
  use(*matrix_row(thread_index() ^ 32));
  store_matrices(thread_index());
}

void copies_read_by_others_without_barrier() {
  POD_DYNAMIC_SMEM(smem);
  ptx::cp_async_16(ptx::smem_address(smem + 16 * thread_index()), source, true);
  ptx::cp_async_commit();
  ptx::cp_async_wait<0>();
  use(smem[16 * (thread_index() ^ 32)]);
}

void buffer_refilled_after_the_arrival() {
  const int thread = thread_index();
  if (thread < kHalf) {
    cells()[thread] = 0;
    ptx::bar_arrive(1, kThreads);
    cells()[thread] = 1;
  } else {
    ptx::bar_sync(1, kThreads);
    use(cells()[thread - kHalf]);
  }
}

// To arrive shows others what was written; it does not show what they wrote.
void buffer_read_after_an_arrival() {
  const int thread = thread_index();
  if (thread < kHalf) {
    ptx::bar_arrive(1, kThreads);
    use(cells()[thread]);
  } else {
    cells()[thread - kHalf] = 0;
    ptx::bar_sync(1, kThreads);
  }
}

void tile_multiplied_without_barrier() {
  fill_tile(0);
  float d[8][4];
  issue_product(d);
  ptx::wgmma_wait<0>();
}

void tile_refilled_before_the_wait() {
  fill_tile(0);
  ptx::sync_cta();
  float d[8][4];
  issue_product(d);
  ptx::sync_cta();
  fill_tile(0);
  ptx::wgmma_wait<0>();
}

void transposed_tile_multiplied_without_barrier() {
  if (thread_index() == 5) *matrix_row(64) = 1;  // k = 8, which it does not read itself
  float d[2][4] = {};
  issue_transposed(d);
  ptx::wgmma_wait<0>();
}

// Thread 1 alone has waited.
void box_read_without_a_wait() {
  Barriers& barriers = start_barriers();
  if (thread_index() == 0) issue_box(barriers);
  if (thread_index() == 1) ptx::mbarrier_wait(ptx::smem_address(&barriers.full), 0);
  if (thread_index() == 40) use(tile()[0]);
}

void box_over_what_others_read() {
  Barriers& barriers = start_barriers();
  if (thread_index() == 40) use(tile()[0]);
  if (thread_index() != 0) return;
  issue_box(barriers);
  ptx::mbarrier_wait(ptx::smem_address(&barriers.full), 0);
}

void buffer_read_without_an_mbarrier() {
  Barriers& barriers = start_barriers();
  if (thread_index() == 0) {
    cells()[0] = 1;
    ptx::mbarrier_arrive(ptx::smem_address(&barriers.full));
  }
  if (thread_index() == 40) use(cells()[0]);
}

// To arrive shows others what was written; it does not show what they wrote.
void buffer_read_after_an_mbarrier_arrival() {
  Barriers& barriers = start_barriers();
  if (thread_index() == 1) cells()[0] = 1;
  ptx::mbarrier_arrive(ptx::smem_address(&barriers.free));
  if (thread_index() == 40) use(cells()[0]);
}

struct Entry {
  const char* name;
  void (*kernel)();
};
const Entry kEntries[] = {
    {"clean", clean},
    {"counter_without_atomic", counter_without_atomic},
    {"shared_variable_without_barrier", shared_variable_without_barrier},
    {"buffer_reused_without_barrier", buffer_reused_without_barrier},
    {"lanes_without_warp_sync", lanes_without_warp_sync},
    {"stored_matrices_read_without_warp_sync", stored_matrices_read_without_warp_sync},
    {"matrices_stored_over_what_others_read", matrices_stored_over_what_others_read},
    {"copies_read_by_others_without_barrier", copies_read_by_others_without_barrier},
    {"buffer_refilled_after_the_arrival", buffer_refilled_after_the_arrival},
    {"buffer_read_after_an_arrival", buffer_read_after_an_arrival},
    {"tile_multiplied_without_barrier", tile_multiplied_without_barrier},
    {"tile_refilled_before_the_wait", tile_refilled_before_the_wait},
    {"transposed_tile_multiplied_without_barrier", transposed_tile_multiplied_without_barrier},
    {"box_read_without_a_wait", box_read_without_a_wait},
    {"box_over_what_others_read", box_over_what_others_read},
    {"buffer_read_without_an_mbarrier", buffer_read_without_an_mbarrier},
    {"buffer_read_after_an_mbarrier_arrival", buffer_read_after_an_mbarrier_arrival},
};

}  // namespace

extern "C" void pod_emulator_configure(int num_sms, int ctas_per_sm, int order, int copies,
                                       int preempt_percent, int seed);

int main(int count, char** arguments) {
  pod_emulator_configure(1, 2, 0, 0, 10, 1);
  for (const Entry& entry : kEntries) {
    if (count != 2 || std::strcmp(arguments[1], entry.name)) continue;
    // Three CTAs in two slots: one of them runs in memory that another has left.
    if (emulator::launch(entry.kernel, 3, kThreads, kTileBytes + 1024)) {
      fprintf(stderr, "%s\n", emulator::error());
      return 2;
    }
    return 0;
  }
  fprintf(stderr, "name one kernel\n");
  return 2;
}
