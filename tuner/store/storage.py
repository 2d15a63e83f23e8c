"""The database: opened once, locked to one tuner, every change one transaction.

SQLite in WAL mode by default; PostgreSQL by URL. A committed transaction survives the death of the
process at any instant (SQLite syncs at every commit).
"""

from __future__ import annotations

import contextlib
import logging
import secrets
from collections.abc import Iterator
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from pod_integrate.errors import SettingsError
from pod_integrate.redact import public_url, redact
from tuner.store import migrate, schema, sound
from tuner.store.database import (
    READS,
    DatabaseFile,
    StorageError,
    WriterLock,
    file_of,
    make_engine,
)

logger = logging.getLogger(__name__)


def is_storage_failure(error: Exception) -> bool:
    """Whether the database failed, not a single row or value in it."""
    if isinstance(error, sa.exc.DataError | sa.exc.IntegrityError):
        return False
    return isinstance(error, sa.exc.SQLAlchemyError | StorageError)


def reason(error: Exception) -> str:
    """What a database said, without statements and without secrets."""
    said = getattr(error, "orig", None) or error
    return redact(f"{type(said).__name__}: {said}".splitlines()[0])


class Store:
    """An open database that no other tuner writes to until `close`.

    Every transaction first looks whether the database is still this store's: each tuner that opens
    one leaves a number of its own there, so that one whose lock was lost stops by itself.

    url  SQLAlchemy URL, `sqlite:///path` or `postgresql+psycopg://...`
    Raises SettingsError when the URL is malformed, the database cannot be opened or is damaged,
    another tuner holds it or it has a schema that cannot be brought up to date.

    trouble  why writing fails now, empty while it does not
    """

    def __init__(self, url: str) -> None:
        self.trouble = ""
        self._file: DatabaseFile | None = None
        self._lock: WriterLock | None = None
        try:
            self._open(url)
        except sa.exc.ArgumentError:
            # Its text shows what was given.
            raise SettingsError("POD_TUNER_DATABASE_URL: a malformed URL") from None
        except (sa.exc.SQLAlchemyError, OSError, ModuleNotFoundError) as error:
            self.close()
            # Not chained: the driver's own error may show the URL.
            raise SettingsError(
                f"POD_TUNER_DATABASE_URL: cannot open {public_url(sa.make_url(url))}: "
                f"{reason(error)}"
            ) from None
        except SettingsError:
            self.close()
            raise
        self.name = f"{self.engine.dialect.name} {self.engine.url.database or 'in memory'}"

    @contextlib.contextmanager
    def begin(self) -> Iterator[sa.Connection]:
        """A transaction: committed at the end of the block, rolled back by an exception.

        Raises StorageError, before or after, when what it writes is not in the database for sure.
        """
        with self._watched():
            self._require_file(written=False)
            with self.engine.begin() as connection:
                self._require_ours(connection)
                yield connection
            self._require_file(written=True)
        if self.trouble:
            logger.info("the database takes writes again")
        self.trouble = ""

    @contextlib.contextmanager
    def read(self) -> Iterator[sa.Connection]:
        """A transaction that writes nothing."""
        self._require_file(written=False)
        connected = self.engine.connect().execution_options(**{READS: True})
        with connected as connection, connection.begin():
            self._require_ours(connection)
            yield connection

    def close(self) -> None:
        """Give the database back; the store is unusable afterwards."""
        if self._lock is not None:
            self._lock.close()
        if hasattr(self, "engine"):
            self.engine.dispose()

    def _open(self, url: str) -> None:
        self.engine = make_engine(url)
        self._lock = WriterLock(self.engine)
        if path := file_of(self.engine.url):
            DatabaseFile(path).require_sound(self.engine)
        schema.metadata.create_all(self.engine)
        with self.engine.begin() as tx:
            self._check_version(tx)
            self.id = self._value(tx, "id") or secrets.token_hex(4)
            self._set(tx, "id", self.id)
            self._epoch = str(self._last_epoch(tx) + 1)
            self._set(tx, "epoch", self._epoch)
            sound.sweep(tx)
        if path:
            self._file = DatabaseFile(path)

    def _last_epoch(self, tx: sa.Connection) -> int:
        found = self._value(tx, "epoch", lock=True) or "0"
        if not found.isdecimal():
            raise SettingsError(
                f"database {public_url(self.engine.url)} is damaged: its epoch is {found[:32]!r}, "
                "not a number. Restore a backup or use another POD_TUNER_DATABASE_URL"
            )
        return int(found)

    def _check_version(self, tx: sa.Connection) -> None:
        found = self._value(tx, "schema") or str(schema.VERSION)
        if found != str(schema.VERSION) and migrate.upgrade(tx, found):
            found = str(schema.VERSION)
        self._set(tx, "schema", found)
        if found != str(schema.VERSION):
            raise SettingsError(
                f"database {public_url(self.engine.url)} has schema {found}, this release reads "
                f"{schema.VERSION}; use another POD_TUNER_DATABASE_URL or the release that wrote it"
            )

    def _value(self, tx: sa.Connection, name: str, *, lock: bool = False) -> str | None:
        wanted = sa.select(schema.meta.c.value).where(schema.meta.c.name == name)
        # SQLite has one writer at a time anyway, and leaves this out.
        found: str | None = tx.scalar(wanted.with_for_update() if lock else wanted)
        return found

    def _set(self, tx: sa.Connection, name: str, value: str) -> None:
        upsert(tx, schema.meta, {"name": name, "value": value}, {"value": value})

    def _require_ours(self, tx: sa.Connection) -> None:
        """Lock first, then number: whoever opens the database meanwhile waits for `tx`."""
        assert self._lock is not None
        try:
            # Only here: this connection may be new because the server went, and the lock with it.
            self._lock.hold()
        except SettingsError as error:
            raise StorageError(f"the lock on the database was lost: {error}") from error
        self._require_epoch(tx)

    def _require_file(self, *, written: bool) -> None:
        if self._file is not None:
            self._file.require_same(written=written)

    def _require_epoch(self, tx: sa.Connection) -> None:
        wanted = sa.select(schema.meta.c.value).where(schema.meta.c.name == "epoch")
        found = tx.scalar(wanted.with_for_update(read=True))
        if found != self._epoch:
            raise StorageError(
                f"another tuner has taken over {public_url(self.engine.url)}: this one writes "
                "nothing any more. Stop it, or the other one and start this again"
            )

    @contextlib.contextmanager
    def _watched(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            if is_storage_failure(error):
                if not self.trouble:
                    logger.error("the database takes no writes: %s", reason(error))
                self.trouble = reason(error)
            raise


def upsert(
    tx: sa.Connection, table: sa.Table, row: dict[str, Any], changes: dict[str, Any]
) -> None:
    """Insert `row`, or apply `changes` (values or expressions) to the row with its primary key."""
    build = postgresql.insert if tx.dialect.name == "postgresql" else sqlite.insert
    statement = build(table).values(row)
    tx.execute(
        statement.on_conflict_do_update(index_elements=list(table.primary_key), set_=changes)
    )


def upsert_rows(tx: sa.Connection, table: sa.Table, rows: list[dict[str, Any]]) -> None:
    """Insert complete rows, each in the place of the one with its primary key."""
    if not rows:
        return
    build = postgresql.insert if tx.dialect.name == "postgresql" else sqlite.insert
    statement = build(table)
    values = {c.name: statement.excluded[c.name] for c in table.c if not c.primary_key}
    statement = statement.on_conflict_do_update(index_elements=list(table.primary_key), set_=values)
    tx.execute(statement, rows)
