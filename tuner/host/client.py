"""How others reach the one Tuner, wherever it lives: they name a function of it.

    await core.ask(Tuner.ingest, message)
    await core.ask(view.overview)
    core.call(Tuner.next_task, worker)

What can be asked is defined once, where it is done; a transport only brings a call to the Tuner and
its answer or error back. Functions travel by name: they are those of a module or of a class.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Concatenate, ParamSpec, Protocol, TypeVar

from pod_integrate.errors import PodAttentionError
from tuner.core import Tuner
from tuner.messages import Report, Task, WorkerInfo

P = ParamSpec("P")
T = TypeVar("T")


class CoreUnavailableError(PodAttentionError, ConnectionError):
    """The core cannot answer now (restarting, database away or full); trying again may help."""


class AsyncCore(Protocol):
    """For HTTP. Raises CoreUnavailableError, and what the function itself raises."""

    async def ask(
        self, function: Callable[Concatenate[Tuner, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """The function's answer, without blocking the event loop."""
        ...


class BlockingCore(Protocol):
    """For workers. Raises CoreUnavailableError, and what the function itself raises."""

    def call(
        self, function: Callable[Concatenate[Tuner, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """The function's answer, waited for."""
        ...


class TaskClient:
    """Where a worker gets its tasks from (a measure.worker.TaskSource), over any core.

    idle  while the core is away there is nothing to do, instead of a CoreUnavailableError
    """

    def __init__(self, core: BlockingCore, *, idle: bool = False) -> None:
        self._core = core
        self._quiet = contextlib.suppress(*([CoreUnavailableError] if idle else []))

    def next_task(self, worker: WorkerInfo) -> Task | None:
        """Tuner.next_task."""
        with self._quiet:
            return self._core.call(Tuner.next_task, worker)
        return None

    def report(self, report: Report) -> bool:
        """Tuner.report; one that was not taken is measured again."""
        with self._quiet:
            return self._core.call(Tuner.report, report)
        return False
