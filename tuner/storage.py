"""The database: opened once, locked to one tuner, every change one transaction.

SQLite in WAL mode by default; PostgreSQL by URL. A committed transaction survives the death of the
process at any instant (SQLite syncs at every commit).
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from pod_integrate.errors import SettingsError
from tuner import schema

logger = logging.getLogger(__name__)

# Any fixed number will do: it names our lock among a PostgreSQL server's advisory locks.
_ADVISORY_LOCK = 0x504F4441


def is_storage_failure(error: Exception) -> bool:
    """Whether the database failed, not a single row or value in it."""
    if isinstance(error, sa.exc.DataError | sa.exc.IntegrityError):
        return False
    return isinstance(error, sa.exc.SQLAlchemyError)


class Store:
    """An open database that no other tuner writes to until `close`.

    url  SQLAlchemy URL, `sqlite:///path` or `postgresql+psycopg://...`
    Raises SettingsError when the URL is malformed, the database cannot be opened, another tuner
    holds it or it has another schema.
    """

    def __init__(self, url: str) -> None:
        try:
            self.engine = _engine(url)
            self._lock = _lock(self.engine)
            schema.metadata.create_all(self.engine)
        except (sa.exc.SQLAlchemyError, OSError, ModuleNotFoundError) as error:
            raise SettingsError(
                f"POD_TUNER_DATABASE_URL: cannot open {_public(url)}: {error}"
            ) from error
        self._check_version()
        self.id = self._identity()
        self.name = f"{self.engine.dialect.name} {self.engine.url.database or 'in memory'}"

    @contextlib.contextmanager
    def begin(self) -> Iterator[sa.Connection]:
        """A transaction: committed at the end of the block, rolled back by an exception."""
        with self.engine.begin() as connection:
            yield connection

    def close(self) -> None:
        """Give the database back; the store is unusable afterwards."""
        if self._lock is not None:
            self._lock.close()
        self.engine.dispose()

    def _check_version(self) -> None:
        with self.begin() as tx:
            found = tx.scalar(sa.select(schema.meta.c.value).where(schema.meta.c.name == "schema"))
            if found is None:
                tx.execute(sa.insert(schema.meta).values(name="schema", value=str(schema.VERSION)))
        if found is not None and found != str(schema.VERSION):
            self.close()
            raise SettingsError(
                f"database {_public(str(self.engine.url))} has schema {found}, this release reads "
                f"{schema.VERSION}; use another POD_TUNER_DATABASE_URL or the release that wrote it"
            )

    def _identity(self) -> str:
        """A random id made with the database, so that files tell whose they are."""
        with self.begin() as tx:
            found = tx.scalar(sa.select(schema.meta.c.value).where(schema.meta.c.name == "id"))
            if found is None:
                found = secrets.token_hex(4)
                tx.execute(sa.insert(schema.meta).values(name="id", value=found))
        return str(found)


def upsert(
    tx: sa.Connection, table: sa.Table, row: dict[str, Any], changes: dict[str, Any]
) -> None:
    """Insert `row`, or apply `changes` (values or expressions) to the row with its primary key."""
    build = postgresql.insert if tx.dialect.name == "postgresql" else sqlite.insert
    statement = build(table).values(row)
    tx.execute(
        statement.on_conflict_do_update(index_elements=list(table.primary_key), set_=changes)
    )


def _engine(url: str) -> sa.Engine:
    parsed = sa.make_url(url)
    if parsed.get_backend_name() == "postgresql":
        return sa.create_engine(parsed, pool_pre_ping=True)
    if parsed.get_backend_name() != "sqlite":
        raise SettingsError(
            f"POD_TUNER_DATABASE_URL must be sqlite or postgresql, got {_public(url)}"
        )
    if parsed.database and parsed.database != ":memory:":
        # Traces tell what a company's users do: readable by the tuner's own user only.
        Path(parsed.database).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        Path(parsed.database).touch(mode=0o600)
        engine = sa.create_engine(parsed, connect_args={"timeout": 10})
    else:
        # One connection, or every thread would see a database of its own.
        engine = sa.create_engine(
            parsed, poolclass=sa.StaticPool, connect_args={"check_same_thread": False}
        )
    sa.event.listen(engine, "connect", _set_pragmas)
    return engine


def _set_pragmas(connection: Any, _record: object) -> None:
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}")


def _lock(engine: sa.Engine) -> IO[str] | sa.Connection | None:
    """Whatever keeps a second tuner out; it is released when this process dies."""
    if engine.dialect.name == "postgresql":
        connection = engine.connect()
        if not connection.scalar(sa.text(f"SELECT pg_try_advisory_lock({_ADVISORY_LOCK})")):
            connection.close()
            raise SettingsError(
                f"another tuner uses {_public(str(engine.url))}; stop it or use another database"
            )
        connection.commit()
        return connection
    if not engine.url.database or engine.url.database == ":memory:":
        return None
    # Held open for the life of the store: closing it would release the lock.
    handle = open(engine.url.database + ".lock", "w")
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        handle.close()
        raise SettingsError(
            f"another tuner uses {engine.url.database}; stop it or set POD_TUNER_DATA_DIR"
        ) from error
    return handle


def _public(url: str) -> str:
    """The URL without its password."""
    try:
        return sa.make_url(url).render_as_string(hide_password=True)
    except sa.exc.ArgumentError:
        return "a malformed URL"
