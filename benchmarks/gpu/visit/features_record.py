"""What is recorded of the part `features`: visits add to one another, a feature at a time."""

from __future__ import annotations

import statistics
from typing import Any

from benchmarks.gpu.visit.problems import RecordError
from benchmarks.gpu.visit.tables import table

_FEATURES = "pod-attn bench gpu -- features"
_HEADS = (
    "feature", "flags beside ours", "log-probabilities apart, mean", "`{stock}` from itself",
    "`pod` from itself", "near ties", "... of `pod` from itself", "cached tokens",
)  # fmt: skip
OURS, STOCK, SELF = "pod against stock", "stock in other batches", "pod in other batches"
Headline = tuple[str, float, str, str]


def merged(new: dict[str, Any], recorded: dict[str, Any]) -> dict[str, Any]:
    """`new`, and what it did not try as it is recorded.

    What failed this time is told, though it was measured before. Raises RecordError where the two
    have different stock backends.
    """
    ours, theirs = new["compared_with"], recorded["compared_with"]
    if ours != theirs:
        raise RecordError(
            f"features beside {ours} do not add to those recorded beside {theirs}; measure them "
            f"with --stock {theirs}"
        )
    features = recorded["features"] | new["features"]
    before = {
        key: {name: why for name, why in recorded[key].items() if name not in new["features"]}
        for key in ("failed", "not_run")
    }
    skipped = (before["not_run"] | new["not_run"]).items()
    left = {
        "failed": before["failed"] | new["failed"],
        "not_run": {name: why for name, why in skipped if name not in features},
    }
    return {**new, "features": features, **left}


def features_headlines(documents: dict[str, dict[str, Any]]) -> list[Headline]:
    """How many ran, and how far answers are apart for what stock's own are in other batches."""
    document = documents.get("features", {})
    found: dict[str, dict[str, Any]] = document.get("features", {})
    if not found:
        return []
    stock = document["compared_with"]
    headlines: list[Headline] = [
        ("features.gpu_run", len(found), f"features beside {stock}", _FEATURES)
    ]
    ratios = [
        one[OURS]["logprob_mean"] / one[STOCK]["logprob_mean"]
        for one in found.values()
        if one[STOCK].get("logprob_mean") and "logprob_mean" in one[OURS]
    ]
    if ratios:
        unit = f"x, of what {stock} differs from itself in other batches, median of {len(ratios)}"
        headlines.append(
            ("features.logprob_ratio_median", statistics.median(ratios), unit, _FEATURES)
        )
    return headlines


def features(document: dict[str, Any]) -> str:
    """A row for each."""
    heads = [head.format(stock=document["compared_with"]) for head in _HEADS]
    rows = [
        [
            name,
            _flags(one),
            *(f"{one[pair].get('logprob_mean', 0.0):.4f}" for pair in (OURS, STOCK, SELF)),
            *(_ties(one[pair]) for pair in (OURS, SELF)),
            str(one.get("cached_tokens", {}).get("pod", "-")),
        ]
        for name, one in document["features"].items()
    ]
    failed = [f"Failed: {', '.join(sorted(document['failed']))}."] if document["failed"] else []
    return "\n\n".join([table(heads, rows, texts=2), *failed])


def _flags(one: dict[str, Any]) -> str:
    given = [f"`{name}={value}`" for name, value in one["arguments"].items()]
    if one.get("model", "llama") != "llama":
        given.insert(0, f"a {one['model']}")
    if one.get("decode") == "stock":
        given.append("stock decodes")
    if one.get("adapter"):
        given.append("half by an adapter")
    if not one["mixed"]:
        given.append("not mixed")
    return ", ".join(given) or "-"


def _ties(pair: dict[str, Any]) -> str:
    """Of the answers that part, how many do where the best two tokens are as good as equal."""
    if not pair["differences"]:
        return "none parts"
    return f"{round(pair['near_ties'] * pair['differences'])} of {pair['differences']}"
