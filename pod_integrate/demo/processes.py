"""Child processes of the demo: each leads a process group, logs to a file and is stopped by pid."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import httpx

from pod_integrate.errors import StartError

_TAIL_LINES = 25


class Child:
    """One child process and its log file.

    It leads a process group, so that a Ctrl-C in the terminal reaches the demo alone and the demo
    stops its children in order; all stay in one session, because niceness (the tuner's measuring
    goes last) counts inside of a session only where Linux groups tasks by session.
    """

    def __init__(
        self, name: str, command: Sequence[str], *, log: Path, env: Mapping[str, str] | None = None
    ) -> None:
        log.parent.mkdir(parents=True, exist_ok=True)
        self.name, self.command, self.log = name, list(command), log
        self.started = time.monotonic()
        with log.open("wb") as out:
            self._process = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                env={**os.environ, **(env or {})},
                process_group=0,
            )

    @property
    def running(self) -> bool:
        """Whether the process itself still runs."""
        return self._process.poll() is None

    def wait_ready(
        self, url: str, *, timeout: float, alive: Callable[[], None] | None = None
    ) -> float:
        """Poll `url` until it answers 200; returns seconds since start.

        Calls `alive` about twice a second. Raises StartError when the process ends first or
        `timeout` seconds since its start pass.
        """
        while True:
            if not self.running:
                raise StartError(self._failure(f"ended with code {self._process.returncode}"))
            try:
                if httpx.get(url, timeout=2.0, trust_env=False).status_code == 200:
                    return time.monotonic() - self.started
            except httpx.HTTPError:
                # Refused or reset: not listening yet, which is what the loop waits for.
                time.sleep(0.1)
            if time.monotonic() - self.started > timeout:
                raise StartError(self._failure(f"did not answer {url} within {timeout:.0f} s"))
            if alive is not None:
                alive()
            time.sleep(0.4)

    def stop(self, *, grace: float = 15.0) -> None:
        """SIGINT, then SIGTERM, then SIGKILL to the group; returns when the leader has ended."""
        for number, patience in ((signal.SIGINT, grace), (signal.SIGTERM, 5.0)):
            if not self.running:
                break
            self._signal(number)
            try:
                self._process.wait(patience)
            except subprocess.TimeoutExpired:
                continue
        # Also after a clean end: grandchildren of a crashed leader would outlive it otherwise.
        self._signal(signal.SIGKILL)
        self._process.wait(5.0)

    def kill(self) -> None:
        """SIGKILL the group, as a machine that fails does; returns when the leader has ended."""
        self._signal(signal.SIGKILL)
        self._process.wait(5.0)

    def tail(self) -> str:
        """The last lines of the log."""
        lines = self.log.read_text(errors="replace").splitlines()
        return "\n".join(lines[-_TAIL_LINES:])

    def _signal(self, number: int) -> None:
        try:
            os.killpg(self._process.pid, number)
        except ProcessLookupError:
            return

    def _failure(self, what: str) -> str:
        return f"{self.name} {what}; log {self.log}, its end:\n{self.tail()}"
