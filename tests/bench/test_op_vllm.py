"""The op against vLLM: who is asked what, in which turns, and what is counted; nothing is timed."""

from __future__ import annotations

import json
import sys
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import _results, op_vllm
from benchmarks._headlines import SECTIONS
from benchmarks.op_vllm import BATCHES, Batch, compare, headlines
from benchmarks.peers.vllm_process import Peer

SMALL = Batch(4, 8, 2, 16)
NAMES = [name for rows in SECTIONS.values() for name in rows]


class Turns:
    """Both sides: each turn is noted, ours takes 1 s, vLLM's the seconds that it is given."""

    def __init__(self, seconds: list[float], error: float = 0.0) -> None:
        self.noted: list[str] = []
        self._seconds, self._error = list(seconds), error

    def ask(self, told: dict[str, Any]) -> dict[str, Any]:
        assert (told["q_lens"], told["kv_lens"]) == ([4, 1, 1], [8, 16, 16])
        if told.get("check"):
            return {"error": self._error}
        self.noted.append("vllm")
        fastest = self._seconds.pop(0)
        seconds = [fastest * 3, fastest, fastest * 2][: told["calls"]]
        return {"seconds": seconds, "cpu": [2 * one for one in seconds]}

    def times(self, calls: int) -> dict[str, list[float]]:
        self.noted.append("ours")
        return {"seconds": [1.0] * calls, "cpu": [1.0] * calls}


@pytest.fixture
def turns(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(op_vllm, "_SETTLE_SECONDS", 0.0)

    def make(seconds: list[float], error: float = 0.0) -> Turns:
        found = Turns(seconds, error)
        monkeypatch.setattr(op_vllm, "Ours", lambda batch, dtype: found)
        return found

    return make


def test_first_and_second_swap_and_the_fastest_call_of_a_turn_counts(turns: Any) -> None:
    sides = turns([1.2, 9.0, 1.4])
    row = compare(sides, SMALL, "fp32", rounds=3, calls=3)
    assert sides.noted == ["vllm", "ours", "ours", "vllm", "vllm", "ours"]
    assert row["ratio"] == 1.4 and row["cpu_ratio"] == 2.8
    assert row["case"] == "4@8 + 2x16" and row["kind"] == "hybrid"


@pytest.mark.parametrize(("dtype", "error"), [("fp32", 1e-3), ("bf16", 0.2)])
def test_an_answer_that_is_no_attention_is_not_timed(turns: Any, dtype: Any, error: float) -> None:
    sides = turns([1.0], error)
    with pytest.raises(RuntimeError, match="vLLM's answer is off by"):
        compare(sides, SMALL, dtype, rounds=1, calls=1)
    assert sides.noted == []


def test_a_case_that_outlasts_its_share_ends_after_three_rounds(turns: Any) -> None:
    row = compare(turns([1.5] * 9), SMALL, "fp32", rounds=9, calls=3, seconds=0.0)
    assert row["rounds"] == 3 and row["ratios"] == [1.5] * 3
    assert compare(turns([1.5] * 9), SMALL, "fp32", rounds=9, calls=3)["rounds"] == 9


def run_all(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, broken: str
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The documents of a run whose bf16 cases fail if `broken`: of all, and headlines."""

    asked: list[str] = []

    def fake(peer: Any, batch: Batch, dtype: str, **how: Any) -> dict[str, Any]:
        assert how["rounds"] == 2
        # Cases that need no time leave theirs to those that follow.
        assert 0 < how["seconds"] <= 30.0 / (2 * len(BATCHES) if not asked else 1)
        asked.append(dtype)
        if dtype == broken and batch is BATCHES[1]:
            raise RuntimeError("no attention")
        return {
            "case": batch.name, "kind": batch.kind, "dtype": dtype, "ours_ms": 2.0,
            "vllm_ms": 3.0, "ratio": 1.5, "cpu_ratio": 1.5,
        }  # fmt: skip

    monkeypatch.setattr(op_vllm, "compare", fake)
    monkeypatch.setattr(torch, "set_num_threads", lambda threads: None)
    monkeypatch.setenv("POD_ATTN_THREADS", "1")
    monkeypatch.setattr(_results, "RESULTS", tmp_path)
    program = "import sys; print('{}', flush=True); sys.stdin.read()"
    ends: AbstractContextManager[Any] = nullcontext()
    if broken:
        ends = pytest.raises(SystemExit, match=f"failed are {broken}")
    with ends:
        op_vllm.measure(script(tmp_path, program), rounds=2, calls=1, threads=1, budget=30.0)
    names = ("op_vllm.json", "headline.json")
    document, headline = (json.loads((tmp_path / name).read_text()) for name in names)
    return document, headline


def test_a_run_leaves_its_rows_and_three_headlines(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    document, headline = run_all(monkeypatch, tmp_path, "")
    assert len(document["rows"]) == 2 * len(BATCHES) and document["failed"] == {}
    assert set(headline) == {name for name in NAMES if name.startswith("cpu.")}
    assert all(entry["value"] == 1.5 for entry in headline.values())


def test_a_dtype_that_fails_has_no_headline_and_the_other_keeps_its_own(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    document, headline = run_all(monkeypatch, tmp_path, "bf16")
    assert len(document["rows"]) == len(BATCHES) + 1
    assert set(document["failed"]) == {"bf16"} and BATCHES[1].name in document["failed"]["bf16"]
    assert set(headline) == {"cpu.hybrid_vs_vllm_fp32", "cpu.min_vs_vllm_fp32"}


def test_headlines_are_of_hybrids_and_the_worst_of_all() -> None:
    def row(kind: str, dtype: str, ratio: float) -> dict[str, Any]:
        return {"case": f"{kind} {ratio}", "kind": kind, "dtype": dtype, "ratio": ratio}

    rows = [row("prefill", "fp32", 0.9), row("hybrid", "fp32", 1.0), row("hybrid", "fp32", 1.21)]
    found = headlines([*rows, row("prefill", "bf16", 0.5)])
    assert found["cpu.hybrid_vs_vllm_fp32"][0] == pytest.approx(1.1)
    assert (
        found["cpu.min_vs_vllm_fp32"][0] == 0.9
        and "prefill 0.9" in found["cpu.min_vs_vllm_fp32"][1]
    )
    # No hybrid batch ran in bf16: no number.
    assert "cpu.hybrid_vs_vllm_bf16" not in found


def test_batches_cover_prefill_decode_and_hybrid() -> None:
    assert {batch.kind for batch in BATCHES} == {"prefill", "decode", "hybrid"}
    assert Batch(0, 0, 3, 7).lengths == ([1, 1, 1], [7, 7, 7])
    assert Batch(5, 9, 0, 0).lengths == ([5], [9])
    assert len({batch.name for batch in BATCHES}) == len(BATCHES)


def script(tmp_path: Path, program: str) -> Path:
    """Stands in for another environment's python: runs `program`, whatever it is told to run."""
    found = tmp_path / "python"
    found.write_text(f'#!/bin/sh\nexec {sys.executable} -c "{program}"\n')
    found.chmod(0o755)
    return found


def test_a_peer_answers_line_by_line_and_is_ended(tmp_path: Path) -> None:
    program = (
        "import json, sys\n"
        "print(json.dumps(dict(vllm=7)), flush=True)\n"
        "for line in sys.stdin: print(json.dumps(dict(got=json.loads(line))), flush=True)"
    )
    with Peer(script(tmp_path, program), 2) as peer:
        assert peer.said == {"vllm": 7}
        assert peer.ask({"calls": 3}) == {"got": {"calls": 3}}
        process = peer._process
    assert process.poll() is not None


def test_a_peer_that_dies_is_said_to_have(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="ended with status 5"):
        Peer(script(tmp_path, "raise SystemExit(5)"), 2)


def test_a_peer_that_died_since_is_said_to_have(tmp_path: Path) -> None:
    with Peer(script(tmp_path, "print('{}')"), 2) as peer:
        peer._process.wait()
        with pytest.raises(RuntimeError, match="vLLM's process has ended"):
            peer.ask({"calls": 1})


def test_nothing_beside_the_child_passes_for_vllm(capfd: pytest.CaptureFixture[str]) -> None:
    # Python looks for modules beside a script first; this environment has no vLLM.
    with pytest.raises(RuntimeError, match="ended with status 1"):
        Peer(Path(sys.executable), 1)
    assert "no package vllm in this environment" in capfd.readouterr().err
