"""What the stages of the live part start and file, with engines and a tuner that are made up."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from benchmarks.gpu.engines import live, live_models, live_stages
from benchmarks.gpu.engines.live_document import Live
from benchmarks.gpu.engines.live_tuner import Planted
from pod_integrate.devices.cpu.device import this_cpu
from pod_integrate.terms import trace
from pod_integrate.terms.trace import StepRecord, TraceMessage

DECODES = "d32@2k"
LENGTHS = [1] * 32, [2048] * 32
JOB: dict[str, Any] = {"engine": {}, "requests": [{"ids": [1] * 4, "new": 4}], "questions": []}
CPU = this_cpu()
TINY = live_models.geometry_of(live_models.MODELS["tiny"])


def record(attention_us: float, q_lens: list[int], kv_lens: list[int]) -> StepRecord:
    return StepRecord(
        time=time.time(), step=0, q_lens=q_lens, kv_lens=kv_lens, step_us=9e9,
        attention_us=attention_us, layers=8, config="c", source="default",
    )  # fmt: skip


class Tuner:
    """As a LocalTuner, of one promoted bucket; rolls a planted config back at the third look."""

    url = "http://tuner"

    def __init__(self) -> None:
        self.kills, self.looks, self.bucket_steps = 0, 0, 100
        self.poor: Planted | None = Planted(DECODES, 0.7, frozenset())

    def kill(self) -> float:
        self.kills += 1
        return 1.5

    def overview(self) -> dict[str, Any]:
        bucket = {"trials": 3, "pairs": 30, "pruned": 1, "status": "promoted", "bucket": DECODES}
        return {"buckets": [bucket], "totals": {}, "tables": [], "decisions": []}

    def page(self) -> dict[str, Any]:
        return {"overview": self.overview(), "trials": {}}

    def table(self) -> bytes:
        return json.dumps({"entries": {DECODES: {}}}).encode()

    def plant(self) -> Planted | None:
        return self.poor

    def steps(self, bucket: str) -> int:
        assert bucket == DECODES
        self.bucket_steps += 7
        return self.bucket_steps

    def rolled_back(self, planted: Planted) -> bool:
        self.looks += 1
        return self.looks > 2


class Engine:
    """A pass posts ten steps to its tuner, half as long with a table; answers differ by name."""

    def __init__(self, environment: dict[str, str], passes: float = 0.0) -> None:
        self._url, self._passes = environment["POD_ATTN_TUNER_URL"], passes
        self._us = 50.0 if "POD_ATTN_TABLE" in environment else 100.0
        self._sequence = 0

    def once(self, limit: float) -> float:
        assert limit > 0
        time.sleep(self._passes)
        if self._url != Tuner.url:
            records = [record(self._us, *LENGTHS) for _ in range(10)]
            body = trace.encode(TraceMessage(
                version=1, server="s", sequence=self._sequence, geometry=str(TINY),
                device=str(CPU.key), build="b", seen=10, dropped=0, table_version=0,
                configs={"c": CPU.default_config(TINY).to_dict()}, records=records,
            ))  # fmt: skip
            headers = {"Content-Type": "application/x-msgpack"}
            httpx.post(f"{self._url}/v1/traces", content=body, headers=headers).raise_for_status()
        self._sequence += 1
        return 2.0 if self._us > 50.0 else 1.6

    def answers(self, limit: float, *, parts: int = 1) -> list[list[int]]:
        assert limit > 0
        return [[1 if parts == 1 else 7, 2], [3, 4 if self._us > 50.0 else 5]]


@pytest.fixture
def part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Live:
    @contextlib.contextmanager
    def standing(
        run: Any, job: Any, environments: dict[str, dict[str, str]], folders: Any, *, limit: float
    ) -> Iterator[dict[str, Engine]]:
        assert run == live.RUN and job is JOB and limit > 0 and len(folders) == 2
        yield {name: Engine(told, passes=0.05) for name, told in environments.items()}

    monkeypatch.setattr(live_stages, "standing", standing)
    monkeypatch.setattr(live_stages, "_LOOK_SECONDS", 0.01)
    options = ["--out", str(tmp_path), "--learn", "0.3", "--rounds", "2", "--device", "cpu"]
    return Live(live._parse(options), tmp_path)


def saved(part: Live) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((part.options.out / "live_llama8b.json").read_text())
    return found


def test_cost_is_the_ratio_of_neighbours_and_saved_after_every_pass(
    part: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    known: list[Any] = []

    def side_by_side(*engines: Any, passes: int, each: Any, **more: Any) -> None:
        assert len(engines) == 4 and more["limit"] > 0
        for _ in range(passes):
            for name, rate in (("off", 100.0), ("on", 99.0)):
                each(name, {"output_tokens_per_second": rate})
                known.append(saved(part).get("overhead", {}).get("rounds"))

    monkeypatch.setattr(live_stages, "side_by_side", side_by_side)
    live_stages.cost(part, live.RUN, JOB, Tuner())  # type: ignore[arg-type]
    assert known == [None, 1, 1, 2]
    assert saved(part)["overhead"]["cost"] == pytest.approx(0.01)


def test_learning_goes_on_over_a_killed_tuner_and_leaves_table_and_page(part: Live) -> None:
    tuner = Tuner()
    with ThreadPoolExecutor(1) as pool:
        live_stages.learn(part, live.RUN, JOB, tuner, pool, then=live_stages.plant)  # type: ignore[arg-type]
    document = saved(part)
    assert tuner.kills == 1 and document["killed"]["back_after_s"] == 1.5
    assert len(document["progress"]) > 3 and document["progress"][-1]["promoted"] == 1
    out = part.options.out
    assert json.loads((out / "live_llama8b_table.json").read_text())["entries"]
    assert json.loads((out / "live_llama8b_page.json").read_text())["overview"]
    rollback = document["rollback"]
    # Steps as the tuner counts them, from the moment at which it was planted.
    assert (rollback["bucket"], rollback["speedup"], rollback["steps"]) == (DECODES, 0.7, 7)


def test_without_a_slower_config_nothing_is_planted(part: Live) -> None:
    tuner = Tuner()
    tuner.poor = None
    with ThreadPoolExecutor(1) as pool:
        live_stages.plant(part, Engine({"POD_ATTN_TUNER_URL": tuner.url}), tuner, pool)  # type: ignore[arg-type]
    assert saved(part)["rollback"] is None


def test_the_table_is_compared_with_the_default_in_turns(part: Live) -> None:
    table = part.options.out / "t.json"
    table.write_bytes(Tuner().table())
    live_stages.compare(part, live.RUN, JOB, table)
    document = saved(part)
    assert document["gain"]["speedup"] == 2.0 and document["decode_tuned_share"] == 1.0
    assert document["steps"] == {"default": 20, "tuned": 20}
    assert document["passes_faster"]["median"] == pytest.approx(2.0 / 1.6)
    answers = document["answers"]
    assert answers["questions"] == 2
    assert answers["differing"] == {"again": 0, "in other batches": 1, "tuned": 1}


def test_a_stage_that_fails_leaves_the_others_and_says_so(part: Live) -> None:
    def fail() -> None:
        raise RuntimeError("out of memory, says the engine")

    part.save(overhead={"cost": 0.01})
    part.stage("learn", fail)
    part.stage("tuned", lambda: part.save(gain={}))
    document = saved(part)
    assert "out of memory" in document["failed"]["learn"]
    assert set(document["stages"]) == {"learn", "tuned"} and "gain" in document
    assert document["overhead"] == {"cost": 0.01}
