"""A SQLite file that somebody wrote nonsense to costs those rows, and nothing else."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from tuner_support import (
    KEY,
    WORKER,
    Clock,
    RecordedBench,
    drive,
    make_tuner,
    message,
    nothing_matters,
    overview,
    record,
    trials,
)

from pod_integrate.errors import SettingsError
from tuner.core import Tuner
from tuner.messages import iso
from tuner.orders import ServerOrder
from tuner.store import schema
from tuner.store.sound import sweep

NONSENSE: dict[type[Any], list[Any]] = {
    sa.Float: ["x", b"\xff", float("inf")],
    sa.Integer: ["x", b"\xff", float("inf")],
    sa.Boolean: ["x", b"\xff"],
    sa.String: [b"\xff"],
    sa.LargeBinary: [-1, "x"],
}
TABLES = [table for table in schema.metadata.sorted_tables if table.name != "meta"]


def worked(folder: Path, clock: Clock) -> Tuner:
    """A tuner with rows in most tables."""
    tuner = make_tuner(folder, clock)
    tuner.ingest(message())
    drive(tuner, RecordedBench(nothing_matters), tasks=9)
    tuner.pause(ServerOrder(who="me", server="other"))
    tuner.housekeeping()
    return tuner


def test_a_row_goes_whichever_of_its_columns_is_wrong(tmp_path: Path, clock: Clock) -> None:
    tuner = worked(tmp_path, clock)
    with tuner.store.engine.connect() as tx:
        checked = {table.name for table in TABLES if _checked(tx, table)}
    assert {"trials", "pairs", "messages", "decisions", "bucket_samples"} <= checked
    tuner.close()


def _checked(tx: sa.Connection, table: sa.Table) -> bool:
    def count() -> int:
        return tx.scalar(sa.select(sa.func.count()).select_from(table)) or 0

    before, newest = count(), f"(SELECT max(rowid) FROM {table.name})"
    for column in table.c if before else ():
        # SQLite itself takes nothing else than whole numbers as row ids.
        for value in () if column.name == "id" else _values(column):
            save = tx.begin_nested()
            text = f"UPDATE {table.name} SET {column.name} = ? WHERE rowid = {newest}"
            tx.exec_driver_sql(text, (value,))
            sweep(tx)
            assert count() == before - 1, (table.name, column.name, value)
            save.rollback()
    sweep(tx)
    assert count() == before
    return before > 0


def _values(column: sa.Column[Any]) -> list[Any]:
    return next(values for type_, values in NONSENSE.items() if isinstance(column.type, type_))


def test_a_tuner_over_a_file_with_nonsense_works_on(
    tmp_path: Path, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    tuner = worked(tmp_path, clock)
    with tuner.store.engine.begin() as tx:
        for place, value in (
            ("bucket_samples.attention_us", "x"), ("decisions.time", "x"), ("history.time", "x"),
            ("messages.records", "x"), ("pairs.phase", b"\xff"), ("trials.value", "x"),
            ("servers.records", float("inf")),
        ):  # fmt: skip
            name, column = place.split(".")
            newest = f"(SELECT max(rowid) FROM {name})"
            text = f"UPDATE {name} SET {column} = ? WHERE rowid = {newest}"
            tx.exec_driver_sql(text, (value,))
    tuner.close()
    again = make_tuner(tmp_path, clock)
    assert "rows of trials hold what their columns cannot: dropped" in caplog.text
    caplog.clear()
    again.ingest(message(7, records=[record(100 + i) for i in range(24)]))
    again.housekeeping()
    assert again.next_task(WORKER) is not None
    assert overview(again)["buckets"] and trials(again, KEY)["trials"]
    assert not [each for each in caplog.records if each.levelno >= logging.ERROR]
    again.close()


def test_an_epoch_that_is_no_number_is_a_damaged_database(tmp_path: Path, clock: Clock) -> None:
    tuner = make_tuner(tmp_path, clock)
    with tuner.store.engine.begin() as tx:
        mine = schema.meta.c.name == "epoch"
        tx.execute(sa.update(schema.meta).where(mine).values(value="x"))
    tuner.close()
    with pytest.raises(SettingsError, match="damaged: its epoch is 'x'"):
        make_tuner(tmp_path, clock)


def test_one_part_of_housekeeping_that_fails_leaves_the_others_to_be_done(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    tuner = make_tuner(tmp_path, clock)
    done: list[float] = []

    def broken(_now: float) -> None:
        raise ValueError("a bug")

    monkeypatch.setattr(tuner.history, "keep_up", broken)
    monkeypatch.setattr(tuner.retention, "keep_up", done.append)
    tuner.housekeeping()
    assert done == [clock.now]
    tuner.close()


@pytest.mark.parametrize("seconds", [-1e18, 1e18, float("inf")])
def test_a_time_without_a_date_is_shown_all_the_same(seconds: float) -> None:
    assert iso(seconds) in ("1970-01-01T00:00:00.000Z", "9999-12-31T23:59:59.000Z")
