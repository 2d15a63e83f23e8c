// long_sum.h: O of an item, summed over any number of keys without drift.
//
// Products with V are added up in O; after kFoldKeys of them O is folded into a sum that keeps what
// its roundings lose. Short items never fold. The item owns the buffers and says how each vector of
// the earlier sum is rescaled.
#pragma once

#include "pod/cpu/launch.h"
#include "pod/cpu/softmax.h"

namespace pod::cpu::POD_ISA {

class LongSum {
 public:
  LongSum(float* o, float* sum, float* low, int size) : o_(o), sum_(sum), low_(low), size_(size) {}

  bool folded() const { return folded_; }

  // Whether O, with `keys` more keys in it, is to be folded.
  bool grown(int keys) { return (keys_ += keys) >= kFoldKeys; }

  // Call before the vectors of a fold.
  void start() {
    for (int i = 0; !folded_ && i < size_; i += kLanes) {
      store(sum_ + i, VecF{});
      store(low_ + i, VecF{});
    }
    folded_ = true;
    keys_ = 0;
  }

  // Adds the vector of O at `at` to `keep` times its earlier sum.
  void fold(int at, VecF keep) {
    VecF whole = load(sum_ + at) * keep, rest = load(low_ + at) * keep;
    add_exactly(whole, rest, load(o_ + at));
    store(sum_ + at, whole);
    store(low_ + at, rest);
    store(o_ + at, VecF{});
  }

  // Leaves the whole in O; the last fold has been made.
  void finish() {
    for (int i = 0; i < size_; i += kLanes) store(o_ + i, load(sum_ + i) + load(low_ + i));
  }

 private:
  float *o_, *sum_, *low_;
  int size_;
  int keys_ = 0;
  bool folded_ = false;
};

}  // namespace pod::cpu::POD_ISA
