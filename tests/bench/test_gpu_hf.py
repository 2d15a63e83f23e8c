"""The transformers part of benchmarks/gpu on the CPU kernel, and its arithmetic by hand."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("transformers")

from benchmarks.gpu.engines import hf, hf_logits

TINY = "--device cpu --requests 3 --longest 160 --new 5 --layers 1 --heads 4".split()


def test_the_part_runs_on_the_cpu_kernel_and_bf16_pod_errs_no_more_than_stock(
    tmp_path: Path,
) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.gpu", "hf", *TINY, "--out", str(tmp_path)],
        # oneDNN's AMX path for bf16 is not usable on every virtual machine.
        env={**os.environ, "ONEDNN_MAX_CPU_ISA": "AVX512_CORE_BF16"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    saved = json.loads((tmp_path / "hf.json").read_text())
    assert saved["failed"] == {} and saved["load"]["dtype"] == "bf16"
    assert list(saved["runs"]) == ["sdpa", "pod", "sdpa, prompts reversed", "paged|eager"]
    assert saved["runs"]["sdpa"]["answers_equal"] == 1
    logits = saved["logits"]
    assert 0 < logits["pod"]["logit_mean"] <= 2 * logits["sdpa"]["logit_mean"]
    assert 0 < logits["sdpa"]["logit_mean"] < 0.05
    assert set(saved["differences"]) == set(saved["runs"]) - {"sdpa"}
    for run, found in saved["differences"].items():
        assert found["differences"] == round(3 * (1 - saved["runs"][run]["answers_equal"]))


def test_a_run_that_fails_is_told_and_the_next_one_follows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: Any) -> Any:
        raise RuntimeError("no such attention")

    monkeypatch.setattr(hf, "make_model", broken)
    measurement = hf.HfRuns(hf._parse([*TINY, "--out", str(tmp_path)]))
    measurement.step("pod", lambda: measurement.run("pod"))
    measurement.step("other", lambda: {"value": 1.0})
    saved = json.loads((tmp_path / "hf.json").read_text())
    assert saved["failed"] == {"pod": "RuntimeError: no such attention"}
    assert "other: {'value': 1.0}" in capsys.readouterr().out
    late = hf.HfRuns(hf._parse([*TINY, "--seconds", "-1", "--out", str(tmp_path)]))
    late.step("pod", lambda: {"value": 1.0})
    assert late.document["failed"]["pod"].startswith("not run: -1.0 s")


def test_first_differences_are_weighed_by_fp32() -> None:
    truth = torch.zeros(3, 2, 4)
    truth[0, 1] = torch.tensor([3.0, 2.99, 0, 0])  # a near tie, fp32 chooses token 0
    truth[1, 0] = torch.tensor([0, 1.0, 0, 3.0])  # no tie, fp32 chooses token 3
    want = [[1, 0], [1, 1], [2, 2]]
    got = [[1, 1], [3, 0], [2, 2]]
    assert list(hf_logits.first_differences(want, got)) == [(0, 1, 0, 1), (1, 0, 1, 3)]
    found = hf_logits.explain(want, got, truth, noise=0.02)
    assert found["differences"] == 2 and found["near_ties"] == 0.5
    assert found["gap_max"] == 2.0
    assert found["fp32_says_want"] == found["fp32_says_got"] == 0.5
    assert hf_logits.explain(want, want, truth, noise=0.02) == {"differences": 0}
    assert hf.compare(want, got) == {"answers_equal": 1 / 3, "tokens_equal": 0.5}


def test_errors_of_logits_are_those_that_were_put_in() -> None:
    truth = torch.tensor([[[2.0, 1.0, 0.0]], [[0.0, 1.0, 3.0]]])
    got = truth.clone()
    got[0, 0, 1] += 1.5
    found = hf_logits.errors(got, truth)
    assert found["logit_mean"] == pytest.approx(1.5 / 6) and found["logit_max"] == 1.5
    assert found["top1_equal"] == 0.5 and found["noise"] == 1.5
    exact = truth[0, 0].softmax(-1)
    kl = float((exact * (exact / got[0, 0].softmax(-1)).log()).sum())
    assert found["kl_max"] == pytest.approx(kl) and found["kl_mean"] == pytest.approx(kl / 2)
    assert hf_logits.errors(truth, truth)["kl_max"] == 0
    assert hf_logits.margins(truth) == {"p1": 1.0, "p10": 1.0, "median": 1.0}
