"""The tuner in this process and child processes, without Ray."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import uvicorn
from fastapi import FastAPI

from pod_integrate.redact import public_url
from tuner.host.listening import listen, url_of
from tuner.host.opening import open_tuner
from tuner.host.processes import WorkerProcess
from tuner.host.signals import ended_by_signals
from tuner.host.thread import TunerThread
from tuner.http.api import create_app
from tuner.settings import TunerSettings

MAX_HEADER_BYTES = 64 << 10


class Server(uvicorn.Server):
    """uvicorn without signal handlers of its own: it runs in a thread here.

    A request whose line and headers are not complete after MAX_HEADER_BYTES, and what one more read
    of the socket brings, is answered 400 and its connection closed.
    """

    def __init__(self, app: FastAPI) -> None:
        # httptools, which uvicorn prefers, collects headers without an end: before any token is
        # looked at one client could fill the memory.
        config = uvicorn.Config(
            app,
            http="h11",
            h11_max_incomplete_event_size=MAX_HEADER_BYTES,
            log_config=None,
            access_log=False,
            timeout_graceful_shutdown=2,
        )
        super().__init__(config)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture none."""
        yield


def run_plain(
    settings: TunerSettings, *, on_phase: Callable[[str, str], None], stop: threading.Event
) -> None:
    """See service.run_tuner."""
    listener = listen(settings)
    try:
        on_phase("storage", public_url(settings.url))
        core = TunerThread(lambda: open_tuner(settings))
    except BaseException:
        listener.close()
        raise
    app = create_app(core, token=settings.token.get_secret_value())
    server = Server(app)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, name="tuner-http")
    on_phase("workers", str(settings.workers))
    names = [f"{socket.gethostname()}-{os.getpid()}-{i}" for i in range(settings.workers)]
    workers = [WorkerProcess(core, name, nice=settings.nice) for name in names]
    try:
        with ended_by_signals(stop):
            thread.start()
            while not server.started and thread.is_alive():
                time.sleep(0.02)
            on_phase("ready", url_of(listener))
            while not stop.wait(0.5) and thread.is_alive():
                pass
            on_phase("stopping", "")
    finally:
        app.state.feed.stop()
        server.should_exit = True
        thread.join()
        for worker in workers:
            worker.stop()
        core.close()
        listener.close()
