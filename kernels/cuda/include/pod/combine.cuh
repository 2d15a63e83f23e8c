// combine.cuh: merges the splits of rows whose KV several CTAs attended.
//
// A second launch, not the last CTA of a row: the merge starts when all splits exist, so it needs
// neither a counter per row nor a fence in every CTA, its reads hit L2, and its order of sums does
// not depend on who came last, so equal calls give equal bits.
//
// CTA     kMergeWarps warps, up to kMergeRows rows of one merge block; a warp a row at a time
// In      partial_o [rows, D] fp32, undivided; partial_sums [rows], reference and sum of weights
// Out     out and lse, sinks included
#pragma once

#include "pod/output.cuh"

namespace pod {

template <class Variant>
POD_DEVICE void merge_row(const KernelArguments& a, const MergeBlock& block, int row, int lane) {
  constexpr int D = Variant::head_dim;
  constexpr int kPairs = D / 2, kLanePairs = (kPairs + kWarpSize - 1) / kWarpSize;
  const RowSums* sums = a.partial_sums + block.slot + row;
  float m = kNegativeInfinity;
  for (int s = 0; s < block.splits; ++s) m = max(m, sums[int64_t{s} * block.stride].m);
  float l = 0.f, x[kLanePairs], y[kLanePairs];
  POD_UNROLL
  for (int i = 0; i < kLanePairs; ++i) x[i] = y[i] = 0.f;
  for (int s = 0; s < block.splits; ++s) {
    const RowSums split = sums[int64_t{s} * block.stride];
    const float weight = moved(split.m, m, a.score_scale);
    const float* o = a.partial_o + (block.slot + row + int64_t{s} * block.stride) * D;
    l += weight * split.l;
    POD_UNROLL
    for (int i = 0; i < kLanePairs; ++i) {
      const int pair = i * kWarpSize + lane;
      if (pair < kPairs) {
        x[i] += weight * o[2 * pair];
        y[i] += weight * o[2 * pair + 1];
      }
    }
  }
  Item whole{};
  whole.kv_head = block.kv_head;
  whole.row0 = block.row0;
  whole.q_begin = block.q_begin;
  whole.slot = -1;
  const RowOutput<typename Variant::Element> output(a, whole, row, D);
  const float inverse = output.end(m, l, lane == 0);
  POD_UNROLL
  for (int i = 0; i < kLanePairs; ++i) {
    const int pair = i * kWarpSize + lane;
    if (pair < kPairs) output.store(2 * pair, x[i] * inverse, y[i] * inverse);
  }
}

template <class Variant>
POD_GLOBAL((kMergeWarps * kWarpSize), 1)
merge_kernel(const POD_GRID_CONSTANT KernelArguments a) {
  const PlanHeader& plan = *reinterpret_cast<const PlanHeader*>(a.plan);
  if (ptx::cta_index() >= plan.merge_blocks) return;
  const auto* blocks = reinterpret_cast<const MergeBlock*>(a.plan + plan.merge_offset);
  const MergeBlock block = blocks[ptx::cta_index()];
  const int thread = ptx::thread_index();
  for (int row = thread / kWarpSize; row < block.rows; row += kMergeWarps) {
    merge_row<Variant>(a, block, row, thread % kWarpSize);
  }
}

}  // namespace pod
