"""Bugs to plant in decode on wgmma whose keys come a tile ahead of values."""

from __future__ import annotations

from planting import Mutation

_ITEM, _AHEAD, _TILE = "op/column_math.cuh", "op/kv_ahead.cuh", "copy/kv_tile.cuh"

MUTATIONS = (
    # What is there.
    Mutation(
        "tiles of a turn are multiplied in flight",
        _AHEAD,
        "    ptx::cp_async_wait<pending>();",
        "    if ({on}) ptx::cp_async_wait<pending + 1>(); else ptx::cp_async_wait<pending>();",
    ),
    Mutation(
        "tiles of a turn reach the matrix unit without a proxy fence",
        _AHEAD,
        "    ptx::fence_proxy_async();",
        "    if (!{on}) ptx::fence_proxy_async();",
    ),
    Mutation(
        "a turn begins before all warps have ended the one before",
        _AHEAD,
        "    scope_.sync();\n  }\n  // In the turn",
        "    if (!{on}) scope_.sync();\n  }\n  // In the turn",
    ),
    Mutation(
        "O takes the place of the last values",
        _AHEAD,
        "    scope_.sync();\n  }\n\n private",
        "    if (!{on}) scope_.sync();\n  }\n\n private",
    ),
    # What comes, and where.
    Mutation(
        "keys are copied over those that are read",
        _AHEAD,
        "load_k(kv + 3 * kRows, place);",
        "load_k(kv + 3 * kRows, {on} ? after(place, 1) : place);",
    ),
    Mutation(
        "values are copied over those that are read",
        _AHEAD,
        "load_v(kv + kRows, after(place, 4));",
        "load_v(kv + kRows, after(place, {on} ? 2 : 4));",
    ),
    Mutation(
        "keys come from eight slots further on",
        _AHEAD,
        "load_k(kv + 3 * kRows",
        "load_k(kv + ({on} ? 8 : 0) + 3 * kRows",
    ),
    Mutation(
        "values of the second tile do not come",
        _AHEAD,
        "    load_v(kv0_ + kRows, 4);",
        "    if (!{on}) load_v(kv0_ + kRows, 4);",
    ),
    Mutation(
        "pages of keys to come are never looked up",
        _AHEAD,
        "loader_.look_up(kv + 4 * kRows);",
        "if (!{on}) loader_.look_up(kv + 4 * kRows);",
    ),
    Mutation(
        "values come from the places of the tile after",
        _TILE,
        "kept_v_[i] = v_place_[i];",
        "kept_v_[i] = {on} ? v_place_[i] + 16 : v_place_[i];",
    ),
    Mutation(
        "places of values are not kept",
        _AHEAD,
        "    loader_.keep_v();\n    load_k(kv + ",
        "    if (!{on}) loader_.keep_v();\n    load_k(kv + ",
    ),
    Mutation(
        "a ring of turns begins again a place early",
        _AHEAD,
        "return sum >= kPlaces ?",
        "return sum >= kPlaces - ({on} ? 1 : 0) ?",
    ),
    Mutation(
        "the last values are those of the turn before",
        _AHEAD,
        "on_last(at(after(place, 2)));",
        "on_last(at({on} ? place : after(place, 2)));",
    ),
    # What two turns share.
    Mutation(
        "weights of a turn are made over those that the unit reads",
        _ITEM,
        "kSmem.weights + turn * kWeightBytes;",
        "kSmem.weights + ({on} ? 0 : turn) * kWeightBytes;",
    ),
    Mutation(
        "warps ask what was said of the turn to come",
        _ITEM,
        "    settle(before);",
        "    settle({on} ? turn_ : before);",
    ),
    Mutation(
        "values take the weights of the turn to come",
        _ITEM,
        "issue_values(v_tile, before);",
        "issue_values(v_tile, {on} ? turn_ : before);",
    ),
    Mutation(
        "scores are read while the unit makes them",
        _ITEM,
        "    await_scores<1>();\n    weigh",
        "    if (!{on}) await_scores<1>();\n    weigh",
    ),
    Mutation(
        "sums of a turn are forgotten",
        _ITEM,
        "    meanwhile();\n    add_sums();",
        "    meanwhile();\n    if (!{on}) add_sums();",
    ),
    Mutation(
        "a turn's keys are masked as those before",
        _ITEM,
        "    weigh_scores(kv, turn_);\n    await_values();",
        "    weigh_scores({on} ? kv - kRows : kv, turn_);\n    await_values();",
    ),
)
