"""Bugs to plant in the ring of a pair and in the copies that fill it."""

from __future__ import annotations

from planting import Mutation

_RING = "op/pair_ring.cuh"

MUTATIONS = (
    # mbarriers
    Mutation(
        "keys and values of a pair share barriers",
        _RING,
        "(static_cast<int>(turn) * kStages + stage_of",
        "(({on} ? static_cast<int>(turn) / 2 * 2 : static_cast<int>(turn)) * kStages + stage_of",
    ),
    Mutation(
        "stages of a pair share barriers",
        _RING,
        "* kStages + stage_of(place));",
        "* kStages + ({on} ? 0 : stage_of(place)));",
    ),
    Mutation(
        "a place is free once one of a pair has left it",
        _RING,
        "landed ? 1 : kPairGroups * kGroupWarps",
        "landed ? 1 : kPairGroups * kGroupWarps / ({on} ? 2 : 1)",
    ),
    Mutation(
        "a place is free once a warp too many has left it",
        _RING,
        "kPairGroups * kGroupWarps",
        "(kPairGroups * kGroupWarps + ({on} ? 1 : 0))",
    ),
    Mutation(
        "every thread of a pair tells of a place",
        _RING,
        "if (thread % kWarpSize == 0) ptx::mbarrier_arrive",
        "if ({on} || thread % kWarpSize == 0) ptx::mbarrier_arrive",
    ),
    Mutation(
        "mbarriers are not published",
        _RING,
        "    ptx::mbarrier_publish();",
        "    if (!{on}) ptx::mbarrier_publish();",
    ),
    Mutation(
        "a pair waits for the use before",
        _RING,
        "ptx::mbarrier_wait(barrier(turn, place), parity_of(place));",
        "ptx::mbarrier_wait(barrier(turn, place), parity_of(place) ^ ({on} ? 1 : 0));",
    ),
    Mutation(
        "copies wait for the use to come",
        _RING,
        "parity_of(place) ^ 1);",
        "parity_of(place) ^ ({on} ? 0 : 1));",
    ),
    Mutation(
        "a pair's ring has a place less",
        _RING,
        "(place + 1u) % kPlaces",
        "(place + 1u) % (kPlaces - ({on} ? 1u : 0u))",
    ),
    Mutation(
        "tiles go to the other place",
        _RING,
        "int place() const { return at_ % kSlot",
        "int place() const { return (at_ + ({on} ? 1 : 0)) % kSlot",
    ),
    Mutation(
        "a copying thread tells before the others have copied",
        _RING,
        "    ptx::bar_sync(copying_barrier(), kGroupThreads);",
        "    if (!{on}) ptx::bar_sync(copying_barrier(), kGroupThreads);",
    ),
    Mutation(
        "every copying warp tells",
        _RING,
        "    if (ptx::thread_index() == 0)",
        "    if (ptx::thread_index() % ({on} ? kWarpSize : kGroupThreads) == 0)",
    ),
    # Items
    Mutation(
        "an item is overwritten by the next but one",
        _RING,
        "slot + 1 == kSlots ? 0",
        "slot + 1 >= ({on} ? 2 : kSlots) ? 0",
    ),
    Mutation(
        "the copying warpgroup goes back to the item's place",
        _RING,
        "{ at_ = place() + Ring::next_slot",
        "{ at_ = ({on} ? 0 : place()) + Ring::next_slot",
    ),
    # Copies
    Mutation(
        "keys are overwritten while they are multiplied",
        _RING,
        "    side.await(Turn::kKeysFree, place);",
        "    if (!{on}) side.await(Turn::kKeysFree, place);",
    ),
    Mutation(
        "values are overwritten while they are multiplied",
        _RING,
        "    side.await(Turn::kValuesFree, place);",
        "    if (!{on}) side.await(Turn::kValuesFree, place);",
    ),
    Mutation(
        "keys are told of while they are on their way",
        _RING,
        "    ptx::cp_async_wait<1>();\n    ptx::fence_proxy_async();\n  };",
        "    if (!{on}) ptx::cp_async_wait<1>();\n    ptx::fence_proxy_async();\n  };",
    ),
    Mutation(
        "a pair's copies reach the matrix unit without a proxy fence",
        _RING,
        "    ptx::fence_proxy_async();\n  };",
        "    if (!{on}) ptx::fence_proxy_async();\n  };",
    ),
    Mutation(
        "an item's first keys are of the group of the next",
        _RING,
        "  load_keys(kv0, side.place());\n  ptx::cp_async_commit();",
        "  load_keys(kv0, side.place());\n  if (!{on}) ptx::cp_async_commit();",
    ),
    Mutation(
        "an item's last values are told of while they are on their way",
        _RING,
        "  ptx::cp_async_wait<0>();\n",
        "  if (!{on}) ptx::cp_async_wait<0>();\n",
    ),
    Mutation(
        "an item's last values reach the matrix unit without a proxy fence",
        _RING,
        "  ptx::fence_proxy_async();\n  side.tell",
        "  if (!{on}) ptx::fence_proxy_async();\n  side.tell",
    ),
    Mutation(
        "a copier looks up pages before it has found values",
        _RING,
        "    loader.resolve_v(kv);\n    loader.look_up(kv + kRows);",
        "    if ({on}) loader.look_up(kv + kRows);\n"
        "    loader.resolve_v(kv);\n"
        "    if (!{on}) loader.look_up(kv + kRows);",
    ),
    Mutation(
        "values are found before those of the tile before are on their way",
        _RING,
        "    loader.load_v(side.ring().v(place), kv);\n    look_ahead(kv + kRows);",
        "    if ({on}) look_ahead(kv + kRows);\n"
        "    loader.load_v(side.ring().v(place), kv);\n"
        "    if (!{on}) look_ahead(kv + kRows);",
    ),
    Mutation(
        "pages of an item's first keys are not looked up",
        _RING,
        "  loader.look_up(kv0);",
        "  if (!{on}) loader.look_up(kv0);",
    ),
    Mutation(
        "an item's first values are not found",
        _RING,
        "  look_ahead(kv0);",
        "  if (!{on}) look_ahead(kv0);",
    ),
    Mutation(
        "keys a tile ahead land where those before lie",
        _RING,
        "    load_keys(kv + kRows, Ring::next(place));",
        "    load_keys(kv + kRows, {on} ? place : Ring::next(place));",
    ),
    Mutation(
        "keys are told of a tile late",
        _RING,
        "    if (kv + kRows < end) side.tell(Turn::kKeysLanded, Ring::next(place));",
        "    if (kv + kRows < end) {\n"
        "      side.tell(Turn::kKeysLanded, {on} ? place : Ring::next(place));\n"
        "    }",
    ),
    Mutation(
        "keys past an item's last are told of",
        _RING,
        "    if (kv + kRows < end) {",
        "    if ({on} || kv + kRows < end) {",
    ),
    Mutation(
        "values are told of a tile early",
        _RING,
        "      side.tell(Turn::kValuesLanded, Ring::before(place));\n    } else",
        "      side.tell(Turn::kValuesLanded, {on} ? place : Ring::before(place));\n    } else",
    ),
    Mutation(
        "an item's first keys are told of as values",
        _RING,
        "      side.tell(Turn::kKeysLanded, place);",
        "      side.tell({on} ? Turn::kValuesLanded : Turn::kKeysLanded, place);",
    ),
    Mutation(
        "the place before the first is the first",
        _RING,
        "(place + kPlaces - 1u)",
        "(place + kPlaces - ({on} && place == 0 ? 0u : 1u))",
    ),
    Mutation(
        "the copying warpgroup stays at a place",
        _RING,
        "    side.advance();",
        "    if (!{on}) side.advance();",
    ),
)
