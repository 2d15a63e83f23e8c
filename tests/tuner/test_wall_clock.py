"""A wall clock that jumps changes nothing that waits: leases, rechecks, weights, archives."""

from __future__ import annotations

from pathlib import Path

import pytest
from tuner_support import (
    KEY,
    SCOPE,
    WORKER,
    Clock,
    RecordedBench,
    bucket,
    drive,
    keep_house,
    kinds,
    make_tuner,
    message,
    overview,
    record,
    split_matters,
)

from pod_integrate.terms.table import ConfigTable
from tuner.clock import SteadyClock
from tuner.core import Tuner
from tuner.store import archive

DAY, TEN_YEARS = 86400.0, 10 * 365 * 86400.0


class Pair:
    """A wall clock that jumps and a clock that only time moves."""

    def __init__(self) -> None:
        self.wall, self.boot = Clock(), Clock()
        self.boot.now = 1000.0

    def pass_(self, seconds: float) -> None:
        self.wall.now += seconds
        self.boot.now += seconds


def start(folder: Path, pair: Pair) -> Tuner:
    return make_tuner(folder, SteadyClock(pair.wall, pair.boot))


@pytest.fixture
def pair() -> Pair:
    return Pair()


@pytest.mark.parametrize("jump", [-DAY, TEN_YEARS, -TEN_YEARS])
def test_a_lease_ends_when_its_time_has_passed_and_not_before(
    tmp_path: Path, pair: Pair, jump: float
) -> None:
    tuner = start(tmp_path, pair)
    tuner.ingest(message())
    task = tuner.next_task(WORKER)
    pair.wall.now += jump
    pair.pass_(tuner.settings.lease_seconds - 1)
    assert task is not None and tuner.search.leases.busy(KEY) == {task.number}
    pair.pass_(2)
    tuner.housekeeping()
    again = tuner.next_task(WORKER)
    assert again is not None and (again.number, again.lost) == (task.number, 1)
    tuner.close()


def test_a_promotion_is_rechecked_in_time_after_the_wall_went_back_a_day(
    tmp_path: Path, pair: Pair
) -> None:
    tuner = start(tmp_path, pair)
    tuner.ingest(message())
    drive(tuner, RecordedBench(split_matters))
    assert ConfigTable.from_json(tuner.table(SCOPE) or b"").entries
    pair.wall.now -= DAY
    pair.pass_(tuner.settings.recheck_seconds + 1)
    drive(tuner, RecordedBench(lambda config: 1500.0 - split_matters(config)), tasks=40)
    assert "rollback" in kinds(tuner)
    tuner.close()


@pytest.mark.parametrize("restart", [False, True])
def test_weights_fade_as_time_passes_after_ten_years_forward_and_back(
    tmp_path: Path, pair: Pair, restart: bool
) -> None:
    tuner = start(tmp_path, pair)
    pair.wall.now += TEN_YEARS
    if restart:
        tuner.close()
        tuner = start(tmp_path, pair)
    tuner.ingest(message(0))
    pair.wall.now -= TEN_YEARS
    if restart:
        tuner.close()
        tuner = start(tmp_path, pair)
    pair.pass_(20 * tuner.settings.half_life_seconds)
    tuner.ingest(message(1, [record(lengths=([1], [64]), attention_us=10.0)] * 4))
    assert bucket(tuner)["bucket"] == "d1@64"
    assert overview(tuner)["servers"][0]["last_seen_s"] == 0.0
    pair.pass_(archive.FILE_SECONDS + 1)
    keep_house(tuner)
    assert len(tuner.archive.files()) == 1
    tuner.close()


def test_a_server_earns_time_as_it_passes(tmp_path: Path, pair: Pair) -> None:
    tuner = start(tmp_path, pair)
    for sequence in range(20):
        pair.wall.now += DAY * (-1) ** sequence
        tuner.ingest(message(sequence, [record(1, attention_us=1e8)]))
        pair.pass_(1.0)
    (load,) = tuner.traffic.heaviest(tuner.clock())
    assert 76e6 < load.attention_us < 80e6
    tuner.close()
