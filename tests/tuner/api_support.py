"""The app on a real socket of loopback, over a core without Ray."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import httpx
from tuner_support import BUILD, DEVICE, GEOMETRY

from tuner.core import Tuner
from tuner.host.listening import listen, url_of
from tuner.host.opening import open_tuner
from tuner.host.plain import Server
from tuner.host.thread import TunerThread
from tuner.http.api import create_app
from tuner.settings import TunerSettings

KEYS = {"geometry": str(GEOMETRY), "device": str(DEVICE), "build": BUILD}
TOKEN = "correct-horse"
MSGPACK = {"Content-Type": "application/x-msgpack"}


class Served:
    """The app over a core with a clock of its own, on a free port of loopback."""

    def __init__(self, folder: Path, token: str) -> None:
        settings = TunerSettings(data_dir=folder, port=0, trials=8, seed=1)
        self.core = TunerThread(lambda: open_tuner(settings))
        self.tuner: Tuner = self.core.tuner
        self.app = create_app(self.core, token=token)
        self._listener = listen(settings)
        self.url = url_of(self._listener)
        self._server = Server(self.app)
        self._thread = threading.Thread(
            target=self._server.run, kwargs={"sockets": [self._listener]}
        )
        self._thread.start()
        # The socket is bound but refuses until uvicorn listens on it.
        while not self._server.started:
            assert self._thread.is_alive()
            time.sleep(0.01)

    def stop(self) -> None:
        self.app.state.feed.stop()
        self._server.should_exit = True
        self._thread.join(20)
        self.core.close()
        self._listener.close()
        assert not self._thread.is_alive()


def post(client: httpx.Client, body: bytes, **headers: str) -> httpx.Response:
    return client.post("/v1/traces", content=body, headers=MSGPACK | headers)
