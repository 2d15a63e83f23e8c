"""The part `spec` without a GPU: what engines are told, and sums on answers made by hand."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.gpu.engines import spec, spec_accept, spec_run
from benchmarks.gpu.engines.sglang import Worker
from benchmarks.gpu.engines.spec import SpecRun
from benchmarks.gpu.visit.headlines import headlines
from benchmarks.gpu.visit.spec_headlines import merged
from pod_integrate.engines.sglang.speculation import BACKEND

OPTIONS = argparse.Namespace(stock="fa3", steps=5, dropped=2, questions=4, each=9.0, seconds=99.0)


def told(run: SpecRun) -> dict[str, Any]:
    return spec.arguments_of(run, Path("work"), OPTIONS)


def test_pod_verifies_where_it_decodes_and_leaves_drafts_to_the_stock_backend() -> None:
    found = told(SpecRun("pod", "pod", "standalone"))
    side = f"{found['speculative_attention_mode']}_attention_backend"
    assert found[side] == found["prefill_attention_backend"] == BACKEND
    assert found["speculative_draft_attention_backend"] == "fa3"
    assert found["speculative_num_draft_tokens"] == found["speculative_num_steps"] + 1
    beside = told(SpecRun("pod", "fa3", "standalone"))
    assert beside[side] == "fa3" and beside["prefill_attention_backend"] == BACKEND


def test_ngrams_have_one_draft_and_plain_engines_none() -> None:
    assert told(SpecRun("pod", "pod", "ngram"))["speculative_num_draft_tokens"] == 2
    assert not [n for n in told(SpecRun("fa3", "fa3", "plain")) if n.startswith("specul")]


def test_each_kind_of_draft_has_its_model() -> None:
    def of(kind: str) -> tuple[str, str]:
        found = told(SpecRun("pod", "pod", kind))
        return found["speculative_algorithm"], Path(found["speculative_draft_model_path"]).name

    assert of("standalone") == ("STANDALONE", "draft") and of("eagle") == ("EAGLE", "eagle")
    assert of("whole") == (
        "STANDALONE",
        Path(told(SpecRun("pod", "pod", "whole"))["model_path"]).name,
    )


def test_every_kind_has_a_stock_engine_and_the_first_two_are_the_headline() -> None:
    every = spec.runs("fa3")
    assert {run.kind for run in every} == {r.kind for r in every if r.name.startswith("fa3, ")}
    assert [run.name for run in every[:2]] == ["fa3, standalone", "pod, standalone"]


def answer(first: list[list[int]], second: list[list[int]], *steps: int) -> dict[str, Any]:
    """Two passes over one prompt, and the verify steps of each."""
    return {"passes": [first, second], "steps": [[one] for one in steps]}


def test_engines_are_compared_with_the_stock_one_of_their_kind() -> None:
    same, other = [[1, 2, 3, 4]], [[1, 2, 9, 9]]
    answers = {
        "fa3, standalone": answer(same, other, 1, 2),
        "pod, standalone": answer(other, same, 3, 1),
        "fa3, plain": answer(other, other, 0, 0),
        "pod, ngram": answer(same, same, 2, 2),
    }
    found = spec.compared(answers, "fa3")
    assert found["fa3, standalone"]["control_tokens_equal"] == 0.5
    assert found["fa3, standalone"]["plain_tokens_equal"] == 0.5
    assert found["fa3, standalone"]["control_accept_length_ratio"] == 0.5
    assert "control_accept_length_ratio" not in found["fa3, plain"]
    assert found["pod, standalone"]["tokens_equal"] == 0.5
    assert found["pod, standalone"]["accept_length_ratio"] == 0.75
    # Nothing to compare with yet.
    assert "pod, ngram" not in found
    document = {"compared": found, "load": {"stock": "fa3", "steps": 5}}
    lines = {name: (value, unit) for name, value, unit, _ in headlines({"spec": document})}
    assert lines["spec.tokens_equal_pct"][0] == 50 and "50.0" in lines["spec.tokens_equal_pct"][1]
    assert lines["spec.accept_length_ratio"][0] == 0.75
    assert lines["spec.accept_length_ratio_control"][0] == 0.5
    assert "a draft model of 5 tokens" in lines["spec.accept_length_ratio"][1]


def spec_document(*kinds: str, equal: float = 0.9) -> dict[str, Any]:
    runs: dict[str, Any] = {
        f"{backend}, {kind}": {} for kind in kinds for backend in ("fa3", "pod")
    }
    compared = {
        name: {"control_tokens_equal": 1.0} if name.startswith("fa3") else {"tokens_equal": equal}
        for name in runs
    }
    return {"runs": runs, "compared": compared, "load": {"stock": "fa3", "steps": 5}, "date": "d"}


def test_headlines_say_what_speculated() -> None:
    for kinds, told in (
        (("ngram",), "n-grams of one token"),
        (("ngram", "eagle"), "an EAGLE head of 5 tokens"),
        (("ngram", "whole", "standalone"), "a draft model of 5 tokens"),
    ):
        ((name, value, unit, _),) = headlines({"spec": spec_document(*kinds)})
        assert (name, value) == ("spec.tokens_equal_pct", 90.0) and told in unit
    assert headlines({"spec": spec_document("whole", "plain")}) == []


def test_kinds_that_were_not_run_again_stay_recorded() -> None:
    found = merged(spec_document("eagle", equal=0.5), spec_document("ngram", "eagle"))
    assert found["compared"]["pod, eagle"]["tokens_equal"] == 0.5
    assert found["compared"]["pod, ngram"]["tokens_equal"] == 0.9
    assert found["kept"] == {"date": "d", "runs": ["fa3, ngram", "pod, ngram"]}


def test_what_has_no_time_left_is_not_started(tmp_path: Path) -> None:
    options = argparse.Namespace(**{**vars(OPTIONS), "out": tmp_path, "seconds": 10.0})
    runs = spec.SpecRuns(options)
    worker = object.__new__(Worker)
    worker.run = SpecRun("pod", "pod", "eagle")
    runs.step(worker, {})
    assert "10 s are left of 10" in runs.document["failed"]["pod, eagle"]


class Engine:
    """Answers each prompt with its first token, over and over."""

    def __init__(self, steps: int) -> None:
        self.asked: list[list[int]] = []
        self._steps = steps

    def generate(self, input_ids: list[list[int]], sampling_params: list[Any]) -> list[Any]:
        self.asked += [ids[:1] for ids in input_ids]
        return [
            {"output_ids": ids[:1] * one["max_new_tokens"],
             "meta_info": {"spec_verify_ct": self._steps}}
            for ids, one in zip(input_ids, sampling_params, strict=True)
        ]  # fmt: skip


def test_accepted_length_is_tokens_over_verify_steps() -> None:
    requests = [{"ids": [5, 6], "new": 6}, {"ids": [7], "new": 2}]
    tokens, steps = spec_run.ask(Engine(2), requests)
    assert (tokens, steps) == ([[5] * 6, [7, 7]], [2, 2])
    assert spec_accept.accept_length(spec_accept.verified(tokens, steps)) == 2.0
    assert spec_accept.accept_length(spec_accept.verified(tokens, [0, 0])) is None


def test_what_an_engine_gives_is_saved_when_it_is_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = argparse.Namespace(**{**vars(OPTIONS), "out": tmp_path})
    runs = spec.SpecRuns(options)

    class Stand(Worker):
        def __init__(self, name: str) -> None:
            self.run = SpecRun(*name.split("+"))

        def measure(self, job: dict[str, Any], limit: float) -> dict[str, Any]:
            if self.run.name.endswith("ngram"):
                raise RuntimeError("no memory")
            return {"passes": [[[1, 2]], [[1, 3]]], "steps": [[1], [1]]}

    for name in ("fa3+fa3+standalone", "pod+pod+ngram", "pod+pod+standalone"):
        runs.step(Stand(name), {})
        saved = json.loads((tmp_path / "spec.json").read_text())
        run = SpecRun(*name.split("+"))
        assert run.name in {**saved["runs"], **saved["failed"]}
    assert saved["compared"]["pod, standalone"] == {
        "answers_equal": 1.0,
        "first_tokens_equal": 1.0,
        "tokens_equal": 1.0,
        "accept_length_ratio": 1.0,
        "accept_length_ratio_equal": 1.0,
        "accept_length_equal_answers": 2.0,
    }
    assert set(json.loads((tmp_path / "spec_tokens.json").read_text())) == set(saved["runs"])
