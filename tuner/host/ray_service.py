"""The tuner on Ray: one core actor, one Serve replica for HTTP, measuring actors.

The core actor owns the database; Ray restarts it after a crash and it goes on from there. The
HTTP replica and the workers hold nothing.

Ray listens on all interfaces unless RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER=0 is set before it is
imported (see service.prepare_ray); what it does is bind everything to loopback. Serve's
internal gRPC port of a replica is the one listener that stays on [::].
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import threading
from collections.abc import Callable
from typing import Any

import psutil
import ray
from fastapi import FastAPI
from ray import serve

from pod_integrate.errors import SettingsError
from pod_integrate.redact import public_url
from tuner.core import Tuner
from tuner.host.client import CoreUnavailableError
from tuner.host.listening import listen, url_of
from tuner.host.ray_actors import NAMESPACE, RayCore, start_core, start_measurers
from tuner.host.signals import ended_by_signals
from tuner.http.api import create_app
from tuner.settings import TunerSettings
from tuner.store.storage import Store

logger = logging.getLogger(__name__)

APP = "pod-attention-tuner"
_INIT_ATTEMPTS = 3


def http_application(replica: type, token: str) -> Any:
    """Serve application whose one replica, of this class, answers HTTP."""

    def build_http() -> FastAPI:
        return create_app(RayCore(), token=token)

    deployment = serve.deployment(
        name="http", num_replicas=1, max_ongoing_requests=256, ray_actor_options={"num_cpus": 0}
    )
    return deployment(serve.ingress(build_http)(replica)).bind()


def run_on_ray(
    settings: TunerSettings, *, on_phase: Callable[[str, str], None], stop: threading.Event
) -> None:
    """See service.run_tuner."""
    # Taken and given back: Serve reports a taken port late and in many words.
    listener = listen(settings)
    url, port = url_of(listener), listener.getsockname()[1]
    listener.close()
    # Opened here once: out of an actor, what is wrong with it would be a traceback.
    Store(settings.url).close()
    on_phase("ray", "starting a local cluster, this takes a while")
    _start_ray(settings)
    try:
        # After ray.init, which installs a SIGTERM handler of its own.
        with ended_by_signals(stop):
            on_phase("storage", public_url(settings.url))
            core = start_core(settings)
            serve.start(http_options={"host": settings.host, "port": port})
            http = http_application(type("Http", (), {}), settings.token.get_secret_value())
            serve.run(http, name=APP, route_prefix="/")
            on_phase("workers", str(settings.workers))
            names = [f"{socket.gethostname()}-{i}" for i in range(settings.workers)]
            workers = start_measurers(names, settings.nice)
            on_phase("ready", url)
            stop.wait()
            on_phase("stopping", "")
            for worker in workers:
                ray.kill(worker)
            serve.shutdown()
            ray.get(core.call.remote(Tuner.close, (), {}))
    finally:
        ray.shutdown()


def _start_ray(settings: TunerSettings) -> None:
    if ray.is_initialized():
        raise SettingsError("Ray runs in this process already; start the tuner in its own process")
    # Ray writes its token file with the permissions that the umask leaves.
    old = os.umask(0o077)
    try:
        _init_ray(settings)
    finally:
        os.umask(old)


def _init_ray(settings: TunerSettings) -> None:
    ours = psutil.Process()
    before = {child.pid for child in ours.children(recursive=True)}
    for attempt in range(1, _INIT_ATTEMPTS + 1):
        try:
            ray.init(
                address="local", namespace=NAMESPACE, include_dashboard=False,
                # One per worker: Ray starts as many processes ahead of time.
                num_cpus=max(1, settings.workers), log_to_driver=False,
                logging_level=logging.WARNING, object_store_memory=128 << 20,
            )  # fmt: skip
            return
        except Exception as error:
            # Ray raises a plain Exception when its node is not up within 30 seconds, which a busy
            # machine does not manage; the limit cannot be set.
            _end([child for child in ours.children(recursive=True) if child.pid not in before])
            ray.shutdown()
            if attempt == _INIT_ATTEMPTS:
                raise CoreUnavailableError(
                    f"Ray did not start in {attempt} attempts: {error}. Free some cores, or run "
                    "the tuner without Ray"
                ) from error
            logger.warning("Ray did not start, attempt %d: %s", attempt, error)


def _end(processes: list[psutil.Process]) -> None:
    """Kill what a failed start left running: Ray forgets processes that came up late."""
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(processes, timeout=10)
