// ranges.h: where the keys of decode items are cut. Host only.
#pragma once

#include <cstdint>
#include <vector>

#include "plan.h"

namespace pod {

// Decode ranges begin at multiples of this many keys from the first: a unit.
constexpr int kSplitUnit = 16;

// Ends of a row's ranges in units of its keys, ascending; the last is all of them.
using Ends = std::vector<int>;

// `splits` ranges that are equal up to a unit, or as many as there are units.
Ends equal_ends(int units, int splits);

int parts_of(int keys, int length);

// Keys of a decode item at most: the config's, or fewer where the batch would leave some of `free`
// places for items idle. `keys` are those of each row of a KV head.
int decode_length(const PlanProblem& problem, const PlanConfig& config,
                  const std::vector<int>& keys, int64_t free);

// Cuts the keys of all rows of a KV head, laid end to end, into shares of one length.
class Shares {
 public:
  // In units, 0 is none.
  explicit Shares(int64_t units) : units_(units) {}
  explicit operator bool() const { return units_ > 0; }

  // The next row's.
  Ends next(int units);

 private:
  int64_t units_, at_ = 0;
};

// What prefill items take of the slots, in units that a decode would have read meanwhile.
struct Beside {
  double longest, all;
};

// Shares for `slots` that each take as many, or none where items of `length` keys are sooner done.
// They are no more items than rows and slots are, or than items of `length` keys would be.
Shares choose_shares(const PlanProblem& problem, const std::vector<int>& keys, int length,
                     int64_t slots, const Beside& beside);

}  // namespace pod
