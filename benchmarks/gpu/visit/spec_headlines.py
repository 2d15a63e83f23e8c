"""Headlines of the part that speculates, and what of an older record stays beside a new one."""

from __future__ import annotations

from typing import Any

_SPEC = "python -m benchmarks.gpu spec --weights FILE"
# What speculated, by worth.
_KINDS = {
    "standalone": "a draft model of {steps} tokens",
    "eagle": "an EAGLE head of {steps} tokens",
    "ngram": "n-grams of one token",
}
Headline = tuple[str, float, str, str]


def spec_headlines(documents: dict[str, dict[str, Any]]) -> list[Headline]:
    """Of the first kind that `pod` verified; the unit says which."""
    document = documents.get("spec", {})
    found: dict[str, dict[str, float]] = document.get("compared", {})
    kind = next((kind for kind in _KINDS if f"pod, {kind}" in found), None)
    if kind is None:
        return []
    ours, stock = found[f"pod, {kind}"], document["load"]["stock"]
    told = _KINDS[kind].format(**document["load"])
    control = found[f"{stock}, {kind}"]
    same = 100 * control["control_tokens_equal"]
    unit = f"% of tokens before a difference, {told}, {stock} with itself {same:.1f}"
    headlines = [("spec.tokens_equal_pct", 100 * ours["tokens_equal"], unit, _SPEC)]
    for name, side, key in (
        ("accept_length_ratio", ours, "accept_length"),
        ("accept_length_ratio_control", control, "control_accept_length"),
    ):
        if f"{key}_ratio" in side:
            error = f" ± {side[f'{key}_error']:.3f}" if f"{key}_error" in side else ""
            unit = f"x{error}, tokens per verify step, {told}"
            headlines.append((f"spec.{name}", side[f"{key}_ratio"], unit, _SPEC))
    return headlines


def merged(new: dict[str, Any], recorded: dict[str, Any]) -> dict[str, Any]:
    """`new`, and the kinds of speculation that it did not run as they are recorded.

    Both hold `runs` and `compared` by "BACKEND, KIND". A kind is taken whole, so that an engine is
    never compared with one of another visit; what is kept is named in `kept`.
    """
    kinds = {_kind(name) for name in new["runs"]}
    found = dict(new)
    for part in ("runs", "compared"):
        old = {name: one for name, one in recorded[part].items() if _kind(name) not in kinds}
        found[part] = old | new[part]
    kept = [name for name in recorded["runs"] if _kind(name) not in kinds]
    if kept:
        found["kept"] = {"date": recorded["date"], "runs": kept}
    return found


def _kind(name: str) -> str:
    return name.rpartition(", ")[2]
