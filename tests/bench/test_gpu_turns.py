"""Two engines in turns: whose turn it is, what a cost is, and what a failure says."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks.gpu.engines import turns
from benchmarks.gpu.engines.job import Run
from benchmarks.gpu.engines.turns_run import in_groups

RUN = Run("pod", "pod", mixed=True)
JOB: dict[str, Any] = {"engine": {"model_path": "m"}, "requests": [{"ids": [1] * 6, "new": 4}]}


def test_turns_are_mirrored_so_that_a_drift_favours_nobody() -> None:
    said = [turns.order(["a", "b"], number) for number in range(4)]
    assert said == [["a", "b"], ["b", "a"], ["a", "b"], ["b", "a"]]


def test_a_drift_that_both_share_costs_nothing() -> None:
    off = [100.0, 80.0, 120.0, 60.0, 90.0]
    found = turns.paired_cost(off, [rate * 0.99 for rate in off])
    assert found["cost"] == pytest.approx(0.01)
    assert found["interval"] == pytest.approx([0.01, 0.01])
    assert found["rounds"] == 5


def test_the_interval_holds_the_cost_and_is_in_order() -> None:
    on = [99.0, 101.0, 98.0, 100.0, 97.0, 99.5]
    found = turns.paired_cost([100.0] * 6, on)
    low, high = found["interval"]
    assert low < found["cost"] < high


def test_no_round_has_no_cost() -> None:
    with pytest.raises(ValueError, match="no round"):
        turns.paired_cost([], [])


@pytest.mark.parametrize("count", [1, 2, 3, 9, 20])
def test_groups_hold_every_question_once_in_its_order(count: int) -> None:
    groups = in_groups(list(range(9)), count)
    assert [one for some in groups for one in some] == list(range(9))
    assert len(groups) == min(count, 9)


WORKER = """
import json, pathlib, signal, sys
signal.signal(signal.SIGTERM, signal.SIG_IGN)
job, answer = (pathlib.Path(p) for p in sys.stdin.readline().strip().split("\\t"))
port = json.loads(job.read_text())["engine"]["port"]
def say(what):
    part = answer.with_suffix(".part"); part.write_text(json.dumps(what)); part.rename(answer)
say({"ready": True})
for number, _ in enumerate(sys.stdin):
    if number == FAIL:
        raise SystemExit("out of memory, says the engine")
    say({"seconds": port / 1000})
print("left")
"""


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[int], None]:
    """Standing workers run a script instead of SGLang, which fails in the given pass."""
    import subprocess
    import sys

    def use(fail: int) -> None:
        script = tmp_path / "worker.py"
        script.write_text(WORKER.replace("FAIL", str(fail)))
        popen = subprocess.Popen

        def start(command: list[str], **more: Any) -> Any:
            return popen([sys.executable, str(script)], **more)

        monkeypatch.setattr(subprocess, "Popen", start)

    return use


def measure(tmp_path: Path, passes: int) -> list[tuple[str, float]]:
    told: list[tuple[str, float]] = []
    turns.side_by_side(
        RUN, JOB, {"off": {}, "on": {}}, (tmp_path / "work", tmp_path / "out"),
        passes=passes, limit=20.0,
        each=lambda name, one: told.append((name, one["output_tokens_per_second"])),
    )  # fmt: skip
    return told


def test_two_engines_answer_in_turns_on_ports_of_their_own(
    tmp_path: Path, worker: Callable[[int], None]
) -> None:
    worker(-1)
    off, on = ("off", 4 / 31.0), ("on", 4 / 33.0)
    assert measure(tmp_path, 2) == [off, on, on, off]


def test_an_engine_that_dies_is_named_by_its_log(
    tmp_path: Path, worker: Callable[[int], None]
) -> None:
    worker(1)
    with pytest.raises(RuntimeError, match="out of memory, says the engine"):
        measure(tmp_path, 3)


def test_an_engine_ends_itself_when_no_order_follows(
    tmp_path: Path, worker: Callable[[int], None]
) -> None:
    worker(-1)
    one = turns.Standing(RUN, tmp_path, tmp_path)
    one.begin({"engine": {"port": 1}})
    one.ready(20.0)
    one.stop()
    assert one._process.returncode == 0
    assert one.log.read_text() == "left\n"
