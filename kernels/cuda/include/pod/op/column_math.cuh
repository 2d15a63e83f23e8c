// column_math.cuh: what a warpgroup multiplies of a decode item with operands swapped: keys are the
// 64 rows of a product and the 8 or 16 packed query rows its columns.
//
// Smem    as decode_wgmma_item.cuh
#pragma once

#include "pod/column_softmax.cuh"
#include "pod/layout/scope.cuh"
#include "pod/mma/columns.cuh"
#include "pod/op/rows.cuh"
#include "pod/smem.h"

namespace pod::op {

// What the warps tell each other: their highest scores or sums by query row, and whether a score
// of theirs has outgrown its row's reference.
template <int kQueryRows>
struct DecodeNotes {
  float of_rows[kGroupWarps][kQueryRows];
  int grown[2][kGroupWarps];  // in turns
};
static_assert(sizeof(DecodeNotes<kDecodeRows>) <= kNoteBytes, "see smem.h");

template <class Variant>
class ColumnMath {
 public:
  using T = typename Variant::Element;
  static constexpr TileConfig tile = Variant::config.decode;
  static constexpr int D = Variant::head_dim, kRows = tile.kv_rows, kQueryRows = tile.q_rows;
  static constexpr int kBlocks = kRows / ColumnFragment::kBlock;
  static constexpr int kTiles = kQueryRows / kColumnTile, kWeightBytes = weight_bytes(tile);
  using State = ColumnState<D, kTiles>;
  static constexpr int kPlaces = State::kRows;
  static constexpr ItemSmem kSmem = Smem<Variant>::decode;
  using QueryPanels = layout::Panels<D, kQueryRows>;
  using KeyPanels = layout::Panels<D, kRows>;
  using WeightPanels = layout::Panels<kRows, kQueryRows>;
  static constexpr int kSwizzle = 8 * KeyPanels::kRowBytes;
  static_assert(kSmem.k % kSwizzle == 0 && kSmem.kv_tile % kSwizzle == 0,
                "panels of K and V begin where their swizzle does");
  using Group = Scope<kGroupWarps>;

  POD_DEVICE ColumnMath(const KernelArguments& a, const Item& item, uint8_t* smem,
                        const Group& scope)
      : a_(a), item_(item), smem_(smem), scope_(scope) {}

  // Scores of a tile and, by the references so far, its weights. `meanwhile` runs beside products.
  template <typename Meanwhile>
  POD_DEVICE void on_keys(uint32_t k_tile, int kv, Meanwhile meanwhile) {
    issue_scores(k_tile);
    meanwhile();
    await_scores<0>();
    weigh_scores(kv, turn_);
  }

  // The barrier before it has shown the weights and what the warps said of them.
  template <typename Meanwhile>
  POD_DEVICE void on_values(uint32_t v_tile, Meanwhile meanwhile) {
    settle(turn_);
    add_sums();
    issue_values(v_tile, turn_);
    meanwhile();
    await_values();
  }

  // Both at once, of keys kv .. and of values of the tile before: on_keys() is called for the first
  // keys, on_values() for the last values. Weights of the two lie apart.
  template <typename Meanwhile>
  POD_DEVICE void on_both(uint32_t k_tile, uint32_t v_tile, int kv, Meanwhile meanwhile) {
    const int before = turn_;
    turn_ ^= 1;
    settle(before);
    issue_scores(k_tile);
    issue_values(v_tile, before);
    meanwhile();
    add_sums();
    await_scores<1>();
    weigh_scores(kv, turn_);
    await_values();
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
    constexpr int kThreads = kGroupThreads / kQueryRows;  // of a row
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

  POD_DEVICE void issue_scores(uint32_t k_tile) {
    ptx::wgmma_fence();
    mma::issue_column_scores<T, D, KeyPanels, QueryPanels>(
        s_, KeyPanels::columns_descriptor(k_tile),
        QueryPanels::columns_descriptor(ptx::smem_address(smem_)));
    ptx::wgmma_commit();
  }
  template <int pending>
  POD_DEVICE void await_scores() {
    ptx::wgmma_wait<pending>();
    POD_UNROLL
    for (int block = 0; block < kBlocks; ++block) ptx::hold(s_[block]);
  }
  POD_DEVICE void issue_values(uint32_t v_tile, int turn) {
    hold_output();
    ptx::wgmma_fence();
    mma::issue_column_values<T, D, kRows, KeyPanels, WeightPanels>(
        state_.o, KeyPanels::rows_descriptor(v_tile),
        WeightPanels::columns_descriptor(weights(turn)));
    ptx::wgmma_commit();
  }
  POD_DEVICE void await_values() {
    ptx::wgmma_wait<0>();
    hold_output();
  }

  // Of keys kv ...
  POD_DEVICE void weigh_scores(int kv, int turn) {
    if (a_.capped) cap_scores(s_, a_.cap_argument);
    if (!WholeTiles(item_, kRows).holds(kv)) mask_columns(s_, a_, item_, kv, scope_.thread);
    float highest[kPlaces];
    own_highest(highest, s_, state_);
    const bool grown = ptx::any(has_grown(highest, state_, a_.score_scale));
    if (scope_.lane() == 0) notes().grown[turn][scope_.warp()] = grown;
    weigh(turn);
  }
  // Once a barrier has shown what the warps said of the newest weights.
  POD_DEVICE void settle(int turn) {
    bool grown = false;
    POD_UNROLL
    for (int warp = 0; warp < kGroupWarps; ++warp) grown |= notes().grown[turn][warp] != 0;
    if (grown) raise(turn);
  }
  POD_DEVICE void add_sums() {
    POD_UNROLL
    for (int place = 0; place < kPlaces; ++place) state_.add(place, 1.f, sums_[place]);
  }

  POD_DEVICE DecodeNotes<kQueryRows>& notes() const {
    return *reinterpret_cast<DecodeNotes<kQueryRows>*>(smem_ + kSmem.notes);
  }
  POD_DEVICE uint32_t weights(int turn) const {
    return ptx::smem_address(smem_) + kSmem.weights + turn * kWeightBytes;
  }
  POD_DEVICE float* scratch() const { return reinterpret_cast<float*>(smem_ + kSmem.scratch); }
  POD_DEVICE float* ends() const { return scratch() + kQueryRows * kStride; }
  POD_DEVICE int lane() const { return scope_.lane(); }

  POD_DEVICE void hold_output() {
    POD_UNROLL
    for (int block = 0; block < State::kBlocks; ++block) ptx::hold(state_.o[block]);
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

  POD_DEVICE void weigh(int turn) {
    POD_UNROLL
    for (int place = 0; place < kPlaces; ++place) sums_[place] = 0.f;
    POD_UNROLL
    for (int block = 0; block < kBlocks; ++block) {
      float p[kTiles][4];
      weigh_block(p, s_[block], sums_, state_, a_.score_scale);
      mma::store_weights<T, WeightPanels>(p, weights(turn), block, scope_.thread);
    }
    ptx::fence_proxy_async();
  }

  // The references of all rows move to their highest scores, and the weights are made again.
  POD_DEVICE void raise(int turn) {
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
    weigh(turn);
    scope_.sync();
  }

  POD_DEVICE void write_output() const {
    POD_UNROLL
    for (int place = 0; place < kPlaces; ++place) {
      const int row = ColumnFragment::row(lane(), place);
      POD_UNROLL
      for (int block = 0; block < State::kBlocks; ++block) {
        POD_UNROLL
        for (int half = 0; half < Fragment::kHalves; ++half) {
          const int column =
              ColumnFragment::first_column(D, block) + ColumnFragment::key(scope_.thread, half);
          // The block before has it, too.
          if (D % ColumnFragment::kBlock != 0 && column < block * ColumnFragment::kBlock) continue;
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
  State state_;
  float s_[kBlocks][kTiles][4];
  float sums_[kPlaces];
  int turn_ = 0;
};

}  // namespace pod::op
