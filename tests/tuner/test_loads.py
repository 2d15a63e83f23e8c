"""Traffic in memory is what the database has, in the right order, whatever happens."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from tuner_support import KEY, SCOPE, Clock, make_tuner, message, record

from tuner.core import Tuner
from tuner.messages import StudyKey
from tuner.traffic.loads import Loads, Stored
from tuner.view.overview import MAX_SAMPLED_BUCKETS, samples

HALF_LIFE = 900.0


def key(number: int) -> StudyKey:
    return StudyKey(*SCOPE, f"d{1 << number}@64")


@pytest.mark.parametrize("seed", range(5))
def test_the_order_is_that_of_the_decayed_times(seed: int) -> None:
    pick = random.Random(seed)
    loads, now = Loads(HALF_LIFE), 1.8e9
    stored: dict[StudyKey, Stored] = {}
    for _ in range(300):
        now += pick.expovariate(1 / 60)
        one = key(pick.randrange(20))
        if pick.random() < 0.1 and one in stored:
            loads.drop(one)
            del stored[one]
            continue
        old = stored.get(one, Stored(False, 0, 0.0, 0.0, 0.0, now))
        stored[one] = old.grown(1, 2.0, pick.lognormvariate(0, 3), now, HALF_LIFE)
        loads.put(one, stored[one])
    told = {one: found.load(one, now, HALF_LIFE).attention_us for one, found in stored.items()}
    shown = list(loads.heaviest(now))
    assert {load.key: load.attention_us for load in shown} == told
    assert [load.key for load in shown] == sorted(told, key=lambda one: (-told[one], one))
    assert [one for one, _ in loads.lightest()] == [load.key for load in shown][::-1]
    assert loads.total_us(now) == pytest.approx(sum(told.values()))
    assert len(loads) == len(told)


def test_a_scope_has_an_order_and_a_total_of_its_own() -> None:
    loads, other = Loads(HALF_LIFE), SCOPE._replace(build="other")
    elsewhere = StudyKey(*other, "d1@64")
    for number in range(4):
        loads.put(key(number), Stored(False, 4, 8.0, 10.0 + number, 8.0, 100.0))
    loads.put(elsewhere, Stored(False, 4, 8.0, 1e6, 8.0, 400.0))
    mine = [load.key for load in loads.heaviest(400.0, SCOPE)]
    assert mine == [key(number) for number in (3, 2, 1, 0)]
    assert [load.key for load in loads.heaviest(400.0, other)] == [elsewhere]
    share = loads.total_us(400.0, SCOPE) + loads.total_us(400.0, other)
    assert share == pytest.approx(loads.total_us(400.0))
    loads.drop(elsewhere)
    assert not list(loads.heaviest(400.0, other)) and loads.total_us(400.0, other) == 0.0


def test_samples_of_one_scope_look_at_no_more_buckets_than_they_show(
    tuner: Tuner, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = [([1] * (1 << n), [64 << context] * (1 << n)) for n in range(3) for context in range(9)]
    tuner.ingest(message(0, [record(i, lengths=step) for i, step in enumerate(steps)]))
    assert len(tuner.traffic) > MAX_SAMPLED_BUCKETS
    looked, load = [], Stored.load

    def counted(stored: Stored, *args: Any) -> Any:
        looked.append(stored)
        return load(stored, *args)

    monkeypatch.setattr(Stored, "load", counted)
    found = samples(tuner, SCOPE)
    assert len(found.buckets) == len(looked) == MAX_SAMPLED_BUCKETS
    assert samples(tuner, SCOPE._replace(build="other")).buckets == []


def test_a_load_fades_by_half_in_a_half_life() -> None:
    loads = Loads(HALF_LIFE)
    loads.put(KEY, Stored(True, 4, 8.0, 1000.0, 8.0, 100.0))
    (load,) = loads.heaviest(100.0 + HALF_LIFE)
    assert load == (KEY, True, 4, 8.0, 500.0, 4.0) == loads.of(KEY, 100.0 + HALF_LIFE)
    assert loads.total_us(100.0 + HALF_LIFE) == 500.0


def test_buckets_without_time_come_last_and_weigh_nothing() -> None:
    loads = Loads(HALF_LIFE)
    loads.put(key(1), Stored(False, 4, 8.0, 0.0, 8.0, 200.0))
    loads.put(key(2), Stored(False, 4, 8.0, 1e-9, 8.0, 100.0))
    assert [load.key for load in loads.heaviest(300.0)] == [key(2), key(1)]
    loads.drop(key(2))
    assert loads.total_us(300.0) == 0.0


def test_a_restart_finds_the_same_loads(tmp_path: Path, clock: Clock) -> None:
    tuner = make_tuner(tmp_path, clock)
    for sequence in range(5):
        clock.now += 100.0
        light = [record(i, lengths=([1], [64 << sequence])) for i in range(4)]
        tuner.ingest(message(sequence, [record(i) for i in range(8)] + light))
    clock.now += 1000.0
    before, total = list(tuner.traffic.heaviest(clock.now)), tuner.traffic.total_us(clock.now)
    tuner.close()
    again = make_tuner(tmp_path, clock)
    assert list(again.traffic.heaviest(clock.now)) == before
    assert again.traffic.total_us(clock.now) == pytest.approx(total)
    again.close()


def test_what_failed_to_be_stored_is_in_no_memory(
    tuner: Tuner, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    tuner.ingest(message(0))
    (before,) = tuner.traffic.heaviest(clock.now)

    def broken(*_args: object) -> None:
        raise sa.exc.OperationalError("disk", {}, Exception("full"))

    with monkeypatch.context() as patch:
        patch.setattr("tuner.traffic.ingest.upsert_rows", broken)
        with pytest.raises(sa.exc.OperationalError):
            tuner.ingest(message(1))
    assert list(tuner.traffic.heaviest(clock.now)) == [before]
    assert tuner.ingest(message(1)).accepted
    (after,) = tuner.traffic.heaviest(clock.now)
    assert after.records == 2 * before.records
