"""vLLM's public batches without a GPU: peers made up on the emulated SM, and what is filed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from support.source_names import ROOT

from benchmarks.gpu.common.machines import Emulator
from benchmarks.gpu.common.timing import ColdTimer
from benchmarks.gpu.peers.paged import Paged
from benchmarks.gpu.speed import grammar, grammar_summary
from benchmarks.gpu.speed.batch_spec import GrammarSpec, spec_of, tiny
from benchmarks.gpu.speed.cases import Part, default_of, part_of
from benchmarks.gpu.speed.grammar_measure import measure
from benchmarks.gpu.visit import grammar_record, headlines, record
from pod_integrate.measure.batches import Case

MACHINE = Emulator()


def small(text: str) -> GrammarSpec:
    return tiny(spec_of(text))


def peer(name: str, part: Part, *, off: float = 0.0, whole: bool = False) -> Paged:
    def make(case: Case, spec: Any) -> Any:
        if name == "broken":
            raise RuntimeError("no such kernel")
        mine = part_of(case, spec, part)
        return lambda: MACHINE.attend(mine, default_of(MACHINE, spec)).out + off

    return Paged(name, part, make, whole=whole)


TRIED = (
    peer("p", "prefill"),
    peer("wrong", "prefill", off=1.0),
    peer("broken", "decode"),
    peer("d", "decode"),
    peer("one call", "all", whole=True),
    peer("rows", "all"),
)


def test_kernels_of_a_hybrid_batch_run_on_their_op_and_wrong_answers_not_at_all() -> None:
    entry = measure(MACHINE, small("2q2k_q1ks4k_8q1s1k_q1s8k"), TRIED, ColdTimer(MACHINE, 1))
    first = entry["first"]
    assert entry["against"] == {"prefill": ["p"], "decode": ["d"]}
    assert first["wrong"]["error"] == "another answer than ours" and "us" not in first["wrong"]
    assert first["broken"]["error"] == "RuntimeError: no such kernel"
    assert {"ours serial", "ours prefill", "ours decode", "one call", "rows"} <= set(first)
    assert len(entry["pair"]) == 2 and entry["single"][0] in ("one call", "rows")
    assert set(entry["us"]) == {"default", "serial", "pair", "single"}
    assert set(grammar_summary.ratios(entry)) == {"vs_pair", "vs_anybody"}


@pytest.mark.parametrize(
    ("text", "against"),
    [("2q4k", {"prefill": ["p", "one call"]}), ("8q1s1k", {"decode": ["d", "one call"]})],
)
def test_where_a_batch_has_one_op_a_kernel_for_all_rows_is_one_for_it(
    text: str, against: dict[str, list[str]]
) -> None:
    entry = measure(MACHINE, small(text), TRIED, ColdTimer(MACHINE, 1))
    assert entry["against"] == against and len(entry["pair"]) == 1
    assert set(entry["us"]) == {"default", "serial", "pair"} and "rows" not in entry["first"]


def run(folder: Path, *more: str) -> dict[str, Any]:
    batches = ("--batches", "q512_q1s1k", "q1s512")
    grammar.main(["--backend", "emulator", "--out", str(folder), *batches, *more])
    document: dict[str, Any] = json.loads((folder / "grammar.json").read_text())
    return document


def test_a_later_run_carries_on_where_time_was_over(tmp_path: Path) -> None:
    names = ["q512_q1s1k, 32/8/128, page 16", "q1s512, 32/8/128, page 16"]
    assert run(tmp_path, "--seconds", "0")["not_run"] == names
    done = run(tmp_path)
    assert list(done["cases"]) == names and not done["not_run"]
    assert done["summary"] == {"all": {"cases": 0}, "given": {"cases": 0}}
    assert done["cases"][names[0]]["floor"]["decode_us"] > 0
    assert run(tmp_path, "--seconds", "0")["cases"] == done["cases"]
    assert run(tmp_path, "--seconds", "0", "--afresh")["not_run"] == names
    path = tmp_path / "grammar.json"
    path.write_text(json.dumps(done))
    assert run(tmp_path, "--seconds", "0", "--repeats", "7")["cases"] == {}
    other = {**done, "machine": {**done["machine"], "kernel_build": "another"}}
    path.write_text(json.dumps(other))
    assert run(tmp_path, "--seconds", "0")["cases"] == {}


def entry(default: float, pair: float, of: str = "standard", **us: float) -> dict[str, Any]:
    return {
        "set": of,
        "heads": "32/8/128",
        "first": {},
        "pair": ["a", "b"],
        "against": {"prefill": ["a"], "decode": ["b"]},
        "us": {"default": default, "pair": pair, **us},
    }


ENTRIES = {
    "won": entry(100, 160, serial=144, single=120),
    "lost": entry(100, 81, serial=90, single=100),
    "mine": entry(100, 10, "given"),
    "alone": entry(100, 10) | {"against": {"prefill": ["a"], "decode": []}},
    "failed": {"set": "standard", "heads": "32/8/128", "error": "out of memory"},
}


def test_ratios_are_to_the_best_pair_and_count_published_batches_with_peers() -> None:
    summary = grammar_summary.summarize(ENTRIES)
    every = summary["all"]
    assert every == summary["standard"] == summary["32/8/128"] and every["cases"] == 2
    pair = {"geomean": 1.08, "min": 0.81, "worst": "lost", "below_098_pct": 50.0}
    assert every["vs_pair"] == pair and every["vs_anybody"]["geomean"] == pytest.approx(0.9859)
    assert summary["given"]["vs_pair"]["min"] == 0.1
    assert grammar_summary.line("failed", ENTRIES["failed"]) == "failed: out of memory"


def test_public_batches_are_filed_by_gpu_with_headlines_and_a_table() -> None:
    document = {"cases": ENTRIES, "summary": grammar_summary.summarize(ENTRIES)}
    found = {line[0]: line[1] for line in headlines.headlines({"grammar": document}, "h200")}
    assert found == {
        "h200.public_grammar_geomean": 1.08,
        "h200.public_grammar_min": 0.81,
        "h200.public_grammar_below_098_pct": 50.0,
        "h200.public_grammar_usual_geomean": 1.08,
    }
    drawn = grammar_record.grammar(document)
    assert "| won | a + b | 100 | 144 | 1.44 | 1.20 |" in drawn and "alone" not in drawn
    assert "| all | 2 | 1.08 | 0.81 | 50% | 0.99 |" in drawn
    assert record.path_of("grammar", "NVIDIA H200").name == "gpu_grammar_h200.json"
    page = (ROOT / "docs" / "gpu.md").read_text()
    assert all(f"<!-- {name}-grammar:begin -->" in page for name in ("gpu", "h200"))
