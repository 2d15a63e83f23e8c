"""A tuner in a process of its own."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import httpx
import psutil

from pod_integrate.terms.keys import Geometry

SCRIPT = Path(__file__).with_name("run_tuner_process.py")
SMALL = Geometry.uniform((4, 2, 64), "fp32", page_size=1)
MSGPACK = {"Content-Type": "application/x-msgpack"}


class Process:
    """A tuner in a process of its own; `url` is known once it is ready."""

    def __init__(self, folder: Path, *flags: str, ready_seconds: float = 300) -> None:
        self.phases: dict[str, str] = {}
        self._ready = threading.Event()
        self.popen = subprocess.Popen(
            [sys.executable, str(SCRIPT), str(folder), *flags],
            stdout=subprocess.PIPE, text=True, start_new_session=True,
        )  # fmt: skip
        self._reader = threading.Thread(target=self._read)
        self._reader.start()
        if not self._ready.wait(ready_seconds) or "ready" not in self.phases:
            self.end(signal.SIGKILL)
            raise AssertionError(f"not ready, only {self.phases}")
        self.client = httpx.Client(base_url=self.phases["ready"], timeout=30, trust_env=False)

    def _read(self) -> None:
        assert self.popen.stdout is not None
        for line in self.popen.stdout:
            phase, _, detail = line.strip().partition(" ")
            self.phases[phase] = detail
            if phase == "ready":
                self._ready.set()
        self._ready.set()

    def children(self) -> list[psutil.Process]:
        """Every process below this one."""
        found: list[psutil.Process] = psutil.Process(self.popen.pid).children(recursive=True)
        return found

    def end(self, number: int, seconds: float = 60) -> int:
        """Send a signal and wait; returns the exit code."""
        if self.popen.poll() is None:
            self.popen.send_signal(number)
        try:
            code = self.popen.wait(seconds)
        except subprocess.TimeoutExpired:
            self.popen.kill()
            self.popen.wait()
            raise
        finally:
            self._reader.join(10)
            if self.popen.stdout is not None:
                self.popen.stdout.close()
            if hasattr(self, "client"):
                self.client.close()
        return code

    def overview(self) -> dict[str, Any]:
        """GET /v1/overview."""
        document: dict[str, Any] = self.client.get("/v1/overview").json()
        return document

    def post(self, body: bytes) -> httpx.Response:
        """POST /v1/traces."""
        return self.client.post("/v1/traces", content=body, headers=MSGPACK)
