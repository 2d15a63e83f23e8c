"""The op against vLLM: who is asked what, in which turns, and what is counted; nothing is timed."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks import op_vllm
from benchmarks.op_vllm import BATCHES, Batch, compare, headlines
from benchmarks.peers.vllm_process import Peer

SMALL = Batch(4, 8, 2, 16)


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


def test_nothing_beside_the_child_passes_for_vllm(capfd: pytest.CaptureFixture[str]) -> None:
    # Python looks for modules beside a script first; this environment has no vLLM.
    with pytest.raises(RuntimeError, match="ended with status 1"):
        Peer(Path(sys.executable), 1)
    assert "no package vllm in this environment" in capfd.readouterr().err
