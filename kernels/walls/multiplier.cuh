// multiplier.cuh: a warpgroup that owns 64 query rows and runs FlashAttention-3's inner loop over
// the tiles of a ring: scores of one tile and values of the one before are in flight together, and
// the softmax runs beside the latter.
//
// No mask, no ends of rows: what is measured is the steady state.
#pragma once

#include "cluster.cuh"
#include "pod/lazy_softmax.cuh"
#include "pod/mma/warpgroup.cuh"
#include "streams.cuh"

namespace pod::walls {

constexpr int kGroups = 2, kGroupRows = 64;

// Barriers of the ring. K and V of a stage land and are freed apart.
template <int kStages>
struct RingBarriers {
  uint64_t keys[kStages], values[kStages], keys_free[kStages], values_free[kStages];
  int is_last[kStages];  // written before the stage's keys are told
};

template <int kKeys, int kStages>
struct Ring {
  static constexpr uint32_t kTileBytes = kKeys * kRowBytes;
  static constexpr uint32_t kBytes = 2 * kStages * kTileBytes;
  uint32_t base;
  RingBarriers<kStages>* barriers;
  POD_DEVICE uint32_t k(int stage) const { return base + stage * kTileBytes; }
  POD_DEVICE uint32_t v(int stage) const { return base + (kStages + stage) * kTileBytes; }
};

// A place of the ring, and how often it has come round.
template <int kStages>
struct Turn {
  int stage = 0;
  uint32_t parity = 0;
  POD_DEVICE void next() {
    stage = stage + 1 == kStages ? 0 : stage + 1;
    if (stage == 0) parity ^= 1;
  }
};

// Of kCtas CTAs of a cluster that free each other's places, or of one that is alone.
template <int kKeys, int kStages, int kCtas = 1>
class Multiplier {
 public:
  static constexpr int kColumns = kKeys / Fragment::kColumns;
  using QueryPanels = layout::Panels<128, kGroups * kGroupRows>;
  using KeyPanels = layout::Panels<128, kKeys>;

  POD_DEVICE Multiplier(const Ring<kKeys, kStages>& ring, uint32_t q, int group, bool ordered)
      : ring_(ring), q_(q + group * kGroupRows * QueryPanels::kRowBytes), group_(group),
        ordered_(ordered), lane_(ptx::thread_index() % kWarpSize) {}

  POD_DEVICE void run(int64_t cycles, Record& record) {
    Watch watch(record, cycles);
    Turn<kStages> turn;
    int64_t tiles = 1;
    mbarrier_wait(address(ring_.barriers->keys[0]), 0);
    issue_scores(0);
    ptx::wgmma_wait<0>();
    ptx::hold(s_[0]);
    free(ring_.barriers->keys_free[0]);
    weigh();
    mma::pack_weights<bf16>(p_, s_);
    int last = ring_.barriers->is_last[0];
    if (ordered_ && group_ == 1) ptx::bar_arrive(1, kPairThreads);
    while (!last) {
      const Turn<kStages> before = turn;
      turn.next();
      mbarrier_wait(address(ring_.barriers->keys[turn.stage]), turn.parity);
      last = ring_.barriers->is_last[turn.stage];
      if (ordered_) ptx::bar_sync(1 + group_, kPairThreads);
      ptx::hold(state_.o[0]);
      issue_scores(turn.stage);
      mbarrier_wait(address(ring_.barriers->values[before.stage]), before.parity);
      issue_values(before.stage);
      if (ordered_) ptx::bar_arrive(2 - group_, kPairThreads);
      ptx::wgmma_wait<1>();
      ptx::hold(s_[0]);
      free(ring_.barriers->keys_free[turn.stage]);
      const bool grown = weigh();
      ptx::wgmma_wait<0>();
      ptx::hold(state_.o[0]);
      free(ring_.barriers->values_free[before.stage]);
      if (grown) rescale();
      mma::pack_weights<bf16>(p_, s_);
      ++tiles;
    }
    // The other group has told of its last turn: nobody leaves a barrier half full.
    if (ordered_ && group_ == 0) ptx::bar_sync(1, kPairThreads);
    mbarrier_wait(address(ring_.barriers->values[turn.stage]), turn.parity);
    ptx::hold(state_.o[0]);
    issue_values(turn.stage);
    ptx::wgmma_wait<0>();
    ptx::hold(state_.o[0]);
    if (state_.o[0][0][0] == 1234.5f) tiles = -1;
    watch.end(tiles);
  }

 private:
  static constexpr int kPairThreads = kGroups * 128;
  static constexpr float kScale = 0.1275f;  // of scores of random rows, as 1 / sqrt(128) log2(e)

  POD_DEVICE static uint32_t address(const uint64_t& barrier) {
    return ptx::smem_address(&barrier);
  }
  // One arrival per warp and CTA: what it read, it has read.
  POD_DEVICE void free(const uint64_t& barrier) {
    if constexpr (kCtas > 1) {
      if (lane_ < kCtas) arrive_at(at_rank(address(barrier), lane_));
    } else if (lane_ == 0) {
      mbarrier_arrive(address(barrier));
    }
  }
  POD_DEVICE void issue_scores(int stage) {
    ptx::wgmma_fence();
    mma::issue_scores<bf16, 128, QueryPanels, KeyPanels>(
        s_[0], QueryPanels::columns_descriptor(q_), KeyPanels::columns_descriptor(ring_.k(stage)));
    ptx::wgmma_commit();
  }
  POD_DEVICE void issue_values(int stage) {
    ptx::wgmma_fence();
    mma::issue_values<bf16, 128, KeyPanels>(state_.o[0], p_,
                                            KeyPanels::rows_descriptor(ring_.v(stage)));
    ptx::wgmma_commit();
  }

  // softmax_step_lazily without O, which is in flight: rescale() follows where it says so.
  POD_DEVICE bool weigh() {
    float highest[2];
    bool grown[2];
    POD_UNROLL
    for (int half = 0; half < 2; ++half) {
      const float m = state_.m[0][half];
      highest[half] = highest_of(s_[0], half, m);
      grown[half] = (highest[half] - m) * kScale > 8.f;
    }
    const bool any = ptx::any(grown[0] || grown[1]);
    if (any) {
      POD_UNROLL
      for (int half = 0; half < 2; ++half) {
        rescale_[half] = grown[half] ? moved(state_.m[0][half], highest[half], kScale) : 1.f;
        if (grown[half]) state_.m[0][half] = highest[half];
        state_.add(0, half, rescale_[half], 0.f);
      }
    }
    POD_UNROLL
    for (int half = 0; half < 2; ++half) {
      const float reference = state_.m[0][half] * kScale;
      float sum = 0.f;
      POD_UNROLL
      for (int n = 0; n < kColumns; ++n) {
        POD_UNROLL
        for (int pair = 0; pair < Fragment::kPairs; ++pair) {
          float& x = s_[0][n][Fragment::at(half, pair)];
          x = ptx::ex2(x * kScale - reference);
          sum += x;
        }
      }
      state_.add(0, half, 1.f, sum);
    }
    return any;
  }
  POD_DEVICE void rescale() {
    Fragment::for_each_row<1>([&](int, int half) {
      POD_UNROLL
      for (int i = 0; i < 128 / Fragment::kColumns; ++i) {
        state_.o[0][i][Fragment::at(half, 0)] *= rescale_[half];
        state_.o[0][i][Fragment::at(half, 1)] *= rescale_[half];
      }
    });
  }

  const Ring<kKeys, kStages> ring_;
  uint32_t q_;
  int group_;
  bool ordered_;
  int lane_;
  RowState<128, 1> state_;
  float s_[1][kColumns][4];
  mma::Weights<1, kColumns> p_;
  float rescale_[2] = {1.f, 1.f};
};

}  // namespace pod::walls
