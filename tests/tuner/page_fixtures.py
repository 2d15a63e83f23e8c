"""A stand-in for the tuner's service that serves the real page: recorded JSON, SSE, strict CSP."""

from __future__ import annotations

import asyncio
import copy
import json
import socket
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import FileResponse, JSONResponse, Response, StreamingResponse
from playwright.sync_api import ConsoleMessage, Page
from playwright.sync_api import Request as PageRequest

import tuner
from pod_integrate.demo.ports import free_port
from tuner.view import documents

Json = dict[str, Any]
PAGE = Path(tuner.__file__).parent / "page"
RECORDED = Path(__file__).parent / "data" / "page_overview.json"
TRIALS = Path(__file__).parent / "data" / "page_trials.json"
LIVE = "#state[data-state=live]"
CHROMIUM_ARGS = [
    "--no-sandbox", "--disable-gpu", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--no-first-run", "--disable-quic",
]  # fmt: skip
CSP = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'"


def recorded_overview() -> Json:
    """A fresh copy of one busy overview: three servers, two kernel builds, nine buckets."""
    document = msgspec.json.decode(RECORDED.read_bytes(), type=documents.Overview)
    data: Json = msgspec.to_builtins(document)
    return data


def recorded_trials() -> dict[str, Json]:
    """The trials of some of its buckets, by bucket."""
    found = msgspec.json.decode(TRIALS.read_bytes(), type=dict[str, documents.Trials])
    data: dict[str, Json] = msgspec.to_builtins(found)
    return data


def empty_overview() -> Json:
    """What a tuner says right after its start: nothing is known yet."""
    data = recorded_overview()
    for name in ("servers", "tables", "buckets", "decisions", "history"):
        data[name] = []
    data["bucket_count"] = 0
    data["tuner"]["workers"] = []
    data["totals"] = dict.fromkeys(data["totals"], 0) | {"hybrid_share": None}
    empty: Json = msgspec.to_builtins(msgspec.convert(data, documents.Overview))
    return empty


class FakeTuner:
    """The HTTP contract that the page reads, on a port of its own; `overview` is its state.

    stop() and start() again keep the port, so that a page can lose the tuner and find it back.
    """

    def __init__(self, overview: Json) -> None:
        self._overview = copy.deepcopy(overview)
        self._version = 0
        self.trials: dict[str, Json] = recorded_trials()
        self.port = free_port()
        self.streams = True
        self._server: uvicorn.Server | None = None
        self._thread: threading.Thread | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def publish(self, overview: Json) -> None:
        """Send another overview to every open page."""
        self._overview = copy.deepcopy(overview)
        self._version += 1

    def start(self) -> None:
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", self.port))
        # From here on a browser waits where it would be refused: the thread may be late.
        listener.listen()
        config = uvicorn.Config(
            self._app(), log_level="warning", timeout_graceful_shutdown=1, lifespan="off"
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [listener]})
        self._thread.start()

    def stop(self) -> None:
        assert self._server is not None and self._thread is not None
        self._server.should_exit = True
        self._thread.join(timeout=10)
        assert not self._thread.is_alive()

    def _app(self) -> FastAPI:
        app = FastAPI()

        @app.middleware("http")
        async def policy(request: Request, call_next: Any) -> Response:
            response: Response = await call_next(request)
            response.headers["content-security-policy"] = CSP
            return response

        @app.get("/")
        async def page() -> FileResponse:
            return FileResponse(PAGE / "index.html")

        @app.get("/static/{name}")
        async def static(name: str) -> FileResponse:
            return FileResponse(PAGE / name)

        @app.get("/v1/overview")
        async def overview() -> JSONResponse:
            return JSONResponse(self._overview)

        @app.get("/v1/trials")
        async def trials(bucket: str) -> JSONResponse:
            return JSONResponse(self.trials.get(bucket, {"trials": [], "promoted": None}))

        @app.get("/v1/events")
        async def events() -> Response:
            if not self.streams:
                return JSONResponse({"error": "64 event streams are open"}, 503)
            return StreamingResponse(self._events(), media_type="text/event-stream")

        return app

    async def _events(self) -> AsyncIterator[str]:
        sent = -1
        while self._server is not None and not self._server.should_exit:
            if sent != self._version:
                sent = self._version
                yield f"event: overview\ndata: {json.dumps(self._overview)}\n\n"
            await asyncio.sleep(0.03)


class Watched:
    """A page that remembers console errors, page errors and every request."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.complaints: list[str] = []
        self.requests: list[str] = []
        page.on("console", self._console)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("request", self._request)

    def _console(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.complaints.append(message.text)

    def _request(self, request: PageRequest) -> None:
        self.requests.append(request.url)


def opened(watched: Watched, fake: FakeTuner, fragment: str = "") -> Page:
    """The page, once it has shown its first overview."""
    watched.page.goto(fake.url + "/" + fragment)
    watched.page.wait_for_selector(LIVE)
    return watched.page
