"""Bugs to plant where a CTA that stays runs its ops one after the other."""

from __future__ import annotations

from planting import Mutation

_CTA = "pair_cta.cuh"

MUTATIONS = (
    Mutation(
        "the first items that are asked for are given to nobody",
        _CTA,
        "  const int own = prefill_first<Variant, kDecodes>(plan);",
        "  const int own = {on} ? ptx::cta_count() : prefill_first<Variant, kDecodes>(plan);",
    ),
    Mutation(
        "who begins with decode is not counted among those that ask for prefill",
        _CTA,
        "draws{own, ptx::cta_count() - own};",
        "draws{own, {on} ? 0 : ptx::cta_count() - own};",
    ),
    Mutation(
        "decodes are given out by a CTA's index where nobody begins with these",
        _CTA,
        "draws{Roles<Variant>::kDecoder ? ctas : 0,",
        "draws{Roles<Variant>::kDecoder || {on} ? ctas : 0,",
    ),
    Mutation(
        "decode overwrites what the other of a pair multiplies before both have turned",
        _CTA,
        "      await_pair();\n    }",
        "      if (!{on}) await_pair();\n    }",
    ),
    Mutation(
        "places of two decode items overlap",
        _CTA,
        "* Turners<Variant>::kBytes,",
        "* (Turners<Variant>::kBytes - ({on} ? kPanelAlignment : 0)),",
    ),
    Mutation(
        "who turns to prefill multiplies what is not drawn yet",
        _CTA,
        "  }\n  ptx::bar_sync(turning_barrier(), kThreads);",
        "  }\n  if (!{on}) ptx::bar_sync(turning_barrier(), kThreads);",
    ),
    Mutation(
        "who begins with prefill decodes at once",
        _CTA,
        "    if ((turn == 0) == decodes_first) {",
        "    if ((turn == 0) == (decodes_first || {on})) {",
    ),
    Mutation(
        "who began with decode never turns to prefill",
        _CTA,
        "    if (turn == 1) break;",
        "    if (turn == 1 || (decodes_first && {on})) break;",
    ),
)
