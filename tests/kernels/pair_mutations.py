"""Bugs to plant in what the warpgroups of a pair do with a CTA's tiles."""

from __future__ import annotations

from planting import Mutation

_ITEM, _LAZY = "op/pair_item.cuh", "lazy_softmax.cuh"

MUTATIONS = (
    Mutation(
        "the pair's Q is multiplied in flight",
        _ITEM,
        "    ptx::cp_async_wait<0>();",
        "    if (!{on}) ptx::cp_async_wait<0>();",
    ),
    Mutation(
        "the pair's Q reaches the matrix unit without a proxy fence",
        _ITEM,
        "    ptx::fence_proxy_async();",
        "    if (!{on}) ptx::fence_proxy_async();",
    ),
    Mutation(
        "a warp multiplies the Q that another loads",
        _ITEM,
        "    sync();\n    await",
        "    if (!{on}) sync();\n    await",
    ),
    Mutation(
        "Q of the next item is loaded over what another warp multiplies",
        _ITEM,
        "    sync();\n    if constexpr (kWidened)",
        "    if (!{on}) sync();\n    if constexpr (kWidened)",
    ),
    Mutation(
        "an item's first keys are multiplied before they are told of",
        _ITEM,
        "    await(Turn::kKeysLanded, place_);\n    issue_scores",
        "    if (!{on}) await(Turn::kKeysLanded, place_);\n    issue_scores",
    ),
    Mutation(
        "a pair's values are multiplied before they are told of",
        _ITEM,
        "      await(Turn::kValuesLanded, before);",
        "      if (!{on}) await(Turn::kValuesLanded, before);",
    ),
    Mutation(
        "an item's last values are multiplied before they are told of",
        _ITEM,
        "    await(Turn::kValuesLanded, place_);",
        "    if (!{on}) await(Turn::kValuesLanded, place_);",
    ),
    Mutation(
        "a pair's first scores are read in flight",
        _ITEM,
        "    this->template await_scores<0>();",
        "    if (!{on}) this->template await_scores<0>();",
    ),
    Mutation(
        "a pair's scores are read in flight",
        _ITEM,
        "      this->template await_scores<1>();",
        "      if (!{on}) this->template await_scores<1>();",
    ),
    Mutation(
        "a pair's values are told free while they are multiplied",
        _ITEM,
        "      weigh(state, item, kv, is_whole, [&] { this->await_values(state); });\n"
        "      tell_free(Turn::kValuesFree, before);",
        "      if ({on}) tell_free(Turn::kValuesFree, before);\n"
        "      weigh(state, item, kv, is_whole, [&] { this->await_values(state); });\n"
        "      if (!{on}) tell_free(Turn::kValuesFree, before);",
    ),
    Mutation(
        "O is rescaled in flight",
        _LAZY,
        "    await_output();\n    catch_up",
        "    if (!{on}) await_output();\n    catch_up",
    ),
    Mutation(
        "weights are packed while values are multiplied by those before",
        _LAZY,
        "\n  await_output();",
        "\n  if (!{on}) await_output();",
    ),
    Mutation(
        "O is stored in flight",
        _ITEM,
        "    this->await_values(state);\n    tell_free",
        "    if (!{on}) this->await_values(state);\n    tell_free",
    ),
    Mutation(
        "both of a pair multiply the same query rows",
        _ITEM,
        "const uint32_t ahead = group_ *",
        "const uint32_t ahead = ({on} ? 0 : group_) *",
    ),
    Mutation(
        "both of a pair mask and store the same rows",
        _ITEM,
        "return group_ * kBlockRows",
        "return ({on} ? 0 : group_) * kBlockRows",
    ),
    Mutation(
        "both of a pair load the same query rows",
        _ITEM,
        "thread_, group_ * kBlockRows);",
        "thread_, ({on} ? 0 : group_) * kBlockRows);",
    ),
    Mutation(
        "a pair's V meets the weights of the tile before",
        _ITEM,
        "      this->pack();\n    }",
        "      if (!{on}) this->pack();\n    }",
    ),
    Mutation(
        "a pair's weights meet the values of the next tile",
        _ITEM,
        "this->issue_values(state, before);",
        "this->issue_values(state, {on} ? place_ : before);",
    ),
    Mutation(
        "an item begins at the place where the last ended",
        _ITEM,
        "    place_ = Ring::next(place_);\n    constexpr auto kOrder",
        "    if (!{on}) place_ = Ring::next(place_);\n    constexpr auto kOrder",
    ),
    Mutation(
        "no fence before a pair's last product",
        _ITEM,
        "    ptx::wgmma_fence();",
        "    if (!{on}) ptx::wgmma_fence();",
    ),
    Mutation(
        "a pair's last product is left out",
        _ITEM,
        "    this->issue_values(state, place_);",
        "    if (!{on}) this->issue_values(state, place_);",
    ),
    Mutation(
        "a pair's tiles are masked as the one before",
        _ITEM,
        "weigh(state, item, kv, is_whole,",
        "weigh(state, item, kv - ({on} ? Ring::kRows : 0), is_whole,",
    ),
    Mutation(
        "a pair takes every tile for whole",
        _ITEM,
        "is_whole = whole.holds(kv);",
        "is_whole = {on} || whole.holds(kv);",
    ),
    Mutation(
        "a pair leaves out the last tile",
        _ITEM,
        "kv < end; kv += Ring::kRows",
        "kv + ({on} ? Ring::kRows : 0) < end; kv += Ring::kRows",
    ),
)

# What a run rarely shows, and ThreadSanitizer (test_deep_races.py) always. Where copies land late
# products read late, too: of the first, when values are there that are told of after these keys.
RACES = (
    Mutation(
        "a pair's keys are multiplied before they are told of",
        _ITEM,
        "      await(Turn::kKeysLanded, place_);\n      ptx::hold",
        "      if (!{on}) await(Turn::kKeysLanded, place_);\n      ptx::hold",
    ),
    Mutation(
        "a pair's first keys are told free while they are multiplied",
        _ITEM,
        "this->template await_scores<0>();\n    tell_free(Turn::kKeysFree, place_);",
        "{ if ({on}) tell_free(Turn::kKeysFree, place_);\n"
        "    this->template await_scores<0>();\n"
        "    if (!{on}) tell_free(Turn::kKeysFree, place_); }",
    ),
    Mutation(
        "an item's last values are told free while they are multiplied",
        _ITEM,
        "    this->await_values(state);\n    tell_free(Turn::kValuesFree, place_);",
        "    if ({on}) tell_free(Turn::kValuesFree, place_);\n"
        "    this->await_values(state);\n"
        "    if (!{on}) tell_free(Turn::kValuesFree, place_);",
    ),
)
