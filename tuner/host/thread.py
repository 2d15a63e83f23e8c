"""Who holds the one Tuner: what HTTP and workers need of it, and a thread that provides it."""

from __future__ import annotations

import asyncio
import concurrent.futures
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

import sqlalchemy as sa

from pod_integrate.errors import PodAttentionError
from pod_integrate.terms.trace import TraceMessage
from tuner.core import Tuner
from tuner.messages import Recheck, Report, Scope, StudyKey, Task, WorkerInfo
from tuner.store.database import StorageError
from tuner.store.storage import reason
from tuner.traffic.ingest import Ingested

T = TypeVar("T")


class CoreUnavailableError(PodAttentionError, RuntimeError):
    """The core cannot answer now (restarting, database away or full); trying again may help."""


class AsyncCore(Protocol):
    """The Tuner as the HTTP layer sees it. Methods raise CoreUnavailableError."""

    async def ingest(self, message: TraceMessage) -> Ingested: ...

    async def table(self, scope: Scope) -> bytes | None: ...

    async def overview(self) -> dict[str, Any]: ...

    async def trials(self, key: StudyKey) -> dict[str, Any]: ...

    async def samples(self, scope: Scope) -> dict[str, Any]: ...

    async def recheck(self, message: Recheck) -> str: ...

    async def housekeeping(self) -> None: ...


class TunerThread:
    """Runs a Tuner in one thread, for async callers and for workers in threads.

    make  opens the Tuner; runs in the thread, its errors are raised here
    """

    def __init__(self, make: Callable[[], Tuner]) -> None:
        self._executor = concurrent.futures.ThreadPoolExecutor(1, "tuner-core")
        try:
            self.tuner = self._executor.submit(make).result()
        except BaseException:
            self._executor.shutdown()
            raise

    async def ingest(self, message: TraceMessage) -> Ingested:
        """Tuner.ingest."""
        return await self._await(lambda: self.tuner.ingest(message))

    async def table(self, scope: Scope) -> bytes | None:
        """Tuner.table."""
        return await self._await(lambda: self.tuner.table(scope))

    async def overview(self) -> dict[str, Any]:
        """Tuner.overview."""
        return await self._await(self.tuner.overview)

    async def trials(self, key: StudyKey) -> dict[str, Any]:
        """Tuner.trials."""
        return await self._await(lambda: self.tuner.trials(key))

    async def samples(self, scope: Scope) -> dict[str, Any]:
        """Tuner.samples."""
        return await self._await(lambda: self.tuner.samples(scope))

    async def recheck(self, message: Recheck) -> str:
        """Tuner.recheck."""
        return await self._await(lambda: self.tuner.recheck(message))

    async def housekeeping(self) -> None:
        """Tuner.housekeeping."""
        await self._await(self.tuner.housekeeping)

    def next_task(self, worker: WorkerInfo) -> Task | None:
        """Tuner.next_task, from another thread."""
        return self._executor.submit(self.tuner.next_task, worker).result()

    def report(self, report: Report) -> bool:
        """Tuner.report, from another thread."""
        return self._executor.submit(self.tuner.report, report).result()

    def release(self, worker: str) -> None:
        """Tuner.release, from another thread."""
        self._executor.submit(self.tuner.release, worker).result()

    def close(self) -> None:
        """Finish what was submitted and close the Tuner."""
        self._executor.submit(self.tuner.close).result()
        self._executor.shutdown()

    async def _await(self, call: Callable[[], T]) -> T:
        try:
            return await asyncio.wrap_future(self._executor.submit(call))
        except (sa.exc.SQLAlchemyError, StorageError) as error:
            raise CoreUnavailableError(f"database: {reason(error)}") from error
