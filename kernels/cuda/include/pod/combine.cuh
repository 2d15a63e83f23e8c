// combine.cuh: merges the splits of rows whose KV several CTAs attended.
//
// A second launch, not the last CTA of a row: the merge starts when all splits exist, so it needs
// neither a counter per row nor a fence in every CTA, its reads hit L2, and its order of sums does
// not depend on who came last, so equal calls give equal bits. It is a dependent launch: its CTAs
// have read what the plan says of them when the last split is written.
//
// CTA     kMergeWarps warps, up to kMergeRows rows of one merge block; a warp a row at a time
// In      partial_o [rows, D] fp32, undivided; partial_sums [rows], reference and sum of weights
// Out     out and lse, sinks included
#pragma once

#include "pod/output.cuh"
#include "pod/ptx/dependents.cuh"

namespace pod {

struct alignas(8) Pair {
  float x, y;
};

POD_DEVICE float highest_split(const RowSums* sums, const MergeBlock& block, int lane) {
  float m = kNegativeInfinity;
  for (int s = lane; s < block.splits; s += kWarpSize) {
    m = max(m, sums[int64_t{s} * block.stride].m);
  }
  for (int mask = kWarpSize / 2; mask > 0; mask /= 2) m = max(m, ptx::shfl_xor(m, mask));
  return m;
}

// A lane each fetches and weighs the splits, so that these loads overlap, and then those of O do.
template <class Variant>
POD_DEVICE void merge_row(const KernelArguments& a, const MergeBlock& block, int row, int lane) {
  constexpr int D = Variant::head_dim;
  constexpr int kPairs = D / 2, kLanePairs = (kPairs + kWarpSize - 1) / kWarpSize;
  const RowSums* sums = a.partial_sums + block.slot + row;
  const float m = highest_split(sums, block, lane);
  float l = 0.f;
  Pair sum[kLanePairs];
  POD_UNROLL
  for (int i = 0; i < kLanePairs; ++i) sum[i] = {0.f, 0.f};
  for (int first = 0; first < block.splits; first += kWarpSize) {
    const int count = min(kWarpSize, block.splits - first);
    float weight = 0.f;
    if (lane < count) {
      const RowSums split = sums[int64_t{first + lane} * block.stride];
      weight = moved(split.m, m, a.score_scale);
      l += weight * split.l;
    }
    const auto* o = reinterpret_cast<const Pair*>(
        a.partial_o + (block.slot + row + int64_t{first} * block.stride) * D);
    POD_UNROLL_BY(8)
    for (int s = 0; s < count; ++s) {
      const float share = ptx::shfl(weight, s);
      POD_UNROLL
      for (int i = 0; i < kLanePairs; ++i) {
        const int pair = i * kWarpSize + lane;
        if (pair < kPairs) {
          const Pair part = o[int64_t{s} * block.stride * kPairs + pair];
          sum[i].x += share * part.x;
          sum[i].y += share * part.y;
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
  for (int i = 0; i < kLanePairs; ++i) {
    const int pair = i * kWarpSize + lane;
    if (pair < kPairs) output.store(2 * pair, sum[i].x * inverse, sum[i].y * inverse);
  }
}

template <class Variant>
POD_GLOBAL((kMergeWarps * kWarpSize), 1)
merge_kernel(const POD_GRID_CONSTANT KernelArguments a) {
  const PlanHeader& plan = *reinterpret_cast<const PlanHeader*>(a.plan);
  const auto* blocks = reinterpret_cast<const MergeBlock*>(a.plan + plan.merge_offset);
  MergeBlock block{};
  if (ptx::cta_index() < plan.merge_blocks) block = blocks[ptx::cta_index()];
  ptx::wait_for_launch_before();
  const int thread = ptx::thread_index();
  for (int row = thread / kWarpSize; row < block.rows; row += kMergeWarps) {
    merge_row<Variant>(a, block, row, thread % kWarpSize);
  }
}

}  // namespace pod
