"""Experiments over a restart: healthy servers are heard, what was given up stays given up."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import msgspec
import pytest
import sqlalchemy as sa
from live_support import LiveServer, ask, given, live_tuner, report, split_gains
from tuner_support import BUCKET, BUILD, DEFAULT, DEVICE, GEOMETRY, KEY, SCOPE, Clock

from pod_integrate.terms.experiment import Experiment
from pod_integrate.terms.keys import Bucket
from pod_integrate.terms.table import ConfigTable, Evidence, TableEntry
from tuner.core import Tuner
from tuner.messages import Noted
from tuner.orders import PinOrder, TableOrder
from tuner.store import schema

TEN_YEARS = 10 * 365 * 86400.0
WHEN = "2026-01-02T03:04:05.000Z"


def start(folder: Path, clock: Clock) -> Tuner:
    return live_tuner(folder, clock, database_url=f"sqlite:///{folder / 'x.db'}")


def rows(tuner: Tuner) -> list[str]:
    with tuner.store.read() as tx:
        return list(tx.scalars(sa.select(schema.experiments.c.id)))


def taken(tuner: Tuner, experiment: Experiment) -> bool:
    pairs = LiveServer(tuner, split_gains).pairs(experiment, experiment.steps)
    return tuner.report_experiment(report(experiment, pairs)).taken


def pin(tuner: Tuner, *, pinned: bool = True) -> None:
    assert tuner.pin(PinOrder(who="ada", pinned=pinned, **KEY._asdict())).done


def adopt(tuner: Tuner) -> None:
    evidence = Evidence(
        pairs=40, steps=10, median_speedup=1.25, lower_bound=1.125, confidence=0.95,
        method="replay", measured_at=WHEN, build=BUILD, trial=3,
    )  # fmt: skip
    finer = dataclasses.replace(DEFAULT, decode_split_tokens=256)
    entries = {Bucket.parse(BUCKET): TableEntry(finer, evidence)}
    table = ConfigTable(9, GEOMETRY, DEVICE, BUILD, WHEN, entries)
    document: Any = msgspec.json.decode(table.to_json(checksum=True))
    body = msgspec.json.encode({"who": "ada", "table": document})
    assert tuner.import_table(TableOrder.decode(body)).done


def broken(*_args: object) -> None:
    raise sa.exc.OperationalError("disk", {}, Exception("full"))


def fail(tuner: Tuner, experiment: Experiment, patch: pytest.MonkeyPatch, where: str) -> None:
    with patch.context() as broke:
        broke.setattr(where, broken)
        with pytest.raises(sa.exc.OperationalError):
            taken(tuner, experiment)


@pytest.mark.parametrize("how", ["pin", "pin and unpin", "import", "failure"])
def test_what_was_given_up_is_not_held_again_after_a_restart(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    first = start(tmp_path, clock)
    experiment = given(first)
    if how == "import":
        adopt(first)
    elif how == "failure":
        fail(first, experiment, monkeypatch, "tuner.search.campaign.save_trial")
    else:
        pin(first)
    if how == "pin and unpin":
        pin(first, pinned=False)
    first.housekeeping()
    assert rows(first) == []
    again = given(first, "live-2") if how != "pin" else None
    first.housekeeping()
    first.close()
    second = start(tmp_path, clock)
    assert rows(second) == ([again.id] if again else [])
    assert not taken(second, experiment)
    second.close()


def test_a_row_that_could_not_be_deleted_goes_when_the_database_takes_writes_again(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    tuner = start(tmp_path, clock)
    fail(tuner, given(tuner), monkeypatch, "tuner.search.experiments.Experiments.end")
    with monkeypatch.context() as patch:
        patch.setattr(tuner.store, "_require_ours", broken)
        with pytest.raises(sa.exc.OperationalError):
            tuner.housekeeping()
    assert len(rows(tuner)) == 1
    tuner.housekeeping()
    assert rows(tuner) == []
    tuner.close()


def gone_trials(tuner: Tuner) -> None:
    with tuner.store.begin() as tx:
        tx.execute(sa.delete(schema.trials))


def pin_and_unpin(tuner: Tuner) -> None:
    pin(tuner)
    pin(tuner, pinned=False)


@pytest.mark.parametrize("end", [pin, pin_and_unpin, adopt, gone_trials])
def test_a_tuner_that_died_before_it_deleted_rows_does_not_hold_them(
    tmp_path: Path, clock: Clock, end: Any
) -> None:
    first = start(tmp_path, clock)
    experiment = given(first)
    end(first)
    first.close()
    second = start(tmp_path, clock)
    assert rows(second) == [] and not second.search.board.experiments.busy(KEY)
    assert not taken(second, experiment)
    second.close()


def test_servers_that_went_while_the_tuner_was_down_bar_nothing(
    tmp_path: Path, clock: Clock
) -> None:
    first = start(tmp_path, clock)
    LiveServer(first, split_gains).run(given(first))
    suspect = given(first)
    first.close()
    second = start(tmp_path, clock)
    clock.now += suspect.seconds + 1
    second.housekeeping()
    # Whoever is heard of and falls silent after that counts, as one.
    assert given(second, "live-2").number == suspect.number
    clock.now += suspect.seconds + 1
    second.housekeeping()
    assert not second.search.board.holds.barred(SCOPE)
    assert list(second.search.board.experiments._silent.values()) == [1]
    second.close()


def test_reports_that_waited_for_a_tuner_that_was_down_for_long_are_taken(
    tmp_path: Path, clock: Clock
) -> None:
    first = start(tmp_path, clock)
    experiment = given(first)
    pairs = LiveServer(first, split_gains).pairs(experiment, experiment.steps)
    first.close()
    clock.now += 10 * experiment.seconds
    second = start(tmp_path, clock)
    # Another server comes first; it is given something else.
    other = second.next_experiment(ask("live-2"))
    assert other is None or other.number != experiment.number
    assert second.report_experiment(report(experiment, pairs)) == Noted(True, True)
    second.close()


@pytest.mark.parametrize(("ahead", "left"), [(-TEN_YEARS, 300.0), (TEN_YEARS, 300.0), (3e3, 3e3)])
def test_an_experiment_of_an_earlier_process_has_a_whole_lease_and_an_end(
    tmp_path: Path, clock: Clock, ahead: float, left: float
) -> None:
    first = start(tmp_path, clock)
    experiment = given(first)
    with first.store.begin() as tx:
        tx.execute(sa.update(schema.experiments).values(expires=clock.now + ahead))
    first.close()
    second = start(tmp_path, clock)
    held = second.search.board.experiments.get(experiment.id)
    assert held is not None and held.expires == clock.now + left
    second.close()
