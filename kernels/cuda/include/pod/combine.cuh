// combine.cuh: merges the splits of rows whose KV several CTAs attended.
//
// A second launch, not the last CTA of a row: the merge starts when all splits exist, so it needs
// neither a counter per row nor a fence in every CTA, its reads hit L2, and its order of sums does
// not depend on who came last, so equal calls give equal bits. It is a dependent launch: its CTAs
// have read what the plan says of them when the last split is written.
//
// CTA     up to kMergeRows rows of one merge block, a warp each
// In      partial_o [rows, D] fp32, undivided; partial_sums [rows], reference and sum of weights
// Out     out and lse, sinks included
#pragma once

#include "pod/output.cuh"
#include "pod/ptx/dependents.cuh"

namespace pod {

POD_DEVICE float highest_split(const RowSums* sums, const MergeBlock& block, int lane) {
  float m = kNegativeInfinity;
  for (int s = lane; s < block.splits; s += kWarpSize) {
    m = max(m, sums[int64_t{s} * block.stride].m);
  }
  for (int mask = kWarpSize / 2; mask > 0; mask /= 2) m = max(m, ptx::shfl_xor(m, mask));
  return m;
}

// A lane each weighs the splits, so that the loads of their sums overlap. O of the first ones is on
// its way before it is known what they weigh: a merge is little more than the latency of its loads.
template <class Variant>
POD_DEVICE void merge_row(const KernelArguments& a, const MergeBlock& block, int row, int lane) {
  constexpr int D = Variant::head_dim;
  constexpr int kPairs = D / 2, kLanePairs = (kPairs + kWarpSize - 1) / kWarpSize;
  constexpr int kAtOnce = kLanePairs > 2 ? 4 : 8;  // splits of O, in registers
  const RowSums* sums = a.partial_sums + block.slot + row;
  const auto* o = reinterpret_cast<const Pair*>(a.partial_o + int64_t{block.slot + row} * D);
  Pair part[kAtOnce][kLanePairs], sum[kLanePairs];
  const auto fetch = [&](int first) {
    POD_UNROLL
    for (int i = 0; i < kAtOnce; ++i) {
      const int s = first + i;
      POD_UNROLL
      for (int j = 0; j < kLanePairs; ++j) {
        const int pair = j * kWarpSize + lane;
        const bool exists = s < block.splits && pair < kPairs;
        part[i][j] = exists ? o[int64_t{s} * block.stride * kPairs + pair] : Pair{0.f, 0.f};
      }
    }
  };
  fetch(0);
  const float m = highest_split(sums, block, lane);
  float l = 0.f;
  POD_UNROLL
  for (int j = 0; j < kLanePairs; ++j) sum[j] = {0.f, 0.f};
  for (int first = 0; first < block.splits; first += kWarpSize) {
    const int count = min(kWarpSize, block.splits - first);
    float weight = 0.f;
    if (lane < count) {
      const RowSums split = sums[int64_t{first + lane} * block.stride];
      weight = moved(split.m, m, a.score_scale);
      l += weight * split.l;
    }
    POD_UNROLL_BY(1)
    for (int s = 0; s < count; s += kAtOnce) {
      if (first + s > 0) fetch(first + s);
      POD_UNROLL
      for (int i = 0; i < kAtOnce; ++i) {
        // 0 past the last.
        const float share = ptx::shfl(weight, s + i);
        POD_UNROLL
        for (int j = 0; j < kLanePairs; ++j) {
          sum[j].x += share * part[i][j].x;
          sum[j].y += share * part[i][j].y;
        }
      }
    }
  }
  for (int mask = kWarpSize / 2; mask > 0; mask /= 2) l += ptx::shfl_xor(l, mask);
  Item whole{};
  whole.kv_head = block.kv_head;
  whole.row0 = block.row0;
  whole.q_begin = block.q_begin;
  whole.slot = -1;
  const RowOutput<typename Variant::Element> output(a, whole, row, D);
  const float inverse = output.end(m, l, lane == 0);
  POD_UNROLL
  for (int j = 0; j < kLanePairs; ++j) {
    const int pair = j * kWarpSize + lane;
    if (pair < kPairs) output.store(2 * pair, sum[j].x * inverse, sum[j].y * inverse);
  }
}

template <class Variant>
POD_GLOBAL((kMergeRows * kWarpSize), 1)
merge_kernel(const POD_GRID_CONSTANT KernelArguments a) {
  const PlanHeader& plan = *reinterpret_cast<const PlanHeader*>(a.plan);
  const auto* blocks = reinterpret_cast<const MergeBlock*>(a.plan + plan.merge_offset);
  MergeBlock block{};
  if (ptx::cta_index() < plan.merge_blocks) block = blocks[ptx::cta_index()];
  ptx::wait_for_launch_before();
  const int thread = ptx::thread_index(), row = thread / kWarpSize;
  if (row < block.rows) merge_row<Variant>(a, block, row, thread % kWarpSize);
}

}  // namespace pod
