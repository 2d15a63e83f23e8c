"""What is filed of the part `features`."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.gpu.visit.features_record import features, features_headlines, merged
from benchmarks.gpu.visit.problems import RecordError


def pair(mean: float, differences: int = 2, ties: float = 1.0) -> dict[str, Any]:
    found = {"logprob_mean": mean, "differences": differences}
    return found | ({"near_ties": ties} if differences else {})


def document(*names: str, failed: tuple[str, ...] = ()) -> dict[str, Any]:
    one = {
        "arguments": {"page_size": 16}, "mixed": True, "model": "llama", "decode": "own",
        "pod against stock": pair(0.02, 4, 0.5), "stock in other batches": pair(0.01),
        "pod in other batches": pair(0.0, 0),
    }  # fmt: skip
    return {
        "compared_with": "fa3", "features": dict.fromkeys(names, one),
        "failed": dict.fromkeys(failed, "no"), "not_run": {},
    }  # fmt: skip


def test_features_of_other_visits_stay_and_what_fails_now_is_told() -> None:
    found = merged(document("b", failed=("a", "c")), document("a", failed=("b", "d")))
    assert set(found["features"]) == {"a", "b"} and set(found["failed"]) == {"a", "c", "d"}
    assert features(found).endswith("Failed: a, c, d.")


def test_features_beside_another_backend_are_not_added() -> None:
    other = document("a") | {"compared_with": "flashinfer"}
    with pytest.raises(RecordError, match="--stock fa3"):
        merged(other, document("b"))


def test_headlines_compare_with_what_stock_differs_from_itself() -> None:
    ran, ratio = features_headlines({"features": document("a", "b")})
    assert ran[:2] == ("features.gpu_run", 2) and ratio[1] == 2.0 and "fa3" in ratio[2]
    same = document("a")
    same["features"]["a"]["stock in other batches"]["logprob_mean"] = 0.0
    assert len(features_headlines({"features": same})) == 1
    assert features_headlines({}) == [] and features_headlines({"features": document()}) == []


def test_a_row_says_flags_distances_and_near_ties() -> None:
    found = document("page-16", "windows")
    found["features"]["windows"] = found["features"]["page-16"] | {
        "model": "mellum", "mixed": False, "decode": "stock", "arguments": {},
        "pod against stock": pair(0.0, 0), "cached_tokens": {"pod": 12, "stock": 9},
    }  # fmt: skip
    rows = features(found).splitlines()
    cells = "`page_size=16` | 0.0200 | 0.0100 | 0.0000 | 2 of 4 | none parts | -"
    assert rows[2] == f"| page-16 | {cells} |"
    assert "a mellum, stock decodes, not mixed" in rows[3] and rows[3].endswith("| 12 |")
