// group_decoder.cuh: decode by wgmma with its operands swapped: 64 keys are the rows, 8 packed
// query rows the columns of scores; 64 of a head's columns the rows of O. What a warp needs 128
// mma.sync for takes the group 16 wgmma, and O eight registers.
//
// Smem    places of 64 rows as two panels, keys and values in turns | weights [8, 64] as a panel
#pragma once

#include "decoder.cuh"
#include "pod/layout/panels.cuh"

namespace pod::walls {

constexpr int kWideKeys = 64, kWidePlaces = 4, kWideThreads = 128;
constexpr uint32_t kWidePlaceBytes = kWideKeys * kRowBytes;
constexpr uint32_t kPanelRowBytes = layout::Panels<128, 8>::kRowBytes;
constexpr uint32_t kWideBytes = kWidePlaces * kWidePlaceBytes + 8 * kPanelRowBytes;
constexpr int kWideBarrier = 4;

// D[64, 8] (+)= A[64, 16] B[16, 8]; A K-major, or with kTransposed M-major; B K-major.
template <bool kTransposed>
POD_DEVICE void wgmma_8(float (&d)[4], uint64_t a, uint64_t b, bool accumulate) {
  asm volatile(
      "{ .reg .pred p; setp.ne.b32 p, %6, 0; wgmma.mma_async.sync.aligned.m64n8k16.f32.bf16.bf16 "
      "{%0,%1,%2,%3}, %4, %5, p, 1, 1, %7, 0; }"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "l"(a), "l"(b), "r"(static_cast<int>(accumulate)), "n"(kTransposed));
}

// stmatrix of two 8x8 tiles, transposed: lanes 0 .. 15 name the rows they become.
POD_DEVICE void store_transposed(uint32_t smem, uint32_t first, uint32_t second) {
  asm volatile("stmatrix.sync.aligned.m8n8.x2.trans.shared.b16 [%0], {%1, %2};" ::"r"(smem),
               "r"(first), "r"(second)
               : "memory");
}

// A barrier of the group that also tells whether some thread says so.
POD_DEVICE bool any_of_group(bool here) {
  int any;
  asm volatile(
      "{ .reg .pred p, q; setp.ne.b32 p, %1, 0; barrier.cta.red.or.pred q, %2, %3, p;\n"
      "selp.b32 %0, 1, 0, q; }"
      : "=r"(any)
      : "r"(static_cast<int>(here)), "n"(kWideBarrier), "n"(kWideThreads)
      : "memory");
  return any;
}

// In shared memory: what the warps tell each other.
struct GroupNotes {
  float maxima[4][8];
  int over;
};

class GroupDecoder {
 public:
  using KeyPanels = layout::Panels<128, kWideKeys>;
  using QueryPanels = layout::Panels<128, 128>;  // rows 0 .. 7 of the multipliers' Q

  POD_DEVICE GroupDecoder(const Stream& s, uint32_t places, uint32_t q, GroupNotes& notes)
      : s_(s), rows_(s, 0), places_(places), notes_(notes), q_(QueryPanels::columns_descriptor(q)),
        thread_(ptx::thread_index() % kWideThreads), lane_(thread_ % kWarpSize),
        warp_(thread_ / kWarpSize) {}

  POD_DEVICE void run(int64_t cycles, Record& record) {
    Watch watch(record, cycles);
    ask(0);
    ask(1);
    ask(2);
    int64_t steps = 0;
    bool over = false;
    for (int place = 0; !over; place ^= 2) {
      ptx::cp_async_wait<2>();
      ptx::fence_proxy_async();
      ptx::bar_sync(kWideBarrier, kWideThreads);
      scores(place);
      const bool grown = weigh();
      ptx::cp_async_wait<1>();
      ptx::fence_proxy_async();
      // Time is up for all at once, as one warp sees it.
      if (warp_ == 0) notes_.over = watch.is_over();
      if (any_of_group(grown)) raise();
      over = notes_.over;
      ask(place ^ 3);
      ask(place);
      values(place + 1);
      ++steps;
    }
    ptx::wgmma_wait<0>();
    hold_output();
    ptx::cp_async_wait<0>();
    if (o_[0][0] == 1234.5f || l_[0] == 1234.5f) steps = -1;
    watch.end(steps);
  }

 private:
  // 16 lanes to a row, as pages of one key need it.
  POD_DEVICE void ask(int place) {
    const int chunk = thread_ % 16, first = thread_ / 16;
    const uint32_t to = places_ + place * kWidePlaceBytes;
    POD_UNROLL
    for (int i = 0; i < kWideKeys / 8; ++i) {
      const int row = first + 8 * i;
      const int64_t from = rows_.first(kWideKeys, row, 1);
      copy_16(KeyPanels::chunk_address(to, row, chunk), s_.pool + from * kRowBytes + chunk * 16,
              s_.policy);
    }
    ptx::cp_async_commit();
    rows_.next += rows_.step;
  }
  POD_DEVICE static void hold(float (&d)[4]) {
    asm volatile("" : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])::"memory");
  }
  POD_DEVICE void hold_output() {
    hold(o_[0]);
    hold(o_[1]);
  }
  // And the values before are done.
  POD_DEVICE void scores(int place) {
    const uint64_t keys = KeyPanels::columns_descriptor(places_ + place * kWidePlaceBytes);
    hold(x_);
    ptx::wgmma_fence();
    POD_UNROLL
    for (int k = 0; k < kHeadDim / 16; ++k) {
      wgmma_8<false>(x_, KeyPanels::columns_at(keys, k), QueryPanels::columns_at(q_, k), k > 0);
    }
    ptx::wgmma_commit();
    ptx::wgmma_wait<0>();
    hold(x_);
    hold_output();
  }
  // Weights into shared memory, by the maxima so far; whether one has grown too far for that.
  POD_DEVICE bool weigh() {
    bool grown = false;
    float p[4];
    POD_UNROLL
    for (int i = 0; i < 4; ++i) {
      const float above = x_[i] * kScale - m_[i % 2];
      grown |= above > 8.f;
      p[i] = ptx::ex2(above);
    }
    sum_[0] = p[0] + p[2];
    sum_[1] = p[1] + p[3];
    const uint32_t weights = places_ + kWidePlaces * kWidePlaceBytes;
    const int row = lane_ % 8, chunk = 2 * warp_ + lane_ / 8 % 2;
    store_transposed(weights + row * kPanelRowBytes + ((chunk ^ row) << 4),
                     ptx::pack2<bf16>(p[0], p[1]), ptx::pack2<bf16>(p[2], p[3]));
    return grown;
  }
  // All threads: higher maxima, O and the sums by them, and the weights again.
  POD_DEVICE void raise() {
    float highest[2] = {fmaxf(x_[0], x_[2]), fmaxf(x_[1], x_[3])};
    POD_UNROLL
    for (int j = 0; j < 2; ++j) {
      POD_UNROLL
      for (int mask = 4; mask < kWarpSize; mask *= 2) {
        highest[j] = fmaxf(highest[j], ptx::shfl_xor(highest[j], mask));
      }
      if (lane_ < 4) notes_.maxima[warp_][2 * lane_ + j] = highest[j];
    }
    ptx::bar_sync(kWideBarrier, kWideThreads);
    POD_UNROLL
    for (int j = 0; j < 2; ++j) {
      float m = m_[j];
      POD_UNROLL
      for (int w = 0; w < 4; ++w) m = fmaxf(m, notes_.maxima[w][2 * (lane_ % 4) + j] * kScale);
      const float factor = ptx::ex2(m_[j] - m);
      m_[j] = m;
      l_[j] *= factor;
      POD_UNROLL
      for (int half = 0; half < 2; ++half) {
        o_[half][j] *= factor;
        o_[half][2 + j] *= factor;
      }
    }
    weigh();
    ptx::fence_proxy_async();
    ptx::bar_sync(kWideBarrier, kWideThreads);
  }
  POD_DEVICE void values(int place) {
    l_[0] += sum_[0];
    l_[1] += sum_[1];
    const uint64_t keys = KeyPanels::rows_descriptor(places_ + place * kWidePlaceBytes);
    const uint64_t weights = ptx::wgmma_descriptor<kPanelRowBytes>(
        places_ + kWidePlaces * kWidePlaceBytes, 16, 8 * kPanelRowBytes);
    hold_output();
    ptx::wgmma_fence();
    POD_UNROLL
    for (int k = 0; k < kWideKeys / 16; ++k) {
      POD_UNROLL
      for (int half = 0; half < 2; ++half) {
        wgmma_8<true>(o_[half], KeyPanels::rows_at(keys, k) + half * (KeyPanels::kPanelBytes >> 4),
                      weights + 2 * k, true);
      }
    }
    ptx::wgmma_commit();
  }

  static constexpr float kScale = 0.1275f;

  const Stream& s_;
  Rows rows_;
  uint32_t places_;
  GroupNotes& notes_;
  uint64_t q_;
  int thread_, lane_, warp_;
  float m_[2] = {-1e30f, -1e30f}, l_[2] = {}, sum_[2];
  float o_[2][4] = {}, x_[4] = {};
};

}  // namespace pod::walls
