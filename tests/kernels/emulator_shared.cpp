// emulator_shared.cpp: shared memory and static variables of the emulated GPU.

#include <string>

#include "emulator_unit.h"

using namespace unit;

namespace {

struct alignas(16) Shared {
  int values[4];
};

}  // namespace

CASE(a_missing_warp_sync_shows_as_poison_in_every_order) {
  for (int order = kAscending; order <= kRandom; ++order) {
    configure(order);
    for (bool synchronized : {false, true}) {
      int wrong = 0;
      expect_runs([&] {
        POD_DYNAMIC_SMEM(smem);
        int* cells = reinterpret_cast<int*>(smem);
        cells[thread_index()] = thread_index();
        if (synchronized) ptx::sync_warp();
        wrong += cells[thread_index() ^ 1] != (thread_index() ^ 1);
      });
      expect((wrong == 0) == synchronized, "order " + std::to_string(order));
    }
  }
}

CASE(a_missing_cta_barrier_shows_as_poison_in_every_order) {
  for (int order = kAscending; order <= kRandom; ++order) {
    for (bool synchronized : {false, true}) {
      int wrong = 0;
      for (int seed = 0; seed < 4; ++seed) {
        configure(order, kLandAtWait, 0, seed);
        expect_runs(
            [&] {
              POD_DYNAMIC_SMEM(smem);
              int* cells = reinterpret_cast<int*>(smem);
              cells[thread_index()] = thread_index();
              if (synchronized) ptx::sync_cta();
              wrong += cells[thread_index() ^ 32] != (thread_index() ^ 32);
            },
            64);
      }
      expect((wrong == 0) == synchronized, "order " + std::to_string(order));
    }
  }
}

CASE(shared_memory_is_poison_at_the_start_of_every_cta) {
  configure(kAscending, kLandAtWait, 0, 1, 1, 1);
  expect_runs(
      [] {
        POD_DYNAMIC_SMEM(smem);
        POD_STATIC_SMEM(Shared, shared);
        if (thread_index() == 0) {
          for (int i = 0; i < 64; ++i) expect(smem[i] == 0xff, "dynamic memory");
          for (int value : shared.values) expect(value == -1, "static memory");
        }
        ptx::sync_warp();
        smem[thread_index()] = 0;
        shared.values[thread_index() % 4] = 0;
      },
      32, 3, 64);
}

CASE(static_variables_belong_to_a_cta_and_have_addresses_of_their_own) {
  expect_runs(
      [] {
        POD_STATIC_SMEM(int, one);
        POD_STATIC_SMEM(Shared, two);
        POD_DYNAMIC_SMEM(smem);
        if (thread_index() == 0) one = cta_index();
        two.values[0] = -2;
        ptx::sync_cta();
        expect(one == cta_index(), "a CTA of its own");
        expect(ptx::smem_address(&two) % 16 == 0, "alignment");
        expect(ptx::smem_address(&two) - ptx::smem_address(&one) == 16, "one after the other");
        const uint32_t base = ptx::smem_address(smem);
        expect(base > ptx::smem_address(&two) + sizeof two, "dynamic memory lies behind");
        expect(ptx::smem_address(smem + 48) == base + 48, "offsets");
      },
      64, 4);
}

CASE(a_cta_starts_without_the_static_variables_of_the_last) {
  configure(kAscending, kLandAtWait, 0, 1, 1, 1);
  expect_runs(
      [] {
        POD_DYNAMIC_SMEM(smem);
        int* first = reinterpret_cast<int*>(smem);
        if (cta_index() == 1) {
          POD_STATIC_SMEM(int, only_in_the_second);
          first = &only_in_the_second;
        }
        *first = 1;
        POD_STATIC_SMEM(int, in_both);
        in_both = 2;
        expect(*first == 1, "two variables share memory");
      },
      32, 2);
}
