"""Trained weights: what is asked, what is kept of it, and how two backends' words are compared."""

from __future__ import annotations

import asyncio
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.gpu.engines import real, real_options, real_run
from benchmarks.gpu.engines.job import Run
from benchmarks.gpu.engines.real_document import compared
from benchmarks.gpu.visit.headlines import headlines
from benchmarks.real import scores, text
from benchmarks.real.kept import Kept
from benchmarks.real.questions import COUNT, questions

STOCK = Run("fa3", "fa3", True)
POD, POD_FP8 = Run("pod", "pod", True), Run("pod", "pod", True, "fp8_e4m3")


def test_questions_are_two_hundred_different_ones_and_always_the_same() -> None:
    asked = questions()
    assert len(set(asked)) == COUNT == 200
    assert asked == questions() and asked[:7] == questions(7)
    with pytest.raises(ValueError, match="there are 200"):
        questions(201)


def test_forced_pieces_go_on_where_their_prompt_ends() -> None:
    ids = list(range(1000))
    pieces = text.forced(ids, 5, 64, 16)
    assert [piece.prompt[-1] + 1 for piece in pieces] == [piece.said[0] for piece in pieces]
    assert {len(piece.said) for piece in pieces} == {16}
    assert len({len(piece.prompt) for piece in pieces}) > 1
    assert max(len(piece.prompt) for piece in pieces) <= 64
    with pytest.raises(ValueError, match="of a text of 70"):
        text.forced(ids[:70], 5, 64, 16)


def test_windows_are_apart() -> None:
    ids = list(range(10))
    assert text.windows(ids, [3, 4]) == [[0, 1, 2], [3, 4, 5, 6]]
    with pytest.raises(ValueError, match="11 tokens asked of a text of 10"):
        text.windows(ids, [11])


def test_ratio_of_perplexities_is_of_the_tokens_that_both_scored() -> None:
    stock = {0: [-1.0, -2.0], 1: [-3.0] * 4, 2: [-9.0]}
    ours = {0: [-1.5, -2.5], 1: [-3.0] * 4}
    found = scores.ratio(ours, stock)
    assert found is not None
    assert found["ratio"] == pytest.approx(math.exp(1.0 / 6))
    assert found["worst_text"] == pytest.approx(math.exp(0.5))
    assert (found["tokens"], found["texts"]) == (6, 2)
    assert scores.perplexity(stock) == pytest.approx(math.exp(24 / 7))
    assert scores.ratio({}, stock) is None and scores.perplexity({}) is None


def test_differences_of_answers_are_weighed_by_the_margin_where_they_part() -> None:
    want = {0: [1, 2, 3], 1: [4, 5], 2: [6], 3: [7]}
    got = {0: [1, 9, 3], 1: [4, 5], 2: [6, 8]}
    margins = {0: [5.0, 0.1, 5.0], 1: [1.0, 1.0], 2: [2.0]}
    found = scores.answers(want, got, margins, 0.2)
    assert (found["compared"], found["equal"], found["near_ties"]) == (3, 1, 1)
    # The third parts behind the end of the reference's answer, where there is no margin.
    assert found["margins_where_parted"] == [0.1]
    assert "near_ties" not in scores.answers(want, got, margins, None)


class Engine:
    """Answers as SGLang does: greedy tokens are the prompt's length on; every logprob is -len."""

    def __init__(self, processor: Any = None) -> None:
        self.asked: list[dict[str, Any]] = []
        self._processor = processor

    async def async_generate(self, **told: Any) -> Any:
        self.asked.append(told)
        ids, new = told["input_ids"], told["sampling_params"]["max_new_tokens"]
        if told.get("stream"):
            return self._stream(told)
        start = told.get("logprob_start_len", 0)
        rows = [[-float(at), token, None] for at, token in enumerate(ids)][start:]
        meta: dict[str, Any] = {"input_token_logprobs": [[None, ids[start], None], *rows[1:]]}
        meta["input_top_logprobs"] = [None, *([[-1.0, 5, None], [-1.5, 6, None]] for _ in rows[1:])]
        return {"output_ids": [len(ids) + i for i in range(new)], "meta_info": meta}

    async def _stream(self, told: dict[str, Any]) -> Any:
        row = told["sampling_params"]["custom_params"]
        said: list[int] = []
        for _ in row["ids"]:
            logits = torch.zeros(1, 16)
            said.append(int(self._processor(logits, [row]).argmax()))
            yield {"output_ids": list(said)}


JOB: dict[str, Any] = {
    "prompts": [[1, 2], [3], [4, 5, 6]], "new": 2, "group": 2,
    "windows": [[1, 2, 3], [4, 5, 6, 7], [8, 9]],
    "forced": [{"prompt": [1, 2], "said": [3, 4, 5]}], "beside": [[1] * 9],
}  # fmt: skip


def asked(engine: Engine, kept: Kept, folder: Path, stages: tuple[str, ...]) -> dict[str, str]:
    asker = real_run.Asker(engine, kept, folder, "a processor")
    return asyncio.run(real_run.Stages(asker, kept, JOB | {"stages": stages}).run())


def test_all_stages_are_kept_and_asked_for_once(tmp_path: Path) -> None:
    teacher = pytest.importorskip("benchmarks.real.teacher").Teacher()
    kept, engine = Kept(tmp_path / "kept.jsonl", "a"), Engine(teacher)
    assert asked(engine, kept, tmp_path, real._REFERENCE) == {}
    assert kept.stage("answers") == kept.stage("again") == {0: [2, 3], 1: [1, 2], 2: [3, 4]}
    assert kept.stage("windows") == {0: [-1.0, -2.0], 1: [-1.0, -2.0, -3.0], 2: [-1.0]}
    assert kept.stage("margins") == {key: [0.5, 0.5] for key in range(3)}
    assert kept.stage("forced_by_prefill") == {0: [-2.0, -3.0, -4.0]}
    # Of 16 tokens that were equally likely before the teacher spoke.
    assert kept.stage("forced")[0] == pytest.approx([-math.log(16)] * 3)
    before = len(engine.asked)
    assert real_run.is_kept(JOB | {"stages": real._REFERENCE}, kept)
    assert not real_run.is_kept(JOB | {"stages": ("answers",), "prompts": [[1]] * 4}, kept)
    assert asked(engine, kept, tmp_path, real._REFERENCE) == {}
    assert len(engine.asked) == before


def test_a_text_that_was_not_said_is_told_and_the_other_stages_go_on(tmp_path: Path) -> None:
    kept = Kept(tmp_path / "kept.jsonl", "a")
    engine = Engine(lambda logits, rows: logits)
    failed = asked(engine, kept, tmp_path, ("forced", "answers"))
    assert list(failed) == ["forced"] and "was not said" in failed["forced"]
    assert not kept.stage("forced") and len(kept.stage("answers")) == 3


def test_the_teacher_leaves_a_row_alone_that_has_said_everything(tmp_path: Path) -> None:
    teacher = pytest.importorskip("benchmarks.real.teacher").Teacher()
    row = {"ids": [3], "file": str(tmp_path / "said.json")}
    first = teacher(torch.tensor([[0.0, 1.0, 2.0, 3.0]]), [row])
    assert first.argmax() == 3
    expected = float(torch.tensor([0.0, 1.0, 2.0, 3.0]).log_softmax(0)[3])
    assert json.loads((tmp_path / "said.json").read_text()) == pytest.approx([expected])
    later = torch.tensor([[9.0, 1.0, 2.0, 3.0]])
    assert torch.equal(teacher(later.clone(), [row]), later)


def document(tmp_path: Path) -> dict[str, Any]:
    kept = {run.name: Kept(tmp_path / f"{i}", "a") for i, run in enumerate((STOCK, POD, POD_FP8))}
    for run, shift in ((STOCK, 0.0), (POD, 0.001), (POD_FP8, -0.01)):
        kept[run.name].add("windows", 0, [-2.0 + shift] * 50)
        kept[run.name].add("forced", 0, [-1.0 + shift] * 50)
    kept[STOCK.name].add("forced_by_prefill", 0, [-1.05] * 50)
    for run, stage, tokens in ((STOCK, "answers", 7), (STOCK, "again", 7), (POD, "answers", 8)):
        kept[run.name].add(stage, 0, [1, tokens])
        kept[run.name].add(stage, 1, [2])
    kept[STOCK.name].add("margins", 0, [3.0, 0.06])
    return compared(kept, list(real.runs("fa3")))


def test_engines_are_compared_with_stock_and_near_ties_by_its_own_noise(tmp_path: Path) -> None:
    found = document(tmp_path)
    assert found["tie"] == pytest.approx(0.1)
    assert (found["control"]["equal"], found["control"]["compared"]) == (2, 2)
    answers = found["runs"][POD.name]["answers"]
    assert (answers["equal"], answers["near_ties"]) == (1, 1)
    assert found["runs"][POD.name]["prefill"]["ratio"] == pytest.approx(math.exp(-0.001))
    assert found["runs"][POD_FP8.name]["decode"]["ratio"] == pytest.approx(math.exp(0.01))
    # Stock over fp8 did not run.
    assert "prefill_vs_stock_fp8" not in found["runs"][POD_FP8.name]


def test_headlines_are_of_what_was_measured(tmp_path: Path) -> None:
    lines = {line[0]: line for line in headlines({"real": {"compared": document(tmp_path)}})}
    assert lines["real.perplexity_ratio"][1] == pytest.approx(math.exp(-0.001))
    assert lines["fp8.decode_perplexity_ratio"][1] == pytest.approx(math.exp(0.01))
    assert "50 tokens, over bf16 fa3, mixed" in lines["fp8.perplexity_ratio"][2]
    assert lines["real.gpu_requests_token_equal"][1] == 1
    assert "of 2 answers" in lines["real.gpu_requests_token_equal"][2]
    assert (
        "1 of 1 others near ties, stock itself 2 of 2" in lines["real.gpu_requests_token_equal"][2]
    )
    assert "fp8.stock_perplexity_ratio" not in lines
    assert not headlines({"real": {"compared": {}, "runs": {}}})


def test_a_prompt_that_a_chunk_would_split_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        real_options.parse(["--weights", "f", "--forced-prompt", "2040"], "")
    assert "would be split" in capsys.readouterr().err
    assert real_options.parse(["--weights", "f", "--device", "cpu"], "").stock == "torch_native"


def test_an_engine_that_fails_is_told_and_the_others_are_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, dict[str, Any]] = {}

    class Worker:
        def __init__(self, run: Run, *_: Any, **told: Any) -> None:
            self.name, self.told = run.name, told

        def measure(self, job: dict[str, Any], limit: float) -> dict[str, Any]:
            asked[self.name] = job
            if "fp8" in self.name:
                raise RuntimeError("out of memory")
            Kept(Path(job["kept"]), job["jobs"]).add("windows", 0, [-1.0])
            return {"sglang": "0", "failed": {}}

        def stop(self) -> None:
            asked[self.name]["stopped"] = True

    stages = dict.fromkeys(("windows", "steps"), "k")
    made = {"model": "m", "jobs": {run.name: stages for run in real.runs("fa3")}}
    monkeypatch.setattr(real, "Worker", Worker)
    monkeypatch.setattr(real, "_SINK_SECONDS", 0.0)
    monkeypatch.setattr(real.Real, "prepare", lambda self: made)
    with pytest.raises(SystemExit, match="out of memory"):
        real.main(["--weights", "f", "--out", str(tmp_path)])
    assert len(asked) == 4 and all(job["stopped"] for job in asked.values())
    assert {job["engine"]["kv_cache_dtype"] for job in asked.values()} == {"auto", "fp8_e4m3"}
    assert len({job["engine"]["port"] for job in asked.values()}) == 4
    saved = json.loads((tmp_path / "real.json").read_text())
    assert saved["compared"]["runs"][POD.name]["prefill"]["ratio"] == 1.0
    assert len(saved["failed"]) == 2 and saved["runs"][POD.name]["hybrid"] == 0
