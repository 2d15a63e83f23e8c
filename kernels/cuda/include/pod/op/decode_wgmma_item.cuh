// decode_wgmma_item.cuh: decode_item on Hopper's warpgroup matrix unit, operands swapped: keys are
// the 64 rows of a product and the 16 packed query rows its columns.
//
// Scope   one warpgroup. Beside a prefill item's products every instruction of the other CTA waits
//         its turn at the matrix unit: 64 keys are 8 of these and 8 for values (D 128), where
//         four warps of mma.sync need 128
// Smem    Q [16, D] | K x stages | V x stages, or K and V in turns | weights [16, kv_rows], all in
// panels | notes;
//         afterwards O [16, D] in fp32 in the place of K and V
// Out     as decode_item
#pragma once

#include <type_traits>

#include "pod/column_softmax.cuh"
#include "pod/copy/query_tile.cuh"
#include "pod/mma/columns.cuh"
#include "pod/op/kv_loop.cuh"
#include "pod/op/kv_turns.cuh"
#include "pod/op/rows.cuh"

namespace pod::op {

// What the warps tell each other: their highest scores or sums by query row, and whether a score
// of theirs has outgrown its row's reference.
struct DecodeNotes {
  float of_rows[kGroupWarps][kDecodeRows];
  int grown[kGroupWarps];
};
static_assert(sizeof(DecodeNotes) <= kNoteBytes, "see smem.h");

template <class Variant>
class ColumnMath {
 public:
  using T = typename Variant::Element;
  static constexpr int D = Variant::head_dim, kRows = Variant::config.decode.kv_rows;
  static constexpr int kBlocks = kRows / ColumnFragment::kBlock;
  static constexpr int kPlaces = ColumnFragment::kRows;
  static constexpr ItemSmem kSmem = Smem<Variant>::decode;
  using QueryPanels = layout::Panels<D, kDecodeRows>;
  using KeyPanels = layout::Panels<D, kRows>;
  using WeightPanels = layout::Panels<kRows, kDecodeRows>;
  using Group = Scope<kGroupWarps>;

  POD_DEVICE ColumnMath(const KernelArguments& a, const Item& item, uint8_t* smem,
                        const Group& scope)
      : a_(a), item_(item), smem_(smem), scope_(scope) {}

  // Scores of a tile and, by the references so far, its weights.
  POD_DEVICE void on_keys(uint32_t k_tile, int kv) {
    ptx::wgmma_fence();
    mma::issue_column_scores<T, D, KeyPanels, QueryPanels>(
        s_, KeyPanels::columns_descriptor(k_tile),
        QueryPanels::columns_descriptor(ptx::smem_address(smem_)));
    ptx::wgmma_commit();
    ptx::wgmma_wait<0>();
    POD_UNROLL
    for (int block = 0; block < kBlocks; ++block) ptx::hold(s_[block]);
    if (a_.capped) cap_scores(s_, a_.cap_argument);
    if (is_cut(item_, kv, kRows)) mask_columns(s_, a_, item_, kv, scope_.thread);
    float highest[kPlaces];
    own_highest(highest, s_, state_);
    const bool grown = ptx::any(has_grown(highest, state_, a_.score_scale));
    if (scope_.lane() == 0) notes().grown[scope_.warp()] = grown;
    weigh();
  }

  // The barrier before it has shown the weights and what the warps said of them.
  POD_DEVICE void on_values(uint32_t v_tile) {
    bool grown = false;
    POD_UNROLL
    for (int warp = 0; warp < kGroupWarps; ++warp) grown |= notes().grown[warp] != 0;
    if (grown) raise();
    POD_UNROLL
    for (int place = 0; place < kPlaces; ++place) state_.add(place, 1.f, sums_[place]);
    hold_output();
    ptx::wgmma_fence();
    mma::issue_column_values<T, kRows, KeyPanels, WeightPanels>(
        state_.o, KeyPanels::rows_descriptor(v_tile), WeightPanels::columns_descriptor(weights()));
    ptx::wgmma_commit();
    ptx::wgmma_wait<0>();
    hold_output();
  }

  // All products are done, and all warps past them: O to where K and V were, then out.
  POD_DEVICE void store() {
    POD_UNROLL
    for (int place = 0; place < kPlaces; ++place) {
      const float sum = key_sum(state_.l[place] + state_.lost[place]);
      note(place, sum);
    }
    write_output();
    scope_.sync();
    constexpr int kThreads = kGroupThreads / kDecodeRows;  // of a row
    const int row = scope_.thread / kThreads, first = scope_.thread % kThreads * 2;
    if (row >= item_.rows) return;
    float l = 0.f;
    POD_UNROLL
    for (int warp = 0; warp < kGroupWarps; ++warp) l += notes().of_rows[warp][row];
    const RowOutput<T> output(a_, item_, row, D);
    const float inverse = output.end(ends()[row], l, first == 0);
    POD_UNROLL
    for (int column = first; column < D; column += 2 * kThreads) {
      const float* o = scratch() + row * kStride + column;
      output.store(column, o[0] * inverse, o[1] * inverse);
    }
  }

 private:
  static constexpr int kStride = scratch_stride(D);

  POD_DEVICE DecodeNotes& notes() const {
    return *reinterpret_cast<DecodeNotes*>(smem_ + kSmem.notes);
  }
  POD_DEVICE uint32_t weights() const { return ptx::smem_address(smem_) + kSmem.weights; }
  POD_DEVICE float* scratch() const { return reinterpret_cast<float*>(smem_ + kSmem.scratch); }
  POD_DEVICE float* ends() const { return scratch() + kDecodeRows * kStride; }
  POD_DEVICE int lane() const { return scope_.lane(); }

  POD_DEVICE void hold_output() {
    POD_UNROLL
    for (int block = 0; block < ColumnState<D>::kBlocks; ++block) ptx::hold(state_.o[block]);
  }

  // Over the eight lanes of a warp that share query rows.
  POD_DEVICE static float key_sum(float x) {
    POD_UNROLL
    for (int mask = 4; mask < kWarpSize; mask *= 2) x += ptx::shfl_xor(x, mask);
    return x;
  }
  POD_DEVICE static float key_max(float x) {
    POD_UNROLL
    for (int mask = 4; mask < kWarpSize; mask *= 2) x = max(x, ptx::shfl_xor(x, mask));
    return x;
  }
  POD_DEVICE void note(int place, float x) const {
    if (lane() < 4) notes().of_rows[scope_.warp()][ColumnFragment::row(lane(), place)] = x;
  }

  POD_DEVICE void weigh() {
    POD_UNROLL
    for (int place = 0; place < kPlaces; ++place) sums_[place] = 0.f;
    POD_UNROLL
    for (int block = 0; block < kBlocks; ++block) {
      float p[ColumnFragment::kTiles][4];
      weigh_block(p, s_[block], sums_, state_, a_.score_scale);
      mma::store_weights<T, WeightPanels>(p, weights(), block, scope_.thread);
    }
    ptx::fence_proxy_async();
  }

  // The references of all rows move to their highest scores, and the weights are made again.
  POD_DEVICE void raise() {
    float highest[kPlaces];
    own_highest(highest, s_, state_);
    POD_UNROLL
    for (int place = 0; place < kPlaces; ++place) note(place, key_max(highest[place]));
    scope_.sync();
    POD_UNROLL
    for (int place = 0; place < kPlaces; ++place) {
      POD_UNROLL
      for (int warp = 0; warp < kGroupWarps; ++warp) {
        highest[place] =
            max(highest[place], notes().of_rows[warp][ColumnFragment::row(lane(), place)]);
      }
    }
    state_.move_to(highest, a_.score_scale);
    weigh();
    scope_.sync();
  }

  POD_DEVICE void write_output() const {
    POD_UNROLL
    for (int place = 0; place < kPlaces; ++place) {
      const int row = ColumnFragment::row(lane(), place);
      POD_UNROLL
      for (int block = 0; block < ColumnState<D>::kBlocks; ++block) {
        POD_UNROLL
        for (int half = 0; half < Fragment::kHalves; ++half) {
          const int column =
              block * ColumnFragment::kBlock + ColumnFragment::key(scope_.thread, half);
          scratch()[row * kStride + column] =
              state_
                  .o[block][place / Fragment::kPairs][Fragment::at(half, place % Fragment::kPairs)];
        }
      }
      if (scope_.thread < 4) ends()[row] = state_.m[place];
    }
  }

  const KernelArguments& a_;
  const Item& item_;
  uint8_t* smem_;
  Group scope_;
  ColumnState<D> state_;
  float s_[kBlocks][ColumnFragment::kTiles][4];
  float sums_[kPlaces];
};

// How its K and V come.
template <class Variant>
struct ColumnLoop {
  using KeyPanels = typename ColumnMath<Variant>::KeyPanels;
  static constexpr bool kPair = Variant::prefill_engine == PrefillEngine::kPair;
  using Type = std::conditional_t<kPair, KvTurns<Variant, KeyPanels>,
                                  KvLoop<Variant, Op::kDecode, KeyPanels>>;
};

// `smem` is the item's own part of the CTA's shared memory, where panels may begin.
template <class Variant>
POD_DEVICE void decode_wgmma_item(const KernelArguments& a, const Item& item, uint8_t* smem,
                                  int barrier, int thread) {
  using Math = ColumnMath<Variant>;
  const Scope<kGroupWarps> scope{barrier, thread};
  const uint32_t q_tile = ptx::smem_address(smem);
  typename ColumnLoop<Variant>::Type loop(a, item, scope, q_tile);
  copy::load_queries<Math::D, kDecodeRows, kGroupThreads, typename Math::QueryPanels>(q_tile, a,
                                                                                      item, thread);
  ptx::cp_async_commit();
  loop.start();
  Math math(a, item, smem, scope);
  loop.run([&](uint32_t k_tile, int kv) { math.on_keys(k_tile, kv); },
           [&](uint32_t v_tile) { math.on_values(v_tile); });
  math.store();
}

}  // namespace pod::op
