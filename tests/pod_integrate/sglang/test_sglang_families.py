"""Models of SGLang's own classes on its model runner: `pod` decodes what stock attention does."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from benchmarks.engines.sglang_families_odd import FAMILIES
from benchmarks.engines.sglang_in_process import classify, run

ROOT = Path(__file__).parents[3]
pytestmark = pytest.mark.timeout(900)


@pytest.mark.parametrize(
    "name",
    # The KV pool asked for, windows, a cap with head dim 256, every head its own KV and biases,
    # sinks of another dtype.
    ["qwen3_moe", "gemma3", "ministral", "gemma2", "llama_mha", "granite_swa"],
)
def test_family_decodes_the_tokens_of_its_reference(tmp_path: Path, name: str) -> None:
    family = FAMILIES[name]
    pod = run(family, tmp_path, "pod", family.pod_flags)
    reference = run(family, tmp_path, family.reference)
    assert (pod.error, reference.error) == ("", "")
    assert pod.decoded and reference.decoded
    assert classify(reference, pod) == "equal", (reference.decoded.tokens, pod.decoded.tokens)
    for ours, theirs in zip(pod.decoded.logits, reference.decoded.logits, strict=False):
        assert abs(ours - theirs).max() < 1e-3


def test_pool_that_pod_lacks_is_refused_with_the_flag_that_helps(tmp_path: Path) -> None:
    family = FAMILIES["granite_swa"]
    refused = run(family, tmp_path, "pod")
    assert refused.error.startswith("UnsupportedFeatureError") and not refused.started
    assert all(flag in refused.error for flag in family.pod_flags)


def saved() -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads(
        (ROOT / "benchmarks" / "results" / "sglang_families.json").read_text()
    )["families"]
    return rows


def test_last_result_has_every_family_and_no_wrong_answer() -> None:
    rows = {row["family"]: row for row in saved()}
    assert list(rows) == list(FAMILIES)
    wrong = {n: r["result"] for n, r in rows.items() if r["result"] in ("differs", "fails")}
    assert wrong == {}


def test_guide_lists_the_families_as_the_last_result_has_them() -> None:
    guide = (ROOT / "docs" / "sglang.md").read_text()
    lines = re.findall(r"^\| `(\w+)` \| (.+?) \| (.+?) \|", guide, flags=re.MULTILINE)
    shown = {name: (oddity, result) for name, oddity, result in lines if name in FAMILIES}
    assert shown == {row["family"]: (row["oddity"], row["result"]) for row in saved()}
