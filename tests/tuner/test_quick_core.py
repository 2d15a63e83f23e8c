"""The core's thread neither waits for files nor does again what it did before."""

from __future__ import annotations

import threading
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import sqlalchemy as sa
from tuner_support import (
    SCOPE,
    STEPS,
    Clock,
    RecordedBench,
    drive,
    keep_house,
    make_tuner,
    message,
    overview,
    split_matters,
)

from pod_integrate.terms.table import ConfigTable
from tuner.core import Tuner
from tuner.messages import StudyKey
from tuner.store import archive
from tuner.traffic.samples import attention_times


def test_housekeeping_does_not_wait_for_the_archive(
    tuner: Tuner, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    may_write, write = threading.Event(), pq.write_table

    def slow(*args: object, **kwargs: object) -> None:
        assert may_write.wait(60)
        write(*args, **kwargs)

    monkeypatch.setattr(pq, "write_table", slow)
    tuner.ingest(message(0))
    clock.now += archive.FILE_SECONDS + 1
    tuner.housekeeping()
    # Another message comes, and more housekeeping: neither is held up.
    assert tuner.ingest(message(1)).accepted == STEPS
    tuner.housekeeping()
    assert tuner.archive.files() == []
    may_write.set()
    path = tuner.archive.wait(now=clock.now)
    assert path is not None and pq.read_table(path).num_rows == STEPS
    assert tuner.archive.bytes == path.stat().st_size
    assert tuner.archive.wait(now=clock.now) is None


def test_a_file_that_the_database_did_not_hear_of_is_not_written_twice(
    tuner: Tuner, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    tuner.ingest(message(0))
    with monkeypatch.context() as patch:
        patch.setattr(archive.TraceArchive, "_release", lambda *_args: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            tuner.archive.rotate(now=clock.now, force=True)
    tuner.ingest(message(1))
    tuner.archive.rotate(now=clock.now, force=True)
    found = [pq.read_table(path).num_rows for path in tuner.archive.files()]
    assert found == [STEPS, STEPS]
    assert tuner.archive.bytes == sum(path.stat().st_size for path in tuner.archive.files())


def test_a_file_that_cannot_be_written_is_tried_again(
    tuner: Tuner, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    tuner.ingest(message(0))
    clock.now += archive.FILE_SECONDS + 1
    with monkeypatch.context() as patch:

        def full(*_args: object, **_kwargs: object) -> None:
            raise pa.ArrowException("disk full")

        patch.setattr(pq, "write_table", full)
        keep_house(tuner)
        assert "disk full" in tuner.archive.trouble
    keep_house(tuner)
    assert tuner.archive.trouble == ""
    (path,) = tuner.archive.files()
    assert pq.read_table(path).num_rows == STEPS


def test_a_table_is_written_out_once_for_each_version(tuner: Tuner) -> None:
    assert tuner.table(SCOPE) is None
    tuner.ingest(message())
    drive(tuner, RecordedBench(split_matters))
    body = tuner.table(SCOPE)
    assert body is not None and tuner.table(SCOPE) is body
    table = ConfigTable.from_json(body)
    (entry,) = table.entries
    with tuner.store.begin() as tx:
        changed = tuner.tables.change(tx, SCOPE, entry, None, tuner.clock())
    assert tuner.table(SCOPE) is body
    tuner.tables.commit(SCOPE, changed)
    after = tuner.table(SCOPE)
    assert after is not None and ConfigTable.from_json(after).version == table.version + 1


def test_health_asks_the_database_and_builds_no_overview(
    tuner: Tuner, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert tuner.health() == ""
    tuner.store.trouble = "disk full"
    assert tuner.health() == "disk full"
    monkeypatch.setattr("tuner.traffic.loads.Loads.heaviest", lambda *_args: 1 / 0)
    assert tuner.health() == "disk full"


def test_medians_are_read_again_only_after_more_traffic_or_a_while(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    tuner = make_tuner(tmp_path, clock)
    asked: list[StudyKey] = []

    def read(tx: sa.Connection, key: StudyKey) -> list[tuple[float, str]]:
        asked.append(key)
        return attention_times(tx, key)

    monkeypatch.setattr("tuner.traffic.times.attention_times", read)
    tuner.ingest(message(0))
    for _ in range(3):
        assert overview(tuner)["buckets"][0]["attention_us_median"] == 4000.0
    assert len(asked) == 1
    tuner.ingest(message(1))
    assert overview(tuner)["buckets"][0]["steps"] == 2 * STEPS
    assert len(asked) == 2
    few = message(2).records[:1]
    tuner.ingest(message(2, few))
    overview(tuner)
    assert len(asked) == 2
    clock.now += 60.0
    overview(tuner)
    overview(tuner)
    assert len(asked) == 3
    tuner.close()
