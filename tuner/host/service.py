"""Running the tuner in the foreground: under Ray Serve, or plain under uvicorn."""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

import sqlalchemy as sa
import uvicorn

from pod_integrate.errors import SettingsError
from pod_integrate.redact import public_url
from tuner.core import Tuner
from tuner.host.processes import WorkerProcess
from tuner.host.thread import TunerThread
from tuner.http.api import create_app
from tuner.settings import TunerSettings, is_loopback
from tuner.store.database import StorageError
from tuner.store.storage import Store, reason

logger = logging.getLogger(__name__)

OnPhase = Callable[[str, str], None]


def run_tuner(
    settings: TunerSettings,
    *,
    on_phase: OnPhase | None = None,
    ray: bool = True,
    stop: threading.Event | None = None,
) -> None:
    """Serve until SIGINT, SIGTERM or `stop`; returns after a clean shutdown.

    on_phase  called with (phase, detail) as start-up and shutdown proceed; phases are `storage`,
              `ray` (only then), `workers`, `ready` (detail: the URL), `stopping`, `stopped`
    ray       host the core, HTTP and workers as Ray actors; else in this process and child
              processes, which starts in seconds and serves one machine
    stop      set by another thread to end the run

    Signal handlers are installed only when called from the main thread. Raises SettingsError when
    the port or the database is taken.
    """
    require_no_secret_in_arguments(settings)
    told = on_phase or (lambda _phase, _detail: None)
    ended = stop or threading.Event()
    if ray:
        prepare_ray(settings)
        # Ray reads its environment at import.
        from tuner.host.ray_service import run_on_ray

        run_on_ray(settings, on_phase=told, stop=ended)
    else:
        _run_plain(settings, told, ended)
    told("stopped", "")


def require_no_secret_in_arguments(settings: TunerSettings) -> None:
    """Raise SettingsError when this process's title shows a secret: anybody may read it."""
    password = sa.make_url(settings.url).password if settings.database_url else None
    for secret, name in ((password, "DATABASE_URL"), (settings.token.get_secret_value(), "TOKEN")):
        if secret and any(str(secret) in argument for argument in sys.argv[1:]):
            raise SettingsError(
                "a secret on the command line can be read by every user of this machine: set "
                f"POD_TUNER_{name} in the environment instead"
            )


def prepare_ray(settings: TunerSettings) -> None:
    """Set Ray's environment, what the operator set first.

    No usage reports; loopback only when HTTP is loopback only. Ray would make all its workers nice
    15, HTTP and core included, and gives Serve's proxy 5 s to come up: beside a server that is
    starting it then never does. Only measuring is to go last (POD_TUNER_NICE).
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_worker_niceness", "0")
    os.environ.setdefault("RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S", "60")
    if is_loopback(settings.host):
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")


def open_tuner(settings: TunerSettings, host_mode: str = "plain") -> Tuner:
    """A Tuner over the database of `settings`; SettingsError says why there is none."""
    store = Store(settings.url)
    try:
        tuner = Tuner(settings, store)
    except (sa.exc.SQLAlchemyError, StorageError) as error:
        store.close()
        raise SettingsError(
            f"database {public_url(settings.url)} cannot be read: {reason(error)}. Restore a "
            "backup, or move it away: the tuner then starts empty"
        ) from error
    except OSError as error:
        store.close()
        raise SettingsError(
            f"POD_TUNER_TRACE_DIR: cannot use {settings.archive_dir}: {error.strerror}; choose "
            "another folder"
        ) from error
    tuner.host_mode = host_mode
    return tuner


def listen(settings: TunerSettings) -> socket.socket:
    """A bound socket, so that a taken port is an error before anything else starts."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = socket.socket(family)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((settings.host, settings.port))
    except OSError as error:
        listener.close()
        raise SettingsError(
            f"POD_TUNER_PORT: cannot listen on {settings.host}:{settings.port}: {error.strerror}; "
            "choose another port, 0 for any free one"
        ) from error
    return listener


def url_of(listener: socket.socket) -> str:
    """http://host:port of a bound socket."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


@contextmanager
def ended_by_signals(ended: threading.Event) -> Iterator[None]:
    """Set `ended` on SIGINT and SIGTERM, put the old handlers back afterwards."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def on_signal(_number: int, _frame: FrameType | None) -> None:
        ended.set()

    old = {number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)


class _Server(uvicorn.Server):
    """uvicorn without signal handlers of its own: it runs in a thread here."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _run_plain(settings: TunerSettings, told: OnPhase, ended: threading.Event) -> None:
    listener = listen(settings)
    try:
        told("storage", public_url(settings.url))
        core = TunerThread(lambda: open_tuner(settings))
    except BaseException:
        listener.close()
        raise
    app = create_app(core, token=settings.token.get_secret_value())
    server = _Server(
        uvicorn.Config(app, log_config=None, access_log=False, timeout_graceful_shutdown=2)
    )
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, name="tuner-http")
    told("workers", str(settings.workers))
    names = [f"{socket.gethostname()}-{os.getpid()}-{i}" for i in range(settings.workers)]
    workers = [WorkerProcess(core, name, nice=settings.nice) for name in names]
    try:
        with ended_by_signals(ended):
            thread.start()
            while not server.started and thread.is_alive():
                time.sleep(0.02)
            told("ready", url_of(listener))
            while not ended.wait(0.5) and thread.is_alive():
                pass
            told("stopping", "")
    finally:
        app.state.feed.stop()
        server.should_exit = True
        thread.join()
        for worker in workers:
            worker.stop()
        core.close()
        listener.close()
