"""PostgreSQL under the tuner: restarted, taken over. Runs where its programs and psycopg are."""

from __future__ import annotations

import getpass
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from tuner_support import Clock, message, overview

from pod_integrate.demo.ports import free_port
from pod_integrate.errors import SettingsError
from tuner.core import Tuner
from tuner.settings import TunerSettings
from tuner.store import schema
from tuner.store.database import StorageError
from tuner.store.storage import Store

pytest.importorskip("psycopg", reason="psycopg is not installed (pod-attention[postgres])")


def program(name: str) -> str:
    """The server's own program, not a distribution's wrapper in front of it."""
    versions = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    found = str(versions[-1]) if versions else shutil.which(name)
    if found is None:
        pytest.skip(f"no `{name}`: PostgreSQL is not installed")
    return found


class Postgres:
    """A server on loopback with its data in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        # It refuses to run as root.
        self._user = "postgres" if getpass.getuser() == "root" else None
        if self._user is not None:
            owner = pwd.getpwnam(self._user)
            shutil.chown(folder, owner.pw_uid, owner.pw_gid)
        self._port = free_port()
        flags = ["-U", "tuner", "-A", "trust", "--no-sync"]
        self._run("initdb", "-D", str(folder / "data"), *flags)
        self.url = f"postgresql+psycopg://tuner:hunter2@127.0.0.1:{self._port}/postgres"
        self.start()

    def _run(self, name: str, *arguments: str) -> None:
        subprocess.run(
            [program(name), *arguments], user=self._user, check=True, capture_output=True,
            cwd=self._folder,
        )  # fmt: skip

    def start(self) -> None:
        settings = {"listen_addresses": "127.0.0.1", "unix_socket_directories": "", "fsync": "off"}
        flags = [f"-c{name}={value}" for name, value in settings.items()]
        self._server = subprocess.Popen(
            [program("postgres"), "-D", str(self._folder / "data"), "-p", str(self._port), *flags],
            user=self._user, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            cwd=self._folder,
        )  # fmt: skip
        deadline = time.monotonic() + 30
        while True:
            try:
                socket.create_connection(("127.0.0.1", self._port), 1).close()
                sa.create_engine(self.url, poolclass=sa.NullPool).connect().close()
                return
            except (OSError, sa.exc.OperationalError):
                assert self._server.poll() is None and time.monotonic() < deadline
                time.sleep(0.05)

    def stop(self) -> None:
        # Fast shutdown: ends every connection.
        self._server.send_signal(signal.SIGINT)
        self._server.wait(30)

    def restart(self) -> None:
        self.stop()
        self.start()


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    folder = Path(tempfile.mkdtemp(prefix="pod-postgres-"))
    server = Postgres(folder)
    yield server
    server.stop()
    shutil.rmtree(folder)


@pytest.fixture
def url(postgres: Postgres) -> str:
    engine = sa.create_engine(postgres.url)
    schema.metadata.drop_all(engine)
    engine.dispose()
    return postgres.url


def write(store: Store, name: str) -> None:
    with store.begin() as tx:
        tx.execute(sa.insert(schema.meta).values(name=name, value="x"))


def names(store: Store) -> set[str]:
    with store.read() as tx:
        return set(tx.scalars(sa.select(schema.meta.c.name)))


def test_a_tuner_keeps_its_database_over_a_restart_of_the_server(
    postgres: Postgres, url: str
) -> None:
    first = Store(url)
    write(first, "before")
    postgres.restart()
    write(first, "after")
    with pytest.raises(SettingsError, match="another tuner"):
        Store(url)
    assert {"before", "after"} <= names(first)
    first.close()


def test_a_tuner_that_lost_its_lock_to_another_one_writes_nothing(
    postgres: Postgres, url: str
) -> None:
    first = Store(url)
    postgres.restart()
    second = Store(url)
    for store in (first, first):
        with pytest.raises(StorageError):
            write(store, "late")
    write(second, "second")
    assert "late" not in names(second)
    second.close()
    # Its number is not the last one any more, lock or not.
    with pytest.raises(StorageError, match="taken over"):
        write(first, "late")
    first.close()


def test_another_tuner_waits_for_the_transaction_that_is_open(postgres: Postgres, url: str) -> None:
    first = Store(url)
    with first.begin() as tx:
        # The lock goes alone, e.g. an administrator ended that connection.
        assert first._lock is not None and first._lock._connection is not None
        first._lock._connection.invalidate()
        with pytest.raises(SettingsError, match="timeout"):
            Store(f"{url}?options=-c%20lock_timeout%3D300")
        tx.execute(sa.insert(schema.meta).values(name="whole", value="x"))
    second = Store(url)
    assert "whole" in names(second)
    with pytest.raises(StorageError):
        write(first, "late")
    first.close()
    second.close()


def test_traces_are_taken_again_once_the_server_is_back(
    postgres: Postgres, url: str, tmp_path: Path
) -> None:
    tuner = Tuner(TunerSettings(data_dir=tmp_path), Store(url), clock=Clock())
    assert tuner.ingest(message(0)).accepted > 0
    postgres.stop()
    with pytest.raises(sa.exc.OperationalError):
        tuner.ingest(message(1))
    assert tuner.store.trouble and "hunter2" not in tuner.store.trouble
    postgres.start()
    assert tuner.ingest(message(1)).accepted > 0
    assert not tuner.store.trouble and overview(tuner)["totals"]["messages"] == 2
    tuner.close()
