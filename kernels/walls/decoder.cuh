// decoder.cuh: a warp that streams keys and values and multiplies them by mma.sync, as decode does:
// 16 packed query rows, 16 keys a step.
//
// Smem    of a warp: places of 16 rows at a pitch that ldmatrix reads without bank conflicts; keys
//         and values in turns
#pragma once

#include "pod/lazy_softmax.cuh"
#include "pod/mma/products.cuh"
#include "streams.cuh"

namespace pod::walls {

constexpr int kHeadDim = 128, kStepKeys = 16;
constexpr int kPitch = kRowBytes + 16;
constexpr int kPlaceBytes = kStepKeys * kPitch;

class Decoder {
 public:
  POD_DEVICE Decoder(const Stream& s, int stages, uint32_t places, uint32_t barriers, int warp)
      : s_(s), rows_(s, warp), places_(places), barriers_(barriers), stages_(stages),
        lane_(ptx::thread_index() % kWarpSize) {}

  POD_DEVICE void run(int64_t cycles, Record& record) {
    Watch watch(record, cycles);
    for (int i = 0; i < stages_; ++i) ask(i);
    int64_t steps = 0;
    float s[1][2][4];
    mma::Weights<1, 2> p;
    // Stages are even, so that keys and values keep their parities of places.
    while (!watch.is_over()) {
      await();
      scores(s);
      take_next();
      softmax_step_lazily(state_, s, [](int, int) { return 0.1f; });
      mma::pack_weights<bf16>(p, s);
      await();
      values(p);
      take_next();
      ++steps;
    }
    for (int i = 0; i < stages_; ++i) {
      await();
      advance();
    }
    // Nothing is left out as unused.
    if (state_.o[0][0][0] == 1234.5f) steps = -1;
    watch.end(steps);
  }

 private:
  POD_DEVICE void ask(int stage) {
    const uint32_t barrier = barriers_ + 8 * stage;
    if (lane_ == 0) mbarrier_expect(barrier, kStepKeys * kRowBytes);
    ptx::sync_warp();
    if (lane_ < kStepKeys) {
      const int64_t row = rows_.first(kStepKeys, lane_, 1);
      copy_bulk(places_ + stage * kPlaceBytes + lane_ * kPitch, s_.pool + row * kRowBytes,
                kRowBytes, barrier, s_.policy);
    }
    rows_.next += rows_.step;
  }
  POD_DEVICE void await() { mbarrier_wait(barriers_ + 8 * stage_, parity_); }
  POD_DEVICE void advance() {
    stage_ = stage_ + 1 == stages_ ? 0 : stage_ + 1;
    if (stage_ == 0) parity_ ^= 1;
  }
  POD_DEVICE void take_next() {
    ptx::sync_warp();
    ask(stage_);
    advance();
  }

  POD_DEVICE void scores(float (&s)[1][2][4]) {
    Fragment::for_each(s, [](float& x) { x = 0.f; });
    const uint32_t row =
        places_ + stage_ * kPlaceBytes + (lane_ % 8 + lane_ / 16 * 8) * kPitch + lane_ / 8 % 2 * 16;
    POD_UNROLL
    for (int k = 0; k < kHeadDim / 16; ++k) {
      uint32_t b[4];
      ptx::ldmatrix_x4(b, row + k * 32);
      ptx::mma_m16n8k16<bf16>(s[0][0], q_[k], b[0], b[1]);
      ptx::mma_m16n8k16<bf16>(s[0][1], q_[k], b[2], b[3]);
    }
  }
  POD_DEVICE void values(const mma::Weights<1, 2>& p) {
    const uint32_t row = places_ + stage_ * kPlaceBytes + lane_ % 16 * kPitch + lane_ / 16 * 16;
    POD_UNROLL
    for (int d = 0; d < kHeadDim / 16; ++d) {
      uint32_t b[4];
      ptx::ldmatrix_x4_trans(b, row + d * 32);
      ptx::mma_m16n8k16<bf16>(state_.o[0][2 * d], p.a[0][0], b[0], b[1]);
      ptx::mma_m16n8k16<bf16>(state_.o[0][2 * d + 1], p.a[0][0], b[2], b[3]);
    }
  }

  const Stream& s_;
  Rows rows_;
  uint32_t places_, barriers_;
  int stages_, lane_;
  int stage_ = 0, parity_ = 0;
  RowState<kHeadDim, 1> state_;

 public:
  // Queries, whatever they are.
  POD_DEVICE void load_queries(const char* from) {
    const uint32_t* words = reinterpret_cast<const uint32_t*>(from) + lane_;
    POD_UNROLL
    for (int k = 0; k < kHeadDim / 16; ++k) {
      POD_UNROLL
      for (int i = 0; i < 4; ++i) q_[k][i] = words[(4 * k + i) * kWarpSize];
    }
  }

 private:
  uint32_t q_[kHeadDim / 16][4];
};

}  // namespace pod::walls
