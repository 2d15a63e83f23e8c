"""What the store stands on: an engine, the lock against a second tuner, the file's identity."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import IO, Any

import sqlalchemy as sa

from pod_integrate.errors import PodAttentionError, SettingsError
from pod_integrate.redact import public_url

# Any fixed number will do: it names our lock among a PostgreSQL server's advisory locks.
_ADVISORY_LOCK = 0x504F4441


class StorageError(PodAttentionError, RuntimeError):
    """The database cannot be written to safely any more; a person has to look."""


# Of a connection whose transactions write nothing.
READS = "reads"


def make_engine(url: str) -> sa.Engine:
    """An engine for SQLite in WAL mode or PostgreSQL; raises SettingsError for anything else."""
    parsed = sa.make_url(url)
    if parsed.get_backend_name() == "postgresql":
        return sa.create_engine(parsed, pool_pre_ping=True, hide_parameters=True)
    if parsed.get_backend_name() != "sqlite":
        raise SettingsError(
            f"POD_TUNER_DATABASE_URL must be sqlite or postgresql, got {public_url(url)}"
        )
    options: dict[str, Any] = {"connect_args": {"timeout": 10}}
    if path := file_of(parsed):
        # Traces tell what a company's users do: readable by the tuner's own user only.
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.touch(mode=0o600)
    else:
        # One connection, or every thread would see a database of its own.
        options = {"poolclass": sa.StaticPool, "connect_args": {"check_same_thread": False}}
    engine = sa.create_engine(parsed, hide_parameters=True, **options)
    sa.event.listen(engine, "connect", _prepare)
    sa.event.listen(engine, "begin", _begin)
    return engine


def file_of(url: sa.URL) -> Path | None:
    """The file of a SQLite database, None for others."""
    if url.get_backend_name() != "sqlite" or not url.database or url.database == ":memory:":
        return None
    return Path(url.database)


def _prepare(connection: Any, _record: object) -> None:
    # Python's driver would begin a transaction at its first write: what was read before, such as
    # whose database this is, would not belong to it.
    connection.isolation_level = None
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}")


def _begin(connection: sa.Connection) -> None:
    # One that turned from reading to writing would fail at once, whatever the timeout, if another
    # has written in between: so who may write waits for its turn before it reads.
    reads = connection.get_execution_options().get(READS, False)
    connection.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")


class DatabaseFile:
    """A SQLite file that is watched: SQLite goes on writing to one that was deleted."""

    def __init__(self, path: Path) -> None:
        self._path, self._log = path, Path(f"{path}-wal")
        self._identity = self._found()

    def require_same(self, *, written: bool) -> None:
        """Raise StorageError when the file is not the one that was opened.

        written  after a transaction its log is there as well, unless that was deleted
        """
        if self._found() != self._identity or (written and not self._log.exists()):
            raise StorageError(
                f"{self._path} was deleted or replaced while the tuner runs: nothing is stored any "
                "more. Put the file back or leave it away, and start the tuner again"
            )

    def require_sound(self, engine: sa.Engine) -> None:
        """Raise SettingsError, with what to do, for a file that SQLite finds damaged."""
        try:
            with engine.connect() as connection:
                found = str(connection.exec_driver_sql("PRAGMA quick_check(1)").scalar())
        except sa.exc.DatabaseError as error:
            found = str(error.orig)
        if found != "ok":
            raise SettingsError(damaged(self._path, found.splitlines()[0]))

    def _found(self) -> tuple[int, int] | None:
        try:
            status = os.stat(self._path)
        except OSError:
            return None
        return status.st_dev, status.st_ino


def damaged(path: Path, detail: str) -> str:
    """What to tell of a damaged SQLite file."""
    return (
        f"database {path} is damaged: {detail}. Restore a backup; or save what can be read: "
        f"sqlite3 {path} .recover | sqlite3 saved.db; or move {path}, {path}-wal and {path}-shm "
        "away: the tuner then starts empty, and servers keep the tables they have"
    )


class WriterLock:
    """Keeps a second tuner out while this one lives.

    PostgreSQL releases its lock with the connection, e.g. when it restarts: `hold` takes it again.
    Raises SettingsError when another tuner has it.
    """

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine
        self._handle: IO[str] | None = None
        self._connection: sa.Connection | None = None
        # Connections made so far, and when the lock was last known to be held.
        self._made = self._checked = 0
        if engine.dialect.name == "postgresql":
            sa.event.listen(engine, "connect", self._count)
            self._take()
        elif path := file_of(engine.url):
            self._handle = _locked(path)

    def hold(self) -> None:
        """Make sure that the lock is held; costs nothing until a connection was made anew."""
        if self._connection is None or self._made == self._checked:
            return
        try:
            self._connection.execute(sa.text("SELECT 1"))
            self._connection.commit()
            self._checked = self._made
        except sa.exc.SQLAlchemyError:
            self._connection.close()
            self._take()

    def close(self) -> None:
        """Give the lock back."""
        for held in (self._handle, self._connection):
            if held is not None:
                held.close()

    def _count(self, _connection: Any, _record: object) -> None:
        self._made += 1

    def _take(self) -> None:
        connection = self._engine.connect()
        taken = connection.scalar(sa.text(f"SELECT pg_try_advisory_lock({_ADVISORY_LOCK})"))
        if not taken:
            connection.close()
            raise SettingsError(
                f"another tuner uses {public_url(self._engine.url)}; stop it or use another "
                "database"
            )
        connection.commit()
        self._connection, self._checked = connection, self._made


def _locked(path: Path) -> IO[str]:
    # Held open for the life of the store: closing it would release the lock.
    handle = open(f"{path}.lock", "w")  # noqa: SIM115
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        handle.close()
        raise SettingsError(
            f"another tuner uses {path}; stop it or set POD_TUNER_DATA_DIR"
        ) from error
    return handle
