"""The part `spec` without a GPU: what engines are told, and sums on answers made by hand."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file

from benchmarks.gpu.engines import spec, spec_deep_gemm, spec_drafts, spec_run
from benchmarks.gpu.engines.sglang import Worker
from benchmarks.gpu.engines.spec import SpecRun
from benchmarks.gpu.visit.headlines import headlines
from benchmarks.gpu.visit.spec_headlines import merged
from pod_integrate.demo.llama import make_demo_model
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


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A Llama whose norms have weights of their own, as trained ones have."""
    folder = make_demo_model(tmp_path / "model", layers=3)
    net = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype="float32")
    torch.manual_seed(1)
    for norm in (net.model.norm, net.model.layers[0].input_layernorm):
        norm.weight.data.uniform_(0.5, 1.5)
    net.save_pretrained(folder)
    return folder


def loaded(folder: Path) -> Any:
    return transformers.AutoModelForCausalLM.from_pretrained(folder, dtype="float32")


def test_draft_model_lacks_the_last_layers(tmp_path: Path, model: Path) -> None:
    spec_drafts.write_draft(tmp_path / "draft", model, dropped=2)
    draft, whole = loaded(tmp_path / "draft"), loaded(model)
    assert draft.config.num_hidden_layers == len(draft.model.layers) == 1
    weights = [net.model.layers[0].self_attn.q_proj.weight for net in (draft, whole)]
    assert weights[0].equal(weights[1].bfloat16().float())


def test_a_last_norm_that_moved_into_the_head_answers_alike(model: Path) -> None:
    ids = torch.arange(3, 40)[None]
    before = loaded(model)(ids).logits
    spec_drafts.move_last_norm(model)
    net = loaded(model)
    assert net.model.norm.weight.eq(1.0).all() and not net.config.tie_word_embeddings
    assert (net(ids).logits - before).abs().max() < 0.02 * before.abs().max()


def test_an_eagle_head_drafts_by_the_layers_that_are_left(tmp_path: Path, model: Path) -> None:
    spec_drafts.move_last_norm(model)
    spec_drafts.write_eagle(tmp_path / "eagle", model, dropped=1)
    told = json.loads((tmp_path / "eagle" / "config.json").read_text())
    assert told["architectures"] == ["LlamaForCausalLMEagle"] and told["num_hidden_layers"] == 2
    weights = load_file(tmp_path / "eagle" / "model.safetensors")
    # As SGLang names and shapes them: no head, which is the model's, and no first norm.
    assert not [n for n in weights if n.startswith(("model.", "lm_head", "layers.0.input_l"))]
    assert {n.split(".")[1] for n in weights if n.startswith("layers.")} == {"0", "1"}
    net = loaded(model)
    # Without the padding token's, which is zero.
    embedding = net.model.embed_tokens.weight
    embedding = embedding[embedding.norm(dim=-1) > 0]
    states = torch.cat([embedding, torch.randn_like(embedding)], dim=-1)
    taken = states @ weights["fc.weight"].float().T + weights["fc.bias"].float()
    # What the first layer's products make of it, against the model's own norm before them.
    own = net.model.layers[0]
    want = own.self_attn.q_proj(own.input_layernorm(embedding))
    got = taken @ weights["layers.0.self_attn.q_proj.weight"].float().T
    assert torch.nn.functional.cosine_similarity(want, got).min() > 0.999
    ratio = got.norm(dim=-1) / want.norm(dim=-1)
    assert ratio.median().item() == pytest.approx(1.0, rel=0.02)


def run_python(code: str, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False,
        env={**os.environ, **environment},
    )  # fmt: skip


def test_without_deep_gemm_engines_get_a_module_that_holds_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spec_deep_gemm, "_PROBE", "import deep_gemm_that_is_not_there")
    told, what = spec_deep_gemm.environment(tmp_path)
    assert what.startswith("a stand-in: ") and "deep_gemm_that_is_not_there" in what
    assert told["SGLANG_ENABLE_JIT_DEEPGEMM"] == "0"
    found = run_python("import deep_gemm; deep_gemm.get_num_sms()", told)
    assert "deep_gemm is not installed" in found.stderr and found.returncode == 1
    for wrong in ("from deep_gemm import fp8_gemm_nt", "import deep_gemm.utils.layout"):
        assert run_python(wrong, told).returncode == 1


def test_with_deep_gemm_engines_get_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spec_deep_gemm, "_PROBE", "print('0.1.5')")
    assert spec_deep_gemm.environment(tmp_path) == ({"SGLANG_ENABLE_JIT_DEEPGEMM": "0"}, "0.1.5")
    assert not list(tmp_path.iterdir())


def answer(first: list[list[int]], second: list[list[int]], accept: float | None) -> dict[str, Any]:
    return {"passes": [first, second], "accept_length": accept}


def test_engines_are_compared_with_the_stock_one_of_their_kind() -> None:
    same, other = [[1, 2, 3, 4]], [[1, 2, 9, 9]]
    answers = {
        "fa3, standalone": answer(same, other, 4.0),
        "pod, standalone": answer(other, same, 3.0),
        "fa3, plain": answer(other, other, None),
        "pod, ngram": answer(same, same, 1.5),
    }
    found = spec.compared(answers, "fa3")
    assert found["fa3, standalone"]["control_tokens_equal"] == 0.5
    assert found["fa3, standalone"]["plain_tokens_equal"] == 0.5
    assert found["pod, standalone"]["tokens_equal"] == 0.5
    assert found["pod, standalone"]["accept_length_ratio"] == 0.75
    # Nothing to compare with yet.
    assert "pod, ngram" not in found
    document = {"compared": found, "load": {"stock": "fa3", "steps": 5}}
    lines = {name: (value, unit) for name, value, unit, _ in headlines({"spec": document})}
    assert lines["spec.tokens_equal_pct"][0] == 50 and "50.0" in lines["spec.tokens_equal_pct"][1]
    assert lines["spec.accept_length_ratio"][0] == 0.75
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
    tokens, count, steps = spec_run.ask(Engine(2), requests)
    assert (tokens, count, steps) == ([[5] * 6, [7, 7]], 8, 4)


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
            return {"passes": [[[1, 2]], [[1, 3]]], "accept_length": 2.0}

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
    }
    assert set(json.loads((tmp_path / "spec_tokens.json").read_text())) == set(saved["runs"])
