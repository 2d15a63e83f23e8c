"""The part on several GPUs, with engines that are made up: what is started, what is filed."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch

from benchmarks.gpu.engines import pair, tp, tp_stages
from benchmarks.gpu.engines.scores import Scored
from benchmarks.gpu.visit.headlines import headlines
from pod_integrate.devices.cpu.device import this_cpu
from pod_integrate.terms import trace
from pod_integrate.terms.keys import Geometry
from pod_integrate.terms.table import ConfigTable
from pod_integrate.terms.trace import StepRecord, TraceMessage

CPU = this_cpu()
# Of one of two ranks: 8 query and 2 KV heads together.
RANK = Geometry.uniform((4, 1, 32), "fp32", page_size=1)
STEPS = ([[32, 1, 1], [32, 50, 60]], [[1, 1, 1], [33, 51, 61]])


class Engine:
    """A pass posts its steps where it traces; a table is taken by the ranks of `takers`."""

    def __init__(self, log: Path, url: str | None, seconds: float, takers: int) -> None:
        self.log, self._url, self._seconds, self._takers = log, url, seconds, takers
        self._sequence, self._version = 0, 0
        log.write_text("")

    def once(self, limit: float) -> float:
        assert limit > 0
        if self._url is not None:
            self._post(self._url)
        return self._seconds

    def scores(self, limit: float, *, parts: int = 1) -> list[Scored]:
        assert limit > 0
        if self._url is not None:
            self._poll(self._url)
        return [Scored([1, 2 if parts == 1 else 3], [-1.0, -1.0], [2.0, 0.0])]

    def _poll(self, url: str) -> None:
        answer = httpx.get(f"{url}/v1/table")
        if answer.status_code != 200:
            return
        self._version = ConfigTable.from_json(answer.content).version
        lines = [f"[2026 TP{rank}] config table version {self._version} in use, 2 buckets"
                 for rank in range(self._takers)]  # fmt: skip
        self.log.write_text("\n".join(lines))

    def _post(self, url: str) -> None:
        self._poll(url)
        records = [
            StepRecord(time=time.time(), step=0, q_lens=q, kv_lens=kv, step_us=2.0,
                       attention_us=1.0, layers=2, config="c",
                       source="exact" if self._version else "default")
            for q, kv in STEPS
        ]  # fmt: skip
        body = trace.encode(TraceMessage(
            version=1, server="one", sequence=self._sequence, geometry=str(RANK),
            device=str(CPU.key), build="b", seen=2, dropped=0, table_version=self._version,
            configs={"c": CPU.default_config(RANK).to_dict()}, records=records,
        ))  # fmt: skip
        self._sequence += 1
        headers = {"Content-Type": "application/x-msgpack"}
        httpx.post(f"{url}/v1/traces", content=body, headers=headers).raise_for_status()


class Started:
    """What the part asked to be started, one entry for each stage."""

    def __init__(self) -> None:
        self.jobs: list[dict[str, Any]] = []
        self.environments: list[Mapping[str, Mapping[str, str]]] = []
        self.engines: list[Mapping[str, Any]] = []
        self.takers = 2


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Started:
    kept = Started()

    @contextlib.contextmanager
    def standing(
        run: Any, job: Any, environments: Any, folders: Any, *, limit: float, engines: Any
    ) -> Iterator[dict[str, Engine]]:
        kept.jobs.append(job)
        kept.environments.append(environments)
        kept.engines.append(engines)
        yield {
            name: Engine(
                tmp_path / f"{name}.log", told.get("POD_ATTN_TUNER_URL"),
                1.0 if name == "pod" else 1.2, kept.takers,
            )
            for name, told in environments.items()
        }  # fmt: skip

    monkeypatch.setattr(pair, "standing", standing)
    monkeypatch.setattr(tp_stages, "_TABLE_SECONDS", 0.5)
    monkeypatch.setattr(tp, "make_model", lambda folder, options: None)
    monkeypatch.setattr(tp, "prebuild", lambda options, ranks: None)
    return kept


OPTIONS = ["--device", "cpu", "--heads", "8", "--running", "3", "--prompts", "2", "--longest", "64",
           "--new", "8", "--passes", "3", "--least", "0"]  # fmt: skip


def run(tmp_path: Path, *more: str) -> dict[str, Any]:
    tp.main([*OPTIONS, "--out", str(tmp_path), *more])
    found: dict[str, Any] = json.loads((tmp_path / "tp.json").read_text())
    return found


def test_both_stages_are_filed(tmp_path: Path, started: Started) -> None:
    found = run(tmp_path)
    assert found["failed"] == {} and set(found["stages"]) == {"tp", "dp"}
    for stage in ("tp", "dp"):
        assert found[stage]["pod_over_stock"]["ratio"] == pytest.approx(1.2)
        assert found[stage]["pod_over_stock"]["interval"] == pytest.approx([1.2, 1.2])
    assert found["tp"]["gpus"] == 2
    assert found["tp"]["traces"]["servers"] == 1
    assert found["tp"]["traces"]["geometries"] == [str(RANK)]
    assert found["tp"]["traces"]["steps"] == 6 and found["tp"]["traces"]["hybrid_steps"] == 3
    assert found["tp"]["answers"]["pod against stock"]["answers_equal"] == 1.0
    assert found["tp"]["answers"]["pod in other batches"]["near_ties"] == 1.0


def test_all_ranks_get_the_table_while_they_serve(tmp_path: Path, started: Started) -> None:
    table = run(tmp_path, "--stages", "tp")["tp"]["table"]
    assert table["ranks"] == [0, 1] and table["ranks_that_refused"] == []
    assert table["buckets"] == len(STEPS) and table["steps"] == {"exact": 4}
    assert table["apart"]["answers_equal"] == 1.0


def test_a_rank_without_the_table_is_seen(tmp_path: Path, started: Started) -> None:
    started.takers = 1
    assert run(tmp_path, "--stages", "tp")["tp"]["table"]["ranks"] == [0]


def test_engines_differ_by_backend_only_and_keep_multicast_off(
    tmp_path: Path, started: Started
) -> None:
    run(tmp_path)
    assert [job["engine"].get("tp_size") for job in started.jobs] == [2, None]
    assert [job["engine"].get("dp_size") for job in started.jobs] == [None, 2]
    for job, environments, engines in zip(
        started.jobs, started.environments, started.engines, strict=True
    ):
        assert job["engine"]["disable_custom_all_reduce"] is True
        pod, stock = job["engine"], engines["stock"]
        apart = {key for key in pod if pod[key] != stock[key]}
        assert apart == {"prefill_attention_backend", "decode_attention_backend"}
        for environment in environments.values():
            assert pair.NO_MULTICAST.items() <= environment.items()
        # Only the traced engine knows a tuner.
        assert "POD_ATTN_TUNER_URL" not in environments["stock"]


def test_questions_are_spread_over_the_load_and_short() -> None:
    requests = [{"ids": [1], "new": 500, "at": 3.0}, {"ids": [2], "new": 5, "at": 0.0}] * 4
    found = pair.questions(requests, 4)
    assert [one["ids"] for one in found] == [[1]] * 4
    assert {one["new"] for one in found} == {64} and {one["at"] for one in found} == {0.0}


def test_a_stage_without_time_is_said_to_be_missing(tmp_path: Path, started: Started) -> None:
    with pytest.raises(SystemExit, match="failed are dp"):
        run(tmp_path, "--stages", "dp", "--seconds", "1", "--least", "2")
    found = json.loads((tmp_path / "tp.json").read_text())
    assert "not run" in found["failed"]["dp"] and started.jobs == []


def test_without_traces_there_is_no_table() -> None:
    with pytest.raises(RuntimeError, match="no step was traced"):
        tp_stages.table_of([])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--heads", "12"], "multiple of 8"),
        (["--device", "cuda", "--heads", "32", "--ranks", "4"], "this machine has 1 GPUs"),
        (["--stages", "pp"], "unknown"),
    ],
)
def test_what_cannot_run_is_refused(
    options: list[str], words: str, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(SystemExit):
        tp.main(options)
    assert words in capsys.readouterr().err


def test_headlines_say_how_many_gpus_and_how_fast(tmp_path: Path, started: Started) -> None:
    found = {name: value for name, value, *_ in headlines({"tp": run(tmp_path)})}
    assert found == {"tp.gpus_run": 2, "tp.tokens_per_s_ratio": pytest.approx(1.2)}
    assert headlines({"tp": {"failed": {"tp": "no engine"}}}) == []
