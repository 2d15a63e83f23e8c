"""The tuner on Ray: one core actor, one Serve replica for HTTP, measuring actors.

The core actor owns the database; Ray restarts it after a crash and it goes on from there. The
HTTP replica and the workers hold nothing.

Ray listens on all interfaces unless RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER=0 is set before it starts
(its name is odd; what it does is bind everything to loopback, tested in tests/tuner). Serve's
internal gRPC port of a replica is the one listener that stays on [::].
"""

from __future__ import annotations

import logging
import os
import socket
import threading
from collections.abc import Callable
from typing import Any

import ray
from fastapi import FastAPI
from ray import serve
from ray.exceptions import RayError

from pod_integrate.errors import SettingsError
from pod_integrate.trace import TraceMessage
from tuner.host import CoreUnavailableError
from tuner.ingest import Ingested
from tuner.model import Report, Scope, StudyKey, Task, WorkerInfo
from tuner.settings import TunerSettings, is_loopback

logger = logging.getLogger(__name__)

NAMESPACE = "pod-attention-tuner"
CORE = "core"
APP = "pod-attention-tuner"


class Core:
    """The Tuner as an actor; see core.Tuner for the methods."""

    def __init__(self, settings: TunerSettings) -> None:
        from tuner.service import open_tuner

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
            raise CoreUnavailableError(f"core actor: {type(error).__name__}: {error}") from error


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

        os.nice(nice)
        torch.set_num_threads(1)
        self._name = name

    def run(self) -> None:
        """Measure until the actor is killed."""
        from tuner.bench import OpBench
        from tuner.worker import describe, run_loop

        run_loop(ActorSource(), describe(self._name), OpBench(), stop=lambda: False)


def build_http(token: str) -> FastAPI:
    """The HTTP app of the Serve replica."""
    from tuner.api import create_app

    return create_app(RayCore(), token=token)


def run_on_ray(
    settings: TunerSettings, *, on_phase: Callable[[str, str], None], stop: threading.Event
) -> None:
    """See service.run_tuner."""
    from tuner.service import ended_by_signals, listen, url_of

    # Taken and given back: Serve reports a taken port late and in many words.
    listener = listen(settings)
    url, port = url_of(listener), listener.getsockname()[1]
    listener.close()
    on_phase("ray", "starting a local cluster, this takes a while")
    _start_ray(settings)
    try:
        # After ray.init, which installs a SIGTERM handler of its own.
        with ended_by_signals(stop):
            on_phase("storage", settings.url)
            core = _start_core(settings)
            serve.start(http_options={"host": settings.host, "port": port})
            serve.run(_deployment(settings).bind(), name=APP, route_prefix="/")
            on_phase("workers", str(settings.workers))
            workers = _start_workers(settings)
            on_phase("ready", url)
            stop.wait()
            on_phase("stopping", "")
            for worker in workers:
                ray.kill(worker)
            serve.shutdown()
            ray.get(core.close.remote())
    finally:
        ray.shutdown()


def _start_ray(settings: TunerSettings) -> None:
    if ray.is_initialized():
        raise SettingsError("Ray runs in this process already; start the tuner in its own process")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if is_loopback(settings.host):
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    # Ray writes its token file with the permissions that the umask leaves.
    old = os.umask(0o077)
    try:
        ray.init(
            address="local", namespace=NAMESPACE, include_dashboard=False,
            num_cpus=max(4, settings.workers + 2), log_to_driver=False,
            logging_level=logging.WARNING, object_store_memory=128 << 20,
        )  # fmt: skip
    finally:
        os.umask(old)


def _start_core(settings: TunerSettings) -> Any:
    actor = ray.remote(Core).options(
        name=CORE, namespace=NAMESPACE, num_cpus=0, max_restarts=-1, max_task_retries=-1
    )
    core = actor.remote(settings)
    # Waits for the constructor: a database that is taken is an error here.
    ray.get(core.overview.remote())
    return core


def _deployment(settings: TunerSettings) -> Any:
    token = settings.token.get_secret_value()
    ingress = serve.ingress(lambda: build_http(token))
    return serve.deployment(
        name="http", num_replicas=1, max_ongoing_requests=256, ray_actor_options={"num_cpus": 0}
    )(ingress(type("Http", (), {})))


def _start_workers(settings: TunerSettings) -> list[Any]:
    workers = []
    for i in range(settings.workers):
        name = f"{socket.gethostname()}-{i}"
        actor = (
            ray.remote(Measurer)
            .options(num_cpus=1, max_restarts=-1, max_task_retries=-1)
            .remote(name, settings.nice)
        )
        # Never awaited: it ends with its actor.
        actor.run.remote()
        workers.append(actor)
    return workers
