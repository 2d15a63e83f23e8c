"""Storage, archive and settings: nothing is lost, nothing is written twice."""

from __future__ import annotations

import contextlib
import sqlite3
import stat
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import sqlalchemy as sa
from pydantic import SecretStr
from tuner_support import (
    BUCKET,
    KEY,
    SCOPE,
    Clock,
    RecordedBench,
    bucket,
    drive,
    make_tuner,
    message,
    overview,
    record,
    split_matters,
    trials,
)

from pod_integrate.errors import SettingsError
from pod_integrate.terms.table import ConfigTable
from tuner.settings import TunerSettings, is_loopback, load
from tuner.store import archive, schema
from tuner.store.storage import Store
from tuner.traffic import samples

DATA = Path(__file__).parent / "data"


def archived_steps(folder: Path) -> list[int]:
    return [step for path in sorted(folder.glob("*.parquet")) for step in steps_of(path)]


def steps_of(path: Path) -> list[int]:
    steps: list[int] = pq.read_table(path).column("step").to_pylist()
    return steps


def test_the_archive_takes_every_step_once_lengths_only(tmp_path: Path) -> None:
    tuner = make_tuner(tmp_path)
    tuner.ingest(message(0, records=[record(i) for i in range(5)]))
    tuner.ingest(message(1, records=[record(i) for i in range(5, 7)]))
    path = tuner.archive.rotate(now=tuner.clock(), force=True)
    assert path is not None
    table = pq.read_table(path)
    assert table.column("step").to_pylist() == list(range(7))
    assert set(table.column("bucket").to_pylist()) == {BUCKET}
    assert not {"tokens", "text"} & set(table.column_names)
    assert tuner.archive.rotate(now=tuner.clock(), force=True) is None
    assert tuner.archive.bytes == path.stat().st_size
    tuner.close()


def test_the_archive_rotates_by_age(tmp_path: Path) -> None:
    clock = Clock()
    tuner = make_tuner(tmp_path, clock)
    tuner.ingest(message())
    assert tuner.archive.rotate(now=clock.now) is None
    clock.now += archive.FILE_SECONDS + 1
    assert tuner.archive.rotate(now=clock.now) is not None
    tuner.close()


def test_a_crash_between_file_and_database_archives_nothing_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tuner = make_tuner(tmp_path)
    tuner.ingest(message(0, records=[record(i) for i in range(8)]))
    with monkeypatch.context() as patch:
        patch.setattr(archive.TraceArchive, "_release", lambda *_args: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            tuner.archive.rotate(now=tuner.clock(), force=True)
    (tuner.settings.archive_dir / "traces-half.partial").write_bytes(b"PAR1")
    tuner.close()
    again = make_tuner(tmp_path)
    again.ingest(message(1, records=[record(100)]))
    again.archive.rotate(now=again.clock(), force=True)
    assert archived_steps(again.settings.archive_dir) == [*range(8), 100]
    assert not list(again.settings.archive_dir.glob("*.partial"))
    again.close()


def test_a_new_database_does_not_take_another_ones_files_for_its_own(tmp_path: Path) -> None:
    first = make_tuner(tmp_path / "a", trace_dir=tmp_path / "traces")
    first.ingest(message(records=[record(i) for i in range(8)]))
    first.archive.rotate(now=first.clock(), force=True)
    first.close()
    second = make_tuner(tmp_path / "b", trace_dir=tmp_path / "traces")
    second.ingest(message(records=[record(50)]))
    second.close()
    reopened = make_tuner(tmp_path / "b", trace_dir=tmp_path / "traces")
    reopened.archive.rotate(now=reopened.clock(), force=True)
    assert sorted(archived_steps(tmp_path / "traces")) == [*range(8), 50]
    reopened.close()


def test_the_archive_stays_within_its_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tuner = make_tuner(tmp_path)
    monkeypatch.setattr(tuner.archive, "_limit", 1)
    for sequence in range(3):
        tuner.ingest(message(sequence, records=[record(sequence)]))
        tuner.archive.rotate(now=tuner.clock(), force=True)
    assert archived_steps(tuner.settings.archive_dir) == [2]
    assert tuner.archive.bytes == tuner.archive.files()[0].stat().st_size
    tuner.close()


def kept_steps(folder: Path, count: int) -> list[int]:
    """Which of `count` steps of one bucket are kept for replay."""
    tuner = make_tuner(folder)
    for first in range(0, count, 500):
        records = [record(i, time=float(i)) for i in range(first, first + 500)]
        tuner.ingest(message(first, records=records))
    with tuner.store.begin() as tx:
        times = tx.scalars(sa.select(schema.bucket_samples.c.time)).all()
    tuner.close()
    return sorted(int(time) for time in times)


def test_samples_per_bucket_are_bounded_and_spread_over_the_traffic(tmp_path: Path) -> None:
    kept = kept_steps(tmp_path, 1000)
    assert len(kept) == samples.SAMPLES_PER_BUCKET
    # The newest steps only would be one server's same few requests over and over.
    quarters = [sum(250 * q <= step < 250 * (q + 1) for step in kept) for q in range(4)]
    assert min(quarters) >= samples.SAMPLES_PER_BUCKET // 8


def test_samples_of_old_traffic_make_room(tmp_path: Path) -> None:
    kept = kept_steps(tmp_path, 20_000)
    assert len(kept) == samples.SAMPLES_PER_BUCKET
    assert kept[0] > 2000 and sum(step > 10_000 for step in kept) > 0.9 * len(kept)


def test_a_database_that_counted_pairs_starts_its_searches_again(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'x.db'}"
    with contextlib.closing(sqlite3.connect(tmp_path / "x.db")) as old:
        old.executescript((DATA / "schema_1.sql").read_text())
    tuner = make_tuner(tmp_path, database_url=url)
    table = ConfigTable.from_json(tuner.table(SCOPE) or b"")
    assert table.version == 2 and not table.entries
    assert overview(tuner)["totals"]["records"] == 3
    assert overview(tuner)["decisions"][0]["steps"] == 0
    assert trials(tuner, KEY)["trials"] == []
    tuner.ingest(message())
    drive(tuner, RecordedBench(split_matters))
    assert bucket(tuner)["status"] == "promoted"
    tuner.close()
    make_tuner(tmp_path, database_url=url).close()


def test_a_database_that_knew_no_live_pairs_goes_on(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'x.db'}"
    tuner = make_tuner(tmp_path, database_url=url)
    tuner.ingest(message())
    drive(tuner, RecordedBench(split_matters))
    before, decided = trials(tuner, KEY), len(overview(tuner)["decisions"])
    tuner.close()
    with contextlib.closing(sqlite3.connect(tmp_path / "x.db")) as old:
        old.executescript(
            "DROP TABLE holds; DROP TABLE experiments; ALTER TABLE pairs DROP COLUMN live;"
            "ALTER TABLE decisions DROP COLUMN who; UPDATE meta SET value='2' WHERE name='schema'"
        )
    tuner = make_tuner(tmp_path, database_url=url)
    assert trials(tuner, KEY) == before and bucket(tuner)["method"] == "replay"
    assert len(overview(tuner)["decisions"]) == decided
    tuner.close()


def test_sampled_messages_count_for_all_steps_they_have_seen(tmp_path: Path) -> None:
    tuner = make_tuner(tmp_path)
    tuner.ingest(message(records=[record(), record()], seen=100))
    row = overview(tuner)["buckets"][0]
    assert row["steps"] == 100
    assert overview(tuner)["totals"]["steps_seen"] == 100
    tuner.close()


def test_a_second_tuner_on_the_same_database_is_refused(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'x.db'}"
    first = Store(url)
    with pytest.raises(SettingsError, match="another tuner"):
        Store(url)
    first.close()
    Store(url).close()


def test_a_database_of_another_schema_is_refused(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'x.db'}"
    store = Store(url)
    with store.begin() as tx:
        old = schema.meta.c.name == "schema"
        tx.execute(sa.update(schema.meta).where(old).values(value="0"))
    store.close()
    with pytest.raises(SettingsError, match="schema 0"):
        Store(url)


@pytest.mark.parametrize("url", ["mysql://x", "no url", "sqlite:////proc/nowhere/x.db"])
def test_a_database_that_cannot_be_opened_names_its_variable(url: str) -> None:
    with pytest.raises(SettingsError, match="POD_TUNER_DATABASE_URL"):
        Store(url)


def test_a_password_never_shows_in_an_error() -> None:
    with pytest.raises(SettingsError) as caught:
        Store("postgresql+psycopg://user:hunter2@127.0.0.1:1/x")
    assert "hunter2" not in str(caught.value)


def test_settings_read_the_environment_and_name_a_bad_variable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("POD_TUNER_TRIALS", "9")
    assert load().trials == 9
    monkeypatch.setenv("POD_TUNER_TRIALS", "many")
    with pytest.raises(SettingsError, match="POD_TUNER_TRIALS"):
        load()


def test_a_host_beyond_loopback_needs_a_token() -> None:
    with pytest.raises(SettingsError, match="POD_TUNER_TOKEN"):
        load(host="0.0.0.0")
    assert load(host="0.0.0.0", token="x").host == "0.0.0.0"
    assert is_loopback("::1") and is_loopback("127.0.0.2") and not is_loopback("example.org")


def test_the_token_never_shows_in_settings() -> None:
    assert "secret" not in repr(TunerSettings(token=SecretStr("secret")))


def test_the_default_database_belongs_to_its_user_only(tmp_path: Path) -> None:
    store = Store(f"sqlite:///{tmp_path / 'new' / 'x.db'}")
    assert stat.S_IMODE((tmp_path / "new" / "x.db").stat().st_mode) & 0o077 == 0
    store.close()
