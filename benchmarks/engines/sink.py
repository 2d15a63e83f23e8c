"""TraceSink: a tuner's endpoints on loopback, in memory, with faults on demand."""

from __future__ import annotations

import hashlib
import json
import sys
import threading
import urllib.parse
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal

import msgspec

from pod_integrate.errors import TraceError
from pod_integrate.terms.experiment import Experiment, ExperimentAsk, ExperimentReport
from pod_integrate.terms.trace import StepRecord, TraceMessage, decode

Mood = Literal["good", "hang", "error"]


class TraceSink:
    """Takes traces, serves a table, gives out experiments; for tests and benchmarks.

    messages  every decoded message, repeats left out
    bad       what was wrong with messages that did not decode
    table     body to serve, None for 404; may be nonsense
    offer     what to answer an ExperimentAsk; None for no experiment
    asks, reports  about experiments, as they came
    mood      `good`, `hang` (accepts and never answers) or `error` (500 to everything)

    Use as a context manager; `url` is valid inside.
    """

    def __init__(self) -> None:
        self.messages: list[TraceMessage] = []
        self.bad: list[str] = []
        self.requests: list[str] = []
        self.table: bytes | None = None
        self.offer: Callable[[ExperimentAsk], Experiment | None] = lambda ask: None
        self.asks: list[ExperimentAsk] = []
        self.reports: list[ExperimentReport] = []
        self.mood: Mood = "good"
        self._seen: set[tuple[str, int]] = set()
        self._lock = threading.Lock()
        self._closing = threading.Event()
        sink = self

        class Handler(_Handler):
            owner = sink

        self._server = _Server(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    @property
    def url(self) -> str:
        """Base URL."""
        return f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> TraceSink:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def records(self) -> list[StepRecord]:
        """All records so far, in the order of arrival."""
        with self._lock:
            return [record for message in self.messages for record in message.records]

    def last(self) -> TraceMessage | None:
        """The newest message that has records, hence a config; idle servers send empty ones."""
        with self._lock:
            return next((m for m in reversed(self.messages) if m.records), None)

    def take(self, path: str, body: bytes) -> tuple[int, dict[str, Any]]:
        """Status and answer to one posted message."""
        try:
            if path == "/v1/experiments":
                return self._take_ask(ExperimentAsk.decode(body))
            if path.startswith("/v1/experiments/"):
                self.reports.append(ExperimentReport.decode(body))
                return 200, {"taken": True}
            return self._take_trace(decode(body))
        except TraceError as error:
            self.bad.append(str(error))
            return 400, {"error": str(error)}

    def _take_ask(self, ask: ExperimentAsk) -> tuple[int, dict[str, Any]]:
        with self._lock:
            self.asks.append(ask)
            experiment = self.offer(ask)
        return (204, {}) if experiment is None else (200, msgspec.to_builtins(experiment))

    def _take_trace(self, message: TraceMessage) -> tuple[int, dict[str, Any]]:
        with self._lock:
            duplicate = (message.server, message.sequence) in self._seen
            self._seen.add((message.server, message.sequence))
            if not duplicate:
                self.messages.append(message)
        return 202, {"accepted": len(message.records), "duplicate": duplicate}

    def wait(self, seconds: float) -> None:
        """Sleep that ends early when the sink closes."""
        self._closing.wait(seconds)


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Leave out clients that went away, as stopped servers do; show everything else."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    owner: TraceSink

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self._in_mood():
            status, answer = self.owner.take(urllib.parse.urlsplit(self.path).path, body)
            self._answer(status, b"" if status == 204 else json.dumps(answer).encode())

    def do_GET(self) -> None:
        path = urllib.parse.urlsplit(self.path).path
        if not self._in_mood():
            return
        table = self.owner.table
        if path != "/v1/table" or table is None:
            self._answer(404, b'{"error": "nothing here"}')
            return
        etag = f'"{hashlib.sha256(table).hexdigest()[:16]}"'
        if self.headers.get("If-None-Match") == etag:
            self._answer(304, b"", etag)
        else:
            self._answer(200, table, etag)

    def log_message(self, format: str, *args: object) -> None:
        """Keep requests for the caller to look at, instead of writing to stderr."""
        self.owner.requests.append(format % args)

    def _in_mood(self) -> bool:
        if self.owner.mood == "hang":
            self.owner.wait(3600)
            return False
        if self.owner.mood == "error":
            self._answer(500, b'{"error": "on demand"}')
            return False
        return True

    def _answer(self, status: int, body: bytes, etag: str | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        if etag is not None:
            self.send_header("ETag", etag)
        self.end_headers()
        self.wfile.write(body)
