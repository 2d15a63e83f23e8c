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
    # windows in a pool of their own, there with sinks of another dtype.
    ["qwen3_moe", "gemma3", "ministral", "gemma2", "llama_mha", "mellum", "granite_swa"],
)
def test_family_decodes_the_tokens_of_its_reference(tmp_path: Path, name: str) -> None:
    family = FAMILIES[name]
    pod = run(family, tmp_path, "pod")
    reference = run(family, tmp_path, family.reference, family.reference_flags)
    assert (pod.error, reference.error) == ("", "")
    assert pod.decoded and reference.decoded
    assert classify(reference, pod) == "equal", (reference.decoded.tokens, pod.decoded.tokens)
    for ours, theirs in zip(pod.decoded.logits, reference.decoded.logits, strict=False):
        assert abs(ours - theirs).max() < 1e-3


def test_sglang_itself_refuses_backends_that_it_does_not_know_for_some_models(
    tmp_path: Path,
) -> None:
    refused = run(FAMILIES["gpt_oss"], tmp_path, "pod")
    # By the check of each model in its start-up arguments, before any backend is made.
    assert refused.error.startswith("AssertionError: GptOssForCausalLM requires one of")
    assert not refused.started


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
