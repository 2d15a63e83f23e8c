"""What runs inside Ray: the core actor, the measuring actor, and how others reach the core."""

from __future__ import annotations

from typing import Any

import ray
from ray.exceptions import RayError

from pod_integrate.terms.trace import TraceMessage
from tuner.host.thread import CoreUnavailableError
from tuner.measure.polite import be_polite
from tuner.messages import Recheck, Report, Scope, StudyKey, Task, WorkerInfo
from tuner.settings import TunerSettings
from tuner.store.storage import reason
from tuner.traffic.ingest import Ingested

NAMESPACE = "pod-attention-tuner"
CORE = "core"


class Core:
    """The Tuner as an actor; see core.Tuner for the methods."""

    def __init__(self, settings: TunerSettings) -> None:
        from tuner.host.service import open_tuner

        self._tuner = open_tuner(settings, "ray")

    def ingest(self, message: TraceMessage) -> Ingested:
        """Tuner.ingest; a retry after a restart is recognised as a duplicate."""
        return self._tuner.ingest(message)

    def next_task(self, worker: WorkerInfo) -> Task | None:
        """Tuner.next_task."""
        return self._tuner.next_task(worker)

    def report(self, report: Report) -> bool:
        """Tuner.report."""
        return self._tuner.report(report)

    def table(self, scope: Scope) -> bytes | None:
        """Tuner.table."""
        return self._tuner.table(scope)

    def overview(self) -> dict[str, Any]:
        """Tuner.overview."""
        return self._tuner.overview()

    def trials(self, key: StudyKey) -> dict[str, Any]:
        """Tuner.trials."""
        return self._tuner.trials(key)

    def samples(self, scope: Scope) -> dict[str, Any]:
        """Tuner.samples."""
        return self._tuner.samples(scope)

    def recheck(self, message: Recheck) -> str:
        """Tuner.recheck."""
        return self._tuner.recheck(message)

    def housekeeping(self) -> None:
        """Tuner.housekeeping."""
        self._tuner.housekeeping()

    def close(self) -> None:
        """Tuner.close."""
        self._tuner.close()


class RayCore:
    """AsyncCore over the core actor."""

    def __init__(self) -> None:
        self._actor: Any = None

    async def ingest(self, message: TraceMessage) -> Ingested:
        """Core.ingest."""
        return Ingested(*await self._call("ingest", message))

    async def table(self, scope: Scope) -> bytes | None:
        """Core.table."""
        body: bytes | None = await self._call("table", scope)
        return body

    async def overview(self) -> dict[str, Any]:
        """Core.overview."""
        return dict(await self._call("overview"))

    async def trials(self, key: StudyKey) -> dict[str, Any]:
        """Core.trials."""
        return dict(await self._call("trials", key))

    async def samples(self, scope: Scope) -> dict[str, Any]:
        """Core.samples."""
        return dict(await self._call("samples", scope))

    async def recheck(self, message: Recheck) -> str:
        """Core.recheck."""
        return str(await self._call("recheck", message))

    async def housekeeping(self) -> None:
        """Core.housekeeping."""
        await self._call("housekeeping")

    async def _call(self, name: str, *args: Any) -> Any:
        try:
            if self._actor is None:
                self._actor = ray.get_actor(CORE, namespace=NAMESPACE)
            return await getattr(self._actor, name).remote(*args)
        except (RayError, ValueError) as error:
            self._actor = None
            # Ray's own text is a traceback.
            raise CoreUnavailableError(f"core actor: {reason(cause_of(error))}") from error


def cause_of(error: Exception) -> Exception:
    """What a method of an actor raised, or Ray's own error."""
    cause = getattr(error, "cause", None)
    return cause if isinstance(cause, Exception) else error


class ActorSource:
    """TaskSource of a measuring actor."""

    def __init__(self) -> None:
        self._actor = ray.get_actor(CORE, namespace=NAMESPACE)

    def next_task(self, worker: WorkerInfo) -> Task | None:
        """Core.next_task."""
        task: Task | None = self._call("next_task", worker)
        return task

    def report(self, report: Report) -> bool:
        """Core.report."""
        return bool(self._call("report", report))

    def _call(self, name: str, argument: Any) -> Any:
        try:
            return ray.get(getattr(self._actor, name).remote(argument), timeout=60)
        except RayError as error:
            raise ConnectionError(f"{type(error).__name__}: {error}") from error


class Measurer:
    """A measuring actor: `run` never returns; Ray restarts actor and method when it dies."""

    def __init__(self, name: str, nice: int) -> None:
        import torch

        be_polite(nice)
        torch.set_num_threads(1)
        self._name = name

    def run(self) -> None:
        """Measure until the actor is killed."""
        from tuner.measure.bench import OpBench
        from tuner.measure.worker import (
            HANG_LEASES,
            describe,
            load_kernel,
            measured_device,
            run_loop,
        )
        from tuner.settings import load

        device = measured_device()
        load_kernel(device)
        run_loop(
            ActorSource(), describe(self._name, device), OpBench(device),
            stop=lambda: False, limit_seconds=HANG_LEASES * load().lease_seconds,
        )  # fmt: skip
