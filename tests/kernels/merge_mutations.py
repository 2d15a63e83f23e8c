"""Bugs to plant where splits are merged, and where the merge waits for them."""

from __future__ import annotations

from planting import Mutation

_COMBINE = "combine.cuh"

MUTATIONS = (
    Mutation(
        "splits weigh the same whatever their sums",
        _COMBINE,
        "l += weight * split.l;",
        "l += weight * ({on} ? 1.f : split.l);",
    ),
    Mutation(
        "maxima of splits scaled before they are compared",
        _COMBINE,
        "moved(split.m, m, a.score_scale)",
        "({on} ? ptx::ex2(split.m * a.score_scale - m * a.score_scale)\n"
        "                             : moved(split.m, m, a.score_scale))",
    ),
    Mutation(
        "merge reads the next row's split",
        _COMBINE,
        "o[int64_t{s} * block.stride * kPairs + pair]",
        "o[int64_t{s} * (block.stride - ({on} ? 1 : 0)) * kPairs + pair]",
    ),
    Mutation(
        "the highest split is the first lane's",
        _COMBINE,
        "for (int mask = kWarpSize / 2; mask > 0; mask /= 2) m = max(m, ptx::shfl_xor(m, mask));",
        "for (int mask = kWarpSize / 2; mask > 0; mask /= 2) {\n"
        "    const float other = ptx::shfl_xor(m, mask);\n"
        "    if (!{on}) m = max(m, other);\n"
        "  }\n"
        "  m = ptx::shfl(m, 0);",
    ),
    Mutation(
        "splits past those of the lanes have no say in the highest",
        _COMBINE,
        "for (int s = lane; s < block.splits; s += kWarpSize)",
        "for (int s = lane; s < block.splits; s += {on} ? block.splits : kWarpSize)",
    ),
    Mutation(
        "splits past those of the lanes are left out",
        _COMBINE,
        "first < block.splits; first += kWarpSize",
        "first < block.splits; first += {on} ? block.splits : kWarpSize",
    ),
    Mutation(
        "O of every split has the weight of the first",
        _COMBINE,
        "ptx::shfl(weight, s + i)",
        "ptx::shfl(weight, {on} ? 0 : s + i)",
    ),
    Mutation(
        "splits past the first few have their O",
        _COMBINE,
        "if (first + s > 0) fetch(first + s);",
        "if (!{on} && first + s > 0) fetch(first + s);",
    ),
    Mutation(
        "sums of splits stay with their lane",
        _COMBINE,
        "mask /= 2) l += ptx::shfl_xor(l, mask);",
        "mask /= 2) {\n"
        "    const float other = ptx::shfl_xor(l, mask);\n"
        "    if (!{on}) l += other;\n"
        "  }",
    ),
    Mutation(
        "merge reads splits before it waits for the launch before",
        _COMBINE,
        "  ptx::wait_for_launch_before();\n"
        "  const int thread = ptx::thread_index(), row = thread / kWarpSize;\n"
        "  if (row < block.rows) merge_row<Variant>(a, block, row, thread % kWarpSize);\n",
        "  if (!{on}) ptx::wait_for_launch_before();\n"
        "  const int thread = ptx::thread_index(), row = thread / kWarpSize;\n"
        "  if (row < block.rows) merge_row<Variant>(a, block, row, thread % kWarpSize);\n"
        "  if ({on}) ptx::wait_for_launch_before();\n",
    ),
    Mutation(
        "all warps merge the first row",
        _COMBINE,
        "merge_row<Variant>(a, block, row, thread",
        "merge_row<Variant>(a, block, {on} ? 0 : row, thread",
    ),
)
