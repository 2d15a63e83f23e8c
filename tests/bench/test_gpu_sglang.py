"""Numbers of the SGLang part, from streams made by hand; the engine is not started."""

from __future__ import annotations

import argparse
import json
import math
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.gpu import sglang, sglang_run
from benchmarks.gpu.sglang_job import Run, engine_arguments, make_requests, runs

LOAD = argparse.Namespace(
    device="cuda",
    running=3,
    prompts=2,
    longest=64,
    new=8,
    interval=0.5,
    prefill_graphs="breakable",
)


def test_times_are_from_sending_and_shared_by_the_tokens_of_a_chunk() -> None:
    requests = [{"ids": [1] * 10, "new": 3, "at": 0.0}, {"ids": [1] * 20, "new": 1, "at": 0.0}]
    answers = [
        sglang_run.Answer([5, 6, 7], 1.0, [(1.2, 1), (1.6, 3)]),
        sglang_run.Answer([8], 2.0, [(2.4, 1)]),
    ]
    found = sglang_run.summary(requests, answers, 2.0)
    assert found["output_tokens_per_second"] == 2.0
    assert found["tokens_per_second"] == 17.0
    assert found["ttft_ms_p50"] == pytest.approx(300)
    # Two tokens came 0.4 s after the first: 0.2 s each.
    assert found["itl_ms_p50"] == found["itl_ms_p99"] == pytest.approx(200)


def test_percentile_of_few_values() -> None:
    assert math.isnan(sglang_run.percentile([], 50))
    assert sglang_run.percentile([3.0], 99) == 3.0
    assert sglang_run.percentile([1.0, 2.0, 3.0], 50) == 2.0


def test_shares_count_whole_answers_and_tokens_before_a_difference() -> None:
    got = sglang.compare([[1, 2, 3, 4], [5, 6, 7, 8]], [[1, 2, 3, 4], [5, 9, 7, 8]])
    assert got == {"answers_equal": 0.5, "first_tokens_equal": 1.0, "tokens_equal": 5 / 8}
    assert sglang.compare([[1, 2], [3, 4]], [[9, 2], [3, 9]])["first_tokens_equal"] == 0.5


def test_requests_are_the_same_every_time_and_long_prompts_arrive_later() -> None:
    requests = make_requests(LOAD)
    assert requests == make_requests(LOAD)
    assert [r["at"] for r in requests] == [0.0, 0.0, 0.0, 0.5, 1.0]
    assert all(len(r["ids"]) < 16 for r in requests[:3])
    assert all(16 <= len(r["ids"]) < 64 for r in requests[3:])


def test_runs_differ_in_backends_and_mixing_only() -> None:
    wanted = runs("fa3", "triton")
    names = [run.name for run in wanted]
    assert len(set(names)) == len(names)
    assert {"pod, mixed", "fa3, mixed", "pod", "fa3"} <= set(names)
    first, second = (engine_arguments(run, Path("m"), LOAD) for run in wanted[:2])
    differ = {key for key in first if first[key] != second[key]}
    assert differ == {"prefill_attention_backend", "decode_attention_backend"}


def measurement(out: Path) -> Any:
    limits = {"stock": "fa3", "seconds": 600.0, "least": 0.0, "each": 60.0}
    options = argparse.Namespace(**vars(LOAD), **limits, layers=1, heads=4, out=out)
    return sglang.Measurement(options, out / "model")


class Worker:
    """Stands in for a process: answers with tokens, or dies."""

    def __init__(self, run: Run, tokens: list[list[int]] | None) -> None:
        self.run, self._tokens = run, tokens

    def measure(self, job: dict[str, Any], limit: float) -> dict[str, Any]:
        if self._tokens is None:
            raise RuntimeError("scheduler died")
        return {"seconds": 1.0, "tokens": self._tokens}


def test_run_that_fails_is_noted_and_the_others_are_compared(tmp_path: Path) -> None:
    found = measurement(tmp_path)
    for run, tokens in (
        (Run("pod", "pod", True), [[1, 2]]),
        (Run("pod", "pod", False), None),
        (Run("fa3", "fa3", True), [[1, 3]]),
    ):
        found.step(Worker(run, tokens))
    assert found.document["failed"] == {"pod": "scheduler died"}
    assert found.document["runs"]["pod, mixed"]["tokens_equal"] == 0.5
    assert found.document["runs"]["fa3, mixed"]["answers_equal"] == 1.0
    assert '"scheduler died"' in (tmp_path / "sglang.json").read_text()
    kept = json.loads((tmp_path / "sglang_tokens.json").read_text())
    assert kept == {"pod, mixed": [[1, 2]], "fa3, mixed": [[1, 3]]}


@pytest.mark.parametrize(
    ("program", "expected"),
    [("raise SystemExit('no such engine')", "no such engine"), ("import time; time.sleep(60)", "")],
)
def test_process_that_dies_or_hangs_leaves_its_log(
    program: str, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "run.sh"
    script.write_text(f'#!/bin/sh\nexec {sys.executable} -c "{program}"\n')
    script.chmod(0o755)
    monkeypatch.setattr(sglang.sys, "executable", str(script))
    worker = sglang.Worker(Run("pod", "pod", True), tmp_path, tmp_path)
    with pytest.raises(RuntimeError, match=f"(?s)exit status.*{expected}") as caught:
        worker.measure({}, 2.0)
    assert "at most 2 s" in str(caught.value)
    worker.stop()
