"""Bugs to plant in the softmax, its ends and its merges; mutations.py has those of the rest."""

from __future__ import annotations

from planting import Mutation

_SOFTMAX, _LAZY, _OUTPUT = "softmax.cuh", "lazy_softmax.cuh", "output.cuh"
_FRAGMENT = "layout/fragment.cuh"
_DECODE = "op/decode_item.cuh"

MUTATIONS = (
    Mutation(
        "row maximum over the wrong lanes",
        _FRAGMENT,
        "max(x, ptx::shfl_xor(x, 2))",
        "max(x, ptx::shfl_xor(x, {on} ? 4 : 2))",
    ),
    Mutation(
        "row sum over half of the lanes",
        _FRAGMENT,
        "return x + ptx::shfl_xor(x, 2);",
        "return {on} ? 2 * x : x + ptx::shfl_xor(x, 2);",
    ),
    Mutation(
        "sum not moved to the new maximum",
        _SOFTMAX,
        "before = l[tile][half] * rescale,",
        "before = l[tile][half] * ({on} ? 1.f : rescale),",
    ),
    Mutation(
        "output not moved to the new maximum",
        _SOFTMAX,
        "state.o[tile][i][Fragment::at(half, 1)] *= rescale;",
        "state.o[tile][i][Fragment::at(half, 1)] *= {on} ? 1.f : rescale;",
    ),
    Mutation(
        "cap without its division",
        _SOFTMAX,
        "tanh(x * scale)",
        "tanh(x * ({on} ? 1.f : scale))",
    ),
    Mutation(
        "tanh cancels near 0",
        _SOFTMAX,
        "return y <",
        "return !{on} && y <",
    ),
    Mutation(
        "series taken for tanh where it is none",
        _SOFTMAX,
        "< kSeries * kSeries ?",
        "< ({on} ? 1.f : kSeries * kSeries) ?",
    ),
    Mutation(
        "tanh limits its argument and loses a NaN",
        _SOFTMAX,
        "ptx::ex2(kTwoLog2e * x)",
        "ptx::ex2({on} ? max(kTwoLog2e * x, -100.f) : kTwoLog2e * x)",
    ),
    Mutation(
        "scores scaled before the maximum is subtracted",
        _SOFTMAX,
        " - reference) * scale);",
        " - ({on} ? 0.f : reference)) * scale - ({on} ? reference * scale : 0.f));",
    ),
    Mutation(
        "weights limited from below lose a NaN",
        _SOFTMAX,
        "x = ptx::ex2((x -",
        "x = ptx::ex2((({on} ? max(x, -1e30f) : x) -",
    ),
    Mutation(
        "sums moved by a factor near 1 though the maximum stays",
        _SOFTMAX,
        "ptx::ex2((m - (to == kNegativeInfinity ? 0.f : to)) * scale)",
        "ptx::ex2({on} ? m * scale - (to == kNegativeInfinity ? 0.f : to * scale)\n"
        "                     : (m - (to == kNegativeInfinity ? 0.f : to)) * scale)",
    ),
    Mutation(
        "row of NaN taken for one without keys",
        _OUTPUT,
        "if (l <= 0.f) return",
        "if ({on} ? !(l > 0.f) : l <= 0.f) return",
    ),
    Mutation(
        "LSE mixes base 2 and e",
        _OUTPUT,
        "ptx::lg2(l) * kLn2",
        "ptx::lg2(l) * ({on} ? 1.f : kLn2)",
    ),
    Mutation(
        "LSE in base 2 at the API",
        _OUTPUT,
        "end_row(m, l, a_.logit_scale)\n",
        "end_row(m, l, {on} ? a_.score_scale : a_.logit_scale)\n",
    ),
    Mutation(
        "row not moved to a larger sink",
        _OUTPUT,
        "shrink * ptx::rcp(total)",
        "({on} ? 1.f : shrink) * ptx::rcp(total)",
    ),
    Mutation(
        "sink counted in every split",
        _OUTPUT,
        "a_.partial_sums[slot_] = {m, l};",
        "a_.partial_sums[slot_] = {m, l};\n"
        "      if (writes && {on} && a_.sinks != nullptr) {\n"
        "        const float logit = m * a_.logit_scale;\n"
        "        a_.partial_sums[slot_].l += ptx::ex2((a_.sinks[head_] - logit) * kLog2e);\n"
        "      }",
    ),
    Mutation(
        "splits divided by their sums",
        _OUTPUT,
        "      return 1.f;",
        "      return {on} ? ptx::rcp(l) : 1.f;",
    ),
    Mutation(
        "maxima of warps scaled before they are compared",
        _DECODE,
        "moved(scratch.m(warp, row), m, a.score_scale)",
        "({on} ? ptx::ex2(scratch.m(warp, row) * a.score_scale - m * a.score_scale)\n"
        "               : moved(scratch.m(warp, row), m, a.score_scale))",
    ),
)

# Of the softmax that rescales O only when it must, which prefill on wgmma has.
LAZY_MUTATIONS = (
    Mutation(
        "O is never rescaled",
        _LAZY,
        "state.o[0][i][j] *= rescale[Fragment::half_of(j)];",
        "state.o[0][i][j] *= {on} ? 1.f : rescale[Fragment::half_of(j)];",
    ),
    Mutation(
        "the reference never follows the maximum",
        _LAZY,
        "if (grown[half]) m = highest[half];",
        "if (grown[half] && (!{on} || m == kNegativeInfinity)) m = highest[half];",
    ),
    Mutation(
        "the sum stays behind the reference",
        _LAZY,
        "state.add(0, half, rescale[half], 0.f);",
        "state.add(0, half, {on} ? 1.f : rescale[half], 0.f);",
    ),
    Mutation(
        "large scores are not centred",
        _LAZY,
        "is_far = is_seen & (fabsf(exponent) > kFar);",
        "is_far = !{on} & is_seen & (fabsf(exponent) > kFar);",
    ),
    Mutation(
        "centred scores lose their reference once more",
        _LAZY,
        "reference[half] = is_seen & !is_far ?",
        "reference[half] = is_seen & (!is_far | {on}) ?",
    ),
    Mutation(
        "large scores are centred in the first tile alone",
        _LAZY,
        "(reference[half] <= kFar);",
        "(reference[half] <= kFar || {on});",
    ),
    Mutation(
        "scores below 0 never outgrow a reference",
        _LAZY,
        "is_near = (reference[half] >= -kSlack) &",
        "is_near = (reference[half] >= -kSlack || {on}) &",
    ),
    Mutation(
        "every second score is taken for small",
        _LAZY,
        "s[n][first], s[n][second]);",
        "s[n][first], s[n][{on} ? first : second]);",
    ),
    Mutation(
        "half of the scores are taken for small",
        _LAZY,
        "return ptx::max_if_positive(highest[0], highest[1], highest[1]);",
        "return ptx::max_if_positive(highest[0], highest[{on} ? 0 : 1], highest[{on} ? 0 : 1]);",
    ),
)
