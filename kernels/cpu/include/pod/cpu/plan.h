// plan.h: cuts one hybrid batch into prefill and decode items.
#pragma once

#include <cstdint>
#include <vector>

#include "pod/cpu/launch.h"

namespace pod::cpu {

struct Plan {
  std::vector<Item> prefill;  // longest first, so that the last ones leave no core alone for long
  std::vector<Item> decode;   // by request, then KV range, then head: neighbours share pages
  std::vector<SplitGroup> groups;
  std::vector<int64_t> decode_before;  // [decode + 1], cost of the items before each
  int64_t prefill_cost = 0, decode_cost = 0;
  int64_t partial_floats = 0;

  // Expected time on one core.
  double micros() const;
  // Expected share of the whole work that is prefill, 0..1.
  double prefill_share() const;
};

// Fills `plan`, keeping its allocations. Requests with one query token are decodes. The prefill KV
// is split until its items fill max_prefill_waves * threads * ctas_per_sm; `partial` pointers stay
// null until place_partials().
void make_plan(const Problem& problem, const PodConfig& config, int threads, Plan& plan);

void place_partials(Plan& plan, int head_dim, float* base);

// First key that any row of a request sees.
int first_visible(const Problem& problem, int request);

}  // namespace pod::cpu
