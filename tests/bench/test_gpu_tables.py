"""Tables that ship: what is measured for them, what proves an entry, and how they are filed."""

from __future__ import annotations

import dataclasses
import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from benchmarks.gpu.shipped import search, tables
from benchmarks.gpu.shipped.search import BucketSearch, Effort, find, grid_of
from benchmarks.gpu.shipped.served import BATCHES, SERVED, Served
from benchmarks.gpu.truth import measure as truth_measure
from benchmarks.gpu.truth.measure import Measured
from benchmarks.gpu.visit import record
from benchmarks.gpu.visit.headlines import headlines
from pod_integrate.devices.registry import target_of
from pod_integrate.live import shipped
from pod_integrate.live.registry import ActiveTable
from pod_integrate.terms.config import PodConfig
from pod_integrate.terms.keys import Bucket, DeviceKey
from pod_integrate.terms.table import MIN_STEPS
from tuner.messages import Pair

H200 = target_of(DeviceKey("nvidia-h200", "sm90", 132))
LLAMA = SERVED[0]
DEFAULT = H200.default_config(LLAMA.geometry)
STREAMS = dataclasses.replace(DEFAULT, strategy="streams", decode_split_tokens=8192)
EFFORT = Effort()


@pytest.mark.parametrize("served", SERVED, ids=lambda served: served.models)
def test_what_people_serve_runs_on_the_device(served: Served) -> None:
    H200.require_feasible(H200.default_config(served.geometry), served.geometry)
    assert type(served.geometry).parse(str(served.geometry)) == served.geometry


def test_geometries_and_buckets_are_distinct() -> None:
    assert len({served.geometry for served in SERVED}) == len(SERVED) >= 12
    assert len({LLAMA.traffic(batch).bucket for batch in BATCHES}) == len(BATCHES)


@pytest.mark.parametrize("batch", BATCHES)
def test_screened_and_proven_on_distinct_steps_of_the_bucket(batch: str) -> None:
    traffic = LLAMA.traffic(batch)
    steps = traffic.steps(EFFORT.screened + EFFORT.confirmed)
    assert len(set(steps)) == len(steps) >= MIN_STEPS
    assert {Bucket.of(*step) for step in steps} == {traffic.bucket}


def test_every_geometry_gets_its_first_bucket_before_any_its_second() -> None:
    order = list(tables.rounds(SERVED, BATCHES))
    assert [served for served, _ in order[: len(SERVED)]] == list(SERVED)
    assert {batch for _, batch in order[: len(SERVED)]} == {BATCHES[0]}
    assert len(order) == len(SERVED) * len(BATCHES)


def test_one_op_alone_has_no_ratio_and_no_strategy_to_choose() -> None:
    both, alone = (
        grid_of(DEFAULT, Bucket.parse(text), tiny=False).configs(DEFAULT)
        for text in ("p2k@2k+d64@2k", "d64@4k")
    )
    assert {config.strategy for config in both} == {"fused", "serial", "streams"}
    assert {(c.strategy, c.prefill_ctas) for c in alone} == {("fused", 0)}
    assert {c.prefill for c in both} == {DEFAULT.prefill}


class Planted(BucketSearch):
    """Times of a bucket in which STREAMS is so much as fast as the default.

    lucky   how much as fast it is where it is screened, if that differs
    wrongly whether its answers differ
    """

    def __init__(self, factor: float, *, lucky: float | None = None, wrongly: bool = False) -> None:
        self.default = DEFAULT
        self._factor, self._lucky, self._wrongly = factor, lucky or factor, wrongly
        self._noise = random.Random(0)

    def screen(self, configs: Sequence[PodConfig], steps: int) -> dict[PodConfig, float]:
        assert steps == EFFORT.screened
        return {c: 1 / self._lucky if c == STREAMS else 1.2 for c in configs}

    def wrong(self, configs: Sequence[PodConfig]) -> dict[PodConfig, str]:
        return {config: "differs" for config in configs if self._wrongly}

    def pairs(self, number: int, configs: Sequence[PodConfig], rounds: int) -> list[list[Pair]]:
        assert number >= EFFORT.screened and list(configs) == [STREAMS]
        spread = [self._noise.gauss(1, 0.02) for _ in range(rounds)]
        return [[Pair(100.0, 100 / self._factor * s, f"step {number}") for s in spread]]


def found(planted: Planted, until: float = float("inf")) -> search.Found:
    return find(planted, grid_of(DEFAULT, Bucket.parse("p2k@2k+d64@2k"), tiny=False), EFFORT, until)


def test_a_faster_config_is_proven_on_fresh_steps() -> None:
    entry = found(Planted(1.1)).entry
    assert entry is not None and entry[0] == STREAMS
    proof = entry[1]
    assert proof.speedup is not None and proof.lower_bound is not None
    assert proof.steps >= MIN_STEPS and 1 < proof.lower_bound <= proof.speedup < 1.13


@pytest.mark.parametrize(
    "planted",
    [
        Planted(1.0),
        Planted(1.0, lucky=1.2),
        Planted(1.005, lucky=1.2),
        Planted(0.9, lucky=1.2),
        Planted(1.1, wrongly=True),
    ],
)
def test_luck_small_gains_and_wrong_answers_make_no_entry(planted: Planted) -> None:
    assert found(planted).entry is None


def test_time_that_is_over_makes_no_entry() -> None:
    result = found(Planted(1.1), until=0.0)
    assert result.entry is None
    assert result.document["finalists"][STREAMS.short()]["reason"] == "the time was over"


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What the part leaves, on the emulated SM whose `serial` is planted to be faster."""
    plain = truth_measure.measure

    def measure(*arguments: Any, **more: Any) -> Measured:
        plain(*arguments, **more)
        times = [[80.0 if c.strategy == "serial" else 120.0] for c in arguments[4]]
        rounds = int(arguments[5])
        return Measured([each * rounds for each in times], [[100.0] * rounds for _ in times])

    monkeypatch.setattr(search, "measure", measure)
    monkeypatch.setattr(tables, "_MOST_SECONDS", 600.0)
    monkeypatch.setattr(search, "TINY", Effort(screened=1, confirmed=14, rounds=1))
    tables.main(["--backend", "emulator", "--out", str(tmp_path), "--seconds", "600"])
    return tmp_path


def test_tables_are_filed_as_the_packages_and_found_by_their_exact_key(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    document = json.loads((made / "tables.json").read_text())
    by_bucket = {(b["geometry"], b["bucket"]): b["entry"] for b in document["buckets"]}
    assert len(by_bucket) == 4 and document["left_out"] == []
    assert all(("+" in bucket) == bool(entry) for (_, bucket), entry in by_bucket.items())
    package = tmp_path / "package"
    record.ship(made / tables.FOLDER, package)
    every = shipped.everything(package)
    assert len(every) == 2 and {len(table.entries) for table in every} == {1}
    table = every[0]
    monkeypatch.setattr(shipped, "FOLDER", package)
    for build, buckets in ((table.build, 1), ("another build", 0)):
        active = ActiveTable(table.geometry, table.device, build)
        shipped.lay_beneath(active)
        assert active.shipped == buckets
    evidence = next(iter(table.entries.values())).evidence
    assert evidence.build == table.build and evidence.lower_bound == pytest.approx(1.25)
    names = {line[0]: line[1] for line in headlines({"tables": document})}
    assert names["tables.shipped_geometries"] == 2
    assert names["tables.shipped_speedup_geomean"] == pytest.approx(1.25)


def test_a_new_visit_replaces_the_tables_of_its_device(made: Path, tmp_path: Path) -> None:
    package = tmp_path / "package"
    record.ship(made / tables.FOLDER, package)
    (kept, gone) = sorted((made / tables.FOLDER).glob("*.json"))
    gone.unlink()
    record.ship(made / tables.FOLDER, package)
    assert [path.name for path in package.glob("*/*.json")] == [kept.name]
