"""`pod-attn replay`: tunes from a log in one process, shows its buckets, and ends cleanly."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from support.command import run
from tuner_support import RecordedBench

from pod_integrate.devices.registry import device_named
from pod_integrate.replay import tune
from pod_integrate.replay.serving import Step
from pod_integrate.replay.tally import Tally
from pod_integrate.replay.tune import Looked, Replay
from pod_integrate.terms.config import PodConfig
from pod_integrate.terms.keys import Geometry
from pod_integrate.terms.table import ConfigTable

GEOMETRY = Geometry.uniform((8, 4, 64), "fp32", page_size=1)
DEFAULT = device_named("cpu").default_config(GEOMETRY)
DATA = Path(__file__).resolve().parents[3] / "shared" / "data"


def steps(count: int) -> list[Step]:
    pick = random.Random(1)
    return [Step([128, 1, 1], [256 + pick.randrange(64), 300, 200 + n % 50]) for n in range(count)]


def finer_is_better(config: PodConfig) -> float:
    return 500.0 if 0 < config.decode_split_tokens < DEFAULT.decode_split_tokens else 1000.0


def make(folder: Path, **options: int) -> Replay:
    given = {"layers": 4, "trials": 12} | options
    bench = RecordedBench(finer_is_better)
    return Replay(folder, device_named("cpu"), GEOMETRY, bench=bench, **given)


def test_what_is_faster_is_promoted_until_nothing_is_left_to_try(tmp_path: Path) -> None:
    run, looked = make(tmp_path), list[Looked]()
    tally = Tally(GEOMETRY, device_named("cpu").key)
    run.feed(iter(steps(200)), tally)
    assert tally.steps == 200 and run.table() is None
    assert run.tune(60.0, looked.append) == "nothing is left to try now"
    table = run.table()
    assert table is not None
    (entry,) = table.entries.values()
    assert finer_is_better(entry.config) == 500.0 and entry.evidence.steps >= 8
    assert looked[-1].tasks == len(looked) - 1 and looked[-1].promoted == 1
    run.close()


def test_the_time_that_was_given_ends_it_and_the_next_run_goes_on(tmp_path: Path) -> None:
    first = make(tmp_path)
    first.feed(steps(200), Tally(GEOMETRY, device_named("cpu").key))
    assert "go on with --state" in first.tune(1e-6, lambda _: None) and first.table() is None
    first.close()
    second = make(tmp_path)
    second.feed([], Tally(GEOMETRY, device_named("cpu").key))
    second.tune(60.0, lambda _: None)
    assert second.table() is not None
    second.close()


def test_buckets_keep_their_shares_however_fast_a_log_is_read(tmp_path: Path) -> None:
    run = make(tmp_path, layers=512)
    half = [Step([1], [1 << 20])] * 2000
    run.feed([*half, *([Step([1, 1], [1 << 19, 1 << 19])] * 2000)], tally := _tally())
    rows = {row.bucket: row.us for row in tally.rows()}
    now = run._clock()
    loads = {load.key.bucket: load.attention_us for load in run._tuner.traffic.heaviest(now)}
    assert set(loads) == set(rows)
    assert min(loads.values()) / sum(loads.values()) == pytest.approx(0.5, abs=0.05)
    run.close()


def _tally() -> Tally:
    return Tally(GEOMETRY, device_named("cpu").key)


def test_the_environment_of_a_service_does_not_reach_a_replay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path / "service"
    elsewhere.mkdir()
    monkeypatch.setenv("POD_TUNER_DATABASE_URL", f"sqlite:///{elsewhere / 'tuner.db'}")
    monkeypatch.setenv("POD_TUNER_TRACE_DIR", str(elsewhere / "traces"))
    monkeypatch.setenv("POD_TUNER_HOST", "0.0.0.0")
    make(tmp_path / "replay").close()
    assert list(elsewhere.iterdir()) == [] and (tmp_path / "replay" / "tuner.db").exists()


@pytest.fixture
def log(tmp_path: Path) -> Path:
    pick = random.Random(2)
    rows = [f"{pick.randint(100, 900)},{pick.randint(5, 60)}" for _ in range(300)]
    path = tmp_path / "log.csv"
    path.write_text("num_prefill_tokens,num_decode_tokens\n" + "\n".join(rows) + "\n")
    return path


def test_dry_shows_buckets_and_shares_of_another_gpu(
    log: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [str(log), "--dry", "--device", "h100", "--chunk", "256", "--max-running", "8"]
    code, out, _ = run(capsys, "replay", *words, "--json")
    document = json.loads(out)
    assert code == 0 and document["requests"] == 300 and "sm90" in document["device"]
    assert sum(row["steps"] for row in document["buckets"]) == document["steps"] > 500
    code, out, _ = run(capsys, "replay", *words, "--steps", "50", "--top", "2")
    assert code == 0 and "50 steps of " in out and document["buckets"][0]["bucket"] in out


@pytest.mark.parametrize("name", ["arxiv_summarization_pod.csv", "mooncake_conversation.jsonl"])
def test_published_logs_are_read(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    if not (DATA / name).exists():
        pytest.skip("the published traces are not on this machine")
    words = [str(DATA / name), "--dry", "--device", "h100", "--steps", "300", "--json"]
    code, out, _ = run(capsys, "replay", *words)
    assert code == 0 and json.loads(out)["steps"] == 300


def test_ctrl_c_shows_what_was_read(
    log: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    add = Tally.add

    def interrupted(tally: Tally, step: Step) -> float:
        if tally.steps == 40:
            raise KeyboardInterrupt
        return add(tally, step)

    monkeypatch.setattr(Tally, "add", interrupted)
    code, out, err = run(capsys, "replay", str(log), "--dry", "--device", "h100")
    assert code == 130 and "40 steps of" in out and "interrupted" in out and "Traceback" not in err


def test_ctrl_c_keeps_what_was_promoted(
    log: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def bench(_device: object) -> RecordedBench:
        return RecordedBench(finer_is_better)

    def tune_once(run: Replay, seconds: float, looked: object) -> str:
        whole(run, seconds, lambda at: _stop() if at.promoted else None)
        raise AssertionError("nothing was promoted")

    def _stop() -> None:
        raise KeyboardInterrupt

    whole = Replay.tune
    monkeypatch.setattr(tune, "OpBench", bench)
    monkeypatch.setattr(Replay, "tune", tune_once)
    table = tmp_path / "table.json"
    words = [str(log), "--device", "cpu", "--table", str(table), "--max-running", "8"]
    code, out, err = run(capsys, "replay", *words)
    assert code == 130 and "1 configs promoted: interrupted" in out and "Traceback" not in err
    assert len(ConfigTable.from_json(table.read_bytes()).entries) == 1


def test_a_gpu_that_is_not_here_only_weighs(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = run(capsys, "replay", str(log), "--device", "h100")
    assert code == 2 and "with --dry" in err
