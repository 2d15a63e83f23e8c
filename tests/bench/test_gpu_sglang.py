"""Numbers of the SGLang part, from streams made by hand; the engine is not started."""

from __future__ import annotations

import argparse
import json
import math
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.gpu.engines import figures, sglang, sglang_run
from benchmarks.gpu.engines.job import Run, engine_arguments, make_requests, runs
from benchmarks.gpu.visit import record, tables

LOAD = argparse.Namespace(
    device="cuda",
    running=3,
    prompts=2,
    longest=64,
    new=8,
    interval=0.5,
    prefill_graphs="breakable",
)


def request(tokens: int, new: int, kind: str = figures.RUNNING, at: float = 0.0) -> dict[str, Any]:
    return {"kind": kind, "ids": [1] * tokens, "new": new, "at": at}


def test_times_are_from_sending_and_shared_by_the_tokens_of_a_chunk() -> None:
    requests = [request(10, 3), request(20, 1)]
    answers = [
        figures.Streamed([5, 6, 7], 1.0, [(1.2, 1), (1.6, 3)]),
        figures.Streamed([8], 2.0, [(2.4, 1)]),
    ]
    found = figures.summary(requests, answers, 2.0)
    assert found["output_tokens_per_second"] == 2.0
    assert found["tokens_per_second"] == 17.0
    assert found["ttft_ms_p50"] == pytest.approx(300)
    # Two tokens came 0.4 s after the first: 0.2 s each.
    assert found["itl_ms_p50"] == found["itl_ms_p99"] == pytest.approx(200)


def test_first_tokens_of_the_burst_and_of_later_prompts_are_timed_apart() -> None:
    requests = [request(1, 1), request(1, 1), request(9, 1, figures.PROMPTS)]
    answers = [figures.Streamed([0], 1.0, [(1.0 + wait, 1)]) for wait in (0.1, 0.3, 0.5)]
    found = figures.summary(requests, answers, 1.0)
    assert found["ttft_ms_running_p50"] == pytest.approx(200)
    assert found["ttft_ms_prompts_p50"] == found["ttft_ms_prompts_p99"] == pytest.approx(500)
    assert found["ttft_ms_p50"] == pytest.approx(300)
    # No number, and no NaN, of a kind that was not asked.
    alone = figures.summary(requests[:2], answers[:2], 1.0)
    assert not [name for name in alone if "prompts" in name]


def test_first_pass_is_kept_but_not_counted() -> None:
    passes = [{"seconds": s, "itl_ms_p50": 10 * s} for s in (9.0, 2.0, 5.0, 3.0)]
    found = figures.of_passes(passes)
    assert (found["seconds"], found["itl_ms_p50"]) == (3.0, 30.0)
    assert found["first_pass"] == passes[0] and found["passes_counted"] == 3
    assert found["spread"] == {"seconds": [2.0, 5.0], "itl_ms_p50": [20.0, 50.0]}


class Engine:
    """Answers each pass with other tokens after other seconds, and keeps what was asked."""

    def __init__(self, tokens: list[list[int]]) -> None:
        self.asked: list[list[dict[str, Any]]] = []
        self._tokens = tokens

    def __call__(self, requests: list[dict[str, Any]]) -> tuple[list[figures.Streamed], float]:
        answer = figures.Streamed(self._tokens[len(self.asked)], 0.0, [(0.5, 1), (0.6, 2)])
        self.asked.append(requests)
        return [answer] * len(requests), float(len(self.asked))


def test_tokens_are_of_the_first_counted_pass_and_compared_with_the_next() -> None:
    engine = Engine([[7, 7], [1, 2], [1, 3], [1, 2]])
    found = sglang_run.timed_passes(engine, [request(4, 2)], 4)
    assert found["tokens"] == [[1, 2]] and found["seconds"] == 3.0
    assert found["passes_equal"]["tokens_equal"] == 0.5
    assert found["passes_equal"]["answers_equal"] == 0.0
    assert "passes_equal" not in sglang_run.timed_passes(Engine([[7], [1]]), [request(4, 2)], 2)


def test_saturated_passes_send_everything_at_once() -> None:
    engine = Engine([[1, 2]] * 3)
    requests = [request(4, 2), request(10, 2, figures.PROMPTS, at=3.0)]
    found = sglang_run.saturated_passes(engine, requests)
    assert [[r["at"] for r in asked] for asked in engine.asked] == [[0.0, 0.0]] * 3
    assert requests[1]["at"] == 3.0
    # Of 2 s and 3 s; the first pass took 1 s.
    assert found["seconds"] == 2.5 and found["first_pass"]["seconds"] == 1.0
    assert found["output_tokens_per_second"] == pytest.approx((4 / 2 + 4 / 3) / 2)
    assert found["tokens_per_second"] == pytest.approx((18 / 2 + 18 / 3) / 2)


def test_one_pass_is_refused_because_it_would_not_count() -> None:
    with pytest.raises(SystemExit):
        sglang.main(["--passes", "1"])


def test_percentile_of_few_values() -> None:
    assert math.isnan(figures.percentile([], 50))
    assert figures.percentile([3.0], 99) == 3.0
    assert figures.percentile([1.0, 2.0, 3.0], 50) == 2.0


def test_shares_count_whole_answers_and_tokens_before_a_difference() -> None:
    got = figures.compare([[1, 2, 3, 4], [5, 6, 7, 8]], [[1, 2, 3, 4], [5, 9, 7, 8]])
    assert got == {"answers_equal": 0.5, "first_tokens_equal": 1.0, "tokens_equal": 5 / 8}
    assert figures.compare([[1, 2], [3, 4]], [[9, 2], [3, 9]])["first_tokens_equal"] == 0.5


def test_requests_are_the_same_every_time_and_long_prompts_arrive_later() -> None:
    requests = make_requests(LOAD)
    assert requests == make_requests(LOAD)
    assert [r["at"] for r in requests] == [0.0, 0.0, 0.0, 0.5, 1.0]
    assert [r["kind"] for r in requests] == ["running"] * 3 + ["prompts"] * 2
    at_once = make_requests(argparse.Namespace(**(vars(LOAD) | {"interval": 0.0})))
    assert [{**r, "at": 0.0} for r in requests] == at_once
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
    limits = {
        "passes": 3,
        "saturated": True,
        "stock": "fa3",
        "seconds": 600.0,
        "least": 0.0,
        "each": 60.0,
    }
    options = argparse.Namespace(**vars(LOAD), **limits, layers=1, heads=4, out=out)
    return sglang.SglangRuns(options, out / "model")


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
    monkeypatch.setattr(sys, "executable", str(script))
    worker = sglang.Worker(Run("pod", "pod", True), tmp_path, tmp_path)
    with pytest.raises(RuntimeError, match=f"(?s)exit status.*{expected}") as caught:
        worker.measure({}, 2.0)
    assert "at most 2 s" in str(caught.value)
    worker.stop()


SGLANG = {
    "compared_with": "fa3, mixed",
    "runs": {
        "pod, mixed": {
            "ttft_ms_p50": 90.0,
            "ttft_ms_prompts_p50": 45.0,
            "ttft_ms_prompts_p99": 150.2,
            "ttft_ms_running_p50": 120.0,
            "itl_ms_p50": 2.2,
            "itl_ms_p99": 12.0,
            "tokens_equal": 0.11,
            "passes_counted": 4,
            "passes_equal": {"tokens_equal": 0.3},
            "saturated": {"output_tokens_per_second": 5432.1},
        },
    },
}


def test_sglang_rows_are_medians_of_counted_passes() -> None:
    drawn = tables.sglang(SGLANG)
    assert "| `pod, mixed` | 5,432 | 45 / 150 | 120 | 2.20 / 12.00 | 11% | 30% |" in drawn
    assert "difference from `fa3, mixed` | from its own next pass |" in drawn
    assert drawn.endswith("Medians of 4 passes in one engine, after one that is not counted.")


def test_sglang_page_shows_its_recorded_runs_and_dashes_where_a_run_had_one_pass() -> None:
    root = Path(record.__file__).resolve().parents[3]
    document = json.loads((root / "benchmarks" / "results" / "gpu_sglang.json").read_text())
    drawn = tables.sglang(document)
    page = (root / "docs" / "gpu.md").read_text()
    assert tables.replaced(page, "gpu-sglang", drawn) == page
    old = {"ttft_ms_p50": 90.0, "itl_ms_p50": 2.2, "itl_ms_p99": 12.0}
    drawn = tables.sglang({"compared_with": "fa3, mixed", "runs": {"pod, mixed": old}})
    assert "| `pod, mixed` | - | - / - | - | 2.20 / 12.00 | - | - |" in drawn
    assert drawn.endswith("One pass of each engine.")
