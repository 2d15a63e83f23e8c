"""A thread that holds the one Tuner, for async callers and for workers in other threads."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
from collections.abc import Callable, Iterator
from typing import Concatenate, ParamSpec, TypeVar

import sqlalchemy as sa

from tuner.core import Tuner
from tuner.host.client import CoreUnavailableError
from tuner.store.database import StorageError
from tuner.store.storage import reason

P = ParamSpec("P")
T = TypeVar("T")


class TunerThread:
    """AsyncCore and BlockingCore: runs a Tuner in one thread.

    make  opens the Tuner; runs in the thread, its errors are raised here
    """

    def __init__(self, make: Callable[[], Tuner]) -> None:
        self._executor = concurrent.futures.ThreadPoolExecutor(1, "tuner-core")
        try:
            self.tuner = self._executor.submit(make).result()
        except BaseException:
            self._executor.shutdown()
            raise

    async def ask(
        self, function: Callable[Concatenate[Tuner, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """The function's answer, without blocking the event loop."""
        with storage_as_unavailable():
            submitted = self._executor.submit(function, self.tuner, *args, **kwargs)
            return await asyncio.wrap_future(submitted)

    def call(
        self, function: Callable[Concatenate[Tuner, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """The function's answer, waited for in any thread but the Tuner's."""
        with storage_as_unavailable():
            return self._executor.submit(function, self.tuner, *args, **kwargs).result()

    def close(self) -> None:
        """Finish what was submitted and close the Tuner."""
        self._executor.submit(self.tuner.close).result()
        self._executor.shutdown()


@contextlib.contextmanager
def storage_as_unavailable() -> Iterator[None]:
    """A database that fails is a core that is away, for whoever asks."""
    try:
        yield
    except (sa.exc.SQLAlchemyError, StorageError) as error:
        raise CoreUnavailableError(f"database: {reason(error)}") from error
