// cuts.h: how often the KV of prefill items is cut. Host only.
#pragma once

#include <cstdint>
#include <vector>

#include "plan.h"

namespace pod {

// Packed rows of a request that are an item per KV head while their KV is whole.
struct PrefillBlock {
  int tiles;  // of KV that they see
  int rows;
};

// Every block is cut into `parts` ranges of KV, and one of more tiles into ranges of `most_tiles`.
struct PrefillCut {
  int parts, most_tiles;

  int parts_of(int tiles) const;
};

// The cut of a batch; `decode_keys` are what its decode items read, of all KV heads.
PrefillCut choose_cut(const PlanProblem& problem, const PlanConfig& config,
                      const std::vector<PrefillBlock>& blocks, int64_t decode_keys);

}  // namespace pod
