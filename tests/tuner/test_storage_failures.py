"""A database or archive that misbehaves: one clear error, and no acknowledgement in vain."""

from __future__ import annotations

import concurrent.futures
import logging
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
import sqlalchemy as sa
from api_support import Served, post
from tuner_support import (
    BUCKET,
    KEY,
    STEPS,
    WORKER,
    Clock,
    keep_house,
    make_tuner,
    message,
    overview,
    record,
    trials,
)

from pod_integrate.errors import SettingsError
from pod_integrate.terms.trace import encode
from tuner.core import Tuner
from tuner.host.opening import open_tuner
from tuner.settings import TunerSettings
from tuner.store import archive, schema
from tuner.store.database import StorageError
from tuner.store.storage import Store


def database(folder: Path) -> Path:
    return folder / "tuner.db"


def garbled(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xde\xad\xbe\xef" * 1024)


def garbled_header(path: Path) -> None:
    path.write_bytes(b"not a database at all".ljust(8192, b"\0"))


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:10_000])


@pytest.mark.parametrize("damage", [garbled, garbled_header, cut_short])
def test_a_damaged_database_is_one_error_with_what_where_and_the_way_out(
    tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    tuner = make_tuner(tmp_path)
    tuner.ingest(message())
    tuner.close()
    damage(database(tmp_path))
    with pytest.raises(SettingsError) as caught:
        open_tuner(TunerSettings(data_dir=tmp_path))
    said = str(caught.value)
    assert f"database {database(tmp_path)} is damaged" in said and "\n" not in said
    assert ".recover" in said and "away: the tuner then starts empty" in said
    for name in ("tuner.db", "tuner.db-wal", "tuner.db-shm"):
        (tmp_path / name).unlink(missing_ok=True)
    open_tuner(TunerSettings(data_dir=tmp_path)).close()


def deleted(path: Path) -> None:
    path.unlink()


def replaced(path: Path) -> None:
    copy = path.with_suffix(".copy")
    shutil.copy(path, copy)
    copy.replace(path)


def log_deleted(path: Path) -> None:
    Path(f"{path}-wal").unlink()


@pytest.mark.parametrize("lose", [deleted, replaced, log_deleted])
def test_nothing_is_acknowledged_once_the_database_file_is_gone(
    served: Served,
    client: httpx.Client,
    caplog: pytest.LogCaptureFixture,
    lose: Callable[[Path], None],
) -> None:
    assert post(client, encode(message(0))).status_code == 202
    lose(database(served.tuner.settings.data_dir))
    with caplog.at_level(logging.ERROR, "tuner.store.storage"):
        for sequence in (1, 2):
            answer = post(client, encode(message(sequence)))
            assert answer.status_code == 503 and "deleted or replaced" in answer.json()["error"]
    assert len([r for r in caplog.records if r.name == "tuner.store.storage"]) == 1
    assert client.get("/healthz").status_code == 503


def test_a_file_that_goes_during_a_transaction_takes_its_acknowledgement_along(
    tmp_path: Path,
) -> None:
    store = Store(f"sqlite:///{database(tmp_path)}")
    with pytest.raises(StorageError, match="deleted"), store.begin() as tx:
        tx.execute(sa.delete(schema.history))
        database(tmp_path).unlink()
    store.close()


@pytest.mark.parametrize("pragma", ["max_page_count = 1", "query_only = ON"])
def test_a_full_or_read_only_database_is_a_503_and_unhealthy_until_it_takes_writes_again(
    served: Served, client: httpx.Client, pragma: str
) -> None:
    def every_connection(statement: str) -> None:
        served.tuner.store.engine.dispose()
        sa.event.listen(
            served.tuner.store.engine,
            "connect",
            lambda c, _record: c.execute(f"PRAGMA {statement}"),
        )

    assert client.get("/healthz").status_code == 200
    served.core._executor.submit(every_connection, pragma).result()
    long = [record(i, lengths=([1] * 4000, [64] * 4000)) for i in range(20)]
    for sequence in range(3):
        answer = post(client, encode(message(sequence, long)))
        assert answer.status_code == 503 and answer.headers["Retry-After"] == "2"
        assert "full" in answer.text or "readonly" in answer.text
        assert "INSERT" not in answer.text
    # An overview may be a second old.
    served.app.state.feed._built = -10.0
    assert client.get("/healthz").status_code == 503
    assert b"pod_tuner_storage_failing 1.0" in client.get("/metrics").content
    undone = pragma.replace("= 1", "= 1000000").replace("ON", "OFF")
    served.core._executor.submit(every_connection, undone).result()
    assert post(client, encode(message(0, long))).json() == {"accepted": 20, "duplicate": False}
    served.app.state.feed._built = -10.0
    assert client.get("/healthz").status_code == 200


def test_an_archive_that_takes_no_files_costs_neither_traces_nor_leases(
    tuner: Tuner, clock: Clock
) -> None:
    tuner.ingest(message())
    task = tuner.next_task(WORKER)
    folder = tuner.settings.archive_dir
    folder.rmdir()
    folder.write_text("in the way")
    clock.now += archive.FILE_SECONDS + tuner.settings.lease_seconds
    keep_house(tuner)
    shown = overview(tuner)["tuner"]
    assert shown["archive_error"].startswith("trace archive") and shown["storage_error"] is None
    again = tuner.next_task(WORKER)
    assert task is not None and again is not None and again.lost == 1
    folder.unlink()
    folder.mkdir()
    keep_house(tuner)
    assert overview(tuner)["tuner"]["archive_error"] is None
    assert len(tuner.archive.files()) == 1


def test_an_archive_folder_that_cannot_be_made_names_its_variable(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(SettingsError, match="POD_TUNER_TRACE_DIR"):
        open_tuner(TunerSettings(data_dir=tmp_path, trace_dir=tmp_path / "file" / "traces"))


def test_a_second_writer_is_seen_before_anything_is_written(tmp_path: Path) -> None:
    url = f"sqlite:///{database(tmp_path)}"
    first = Store(url)
    # The lock is lost, as PostgreSQL's is with its connection.
    (tmp_path / "tuner.db.lock").unlink()
    second = Store(url)
    for transaction in (first.begin, first.read):
        with pytest.raises(StorageError, match="another tuner has taken over"), transaction():
            pytest.fail("it must not get here")
    assert "taken over" in first.trouble
    with second.begin() as tx:
        tx.execute(sa.delete(schema.history))
    first.close()
    second.close()


def test_a_second_writer_that_comes_during_a_transaction_is_refused(tmp_path: Path) -> None:
    url = f"sqlite:///{database(tmp_path)}"
    first = Store(url)
    (tmp_path / "tuner.db.lock").unlink()
    with first.begin() as tx:
        with pytest.raises(SettingsError, match="database is locked"):
            Store(url)
        tx.execute(sa.insert(schema.meta).values(name="late", value="x"))
    with first.read() as tx:
        assert tx.scalar(sa.select(schema.meta.c.value).where(schema.meta.c.name == "late")) == "x"
    first.close()


def test_who_writes_after_reading_waits_for_another_writer(tmp_path: Path) -> None:
    store = Store(f"sqlite:///{database(tmp_path)}")
    begun, wanted = threading.Event(), sa.select(schema.meta.c.value)

    def write(name: str) -> None:
        with store.begin() as tx:
            tx.execute(wanted).all()
            begun.set()
            time.sleep(0.2)
            tx.execute(sa.insert(schema.meta).values(name=name, value="x"))

    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        first = pool.submit(write, "first")
        assert begun.wait(10)
        with store.read() as tx:
            tx.execute(wanted).all()
        pool.submit(write, "second").result(30)
        first.result(30)
    store.close()


def test_rows_with_nonsense_cost_their_own_bucket_only(tmp_path: Path, clock: Clock) -> None:
    tuner = make_tuner(tmp_path, clock)
    light = [record(i, lengths=([1], [56 + i]), attention_us=100.0) for i in range(24)]
    tuner.ingest(message(records=[record(i) for i in range(24)] + light))
    with tuner.store.begin() as tx:
        mine = schema.bucket_stats.c.bucket == BUCKET
        nonsense = sa.literal("x", sa.Text)
        tx.execute(sa.update(schema.bucket_stats).where(mine).values(weight=nonsense))
    tuner.close()
    again = make_tuner(tmp_path, clock)
    task = again.next_task(WORKER)
    assert task is not None and task.bucket == "d1@64"
    assert [row["bucket"] for row in overview(again)["buckets"]] == ["d1@64"]
    again.housekeeping()
    assert again.ingest(message(5)).accepted == STEPS
    assert trials(again, KEY)["trials"] == []
    again.close()
