"""Measuring processes of one machine: spawned, fed through a pipe, replaced when they die.

A candidate that crashes the kernel takes its process along and nothing else.
"""

from __future__ import annotations

import logging
import multiprocessing
import signal
import threading
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess

from tuner.core import Tuner
from tuner.host.client import BlockingCore, CoreUnavailableError, TaskClient
from tuner.host.measuring import measure_until
from tuner.host.pipe import PipeCore, serve

logger = logging.getLogger(__name__)

_SPAWN = multiprocessing.get_context("spawn")
_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 30.0
_STOP_SECONDS = 10.0


class WorkerProcess:
    """Keeps one measuring process alive and hands it the tuner's tasks, from a thread of ours."""

    def __init__(self, core: BlockingCore, name: str, *, nice: int) -> None:
        self._core, self.name, self._nice = core, name, nice
        self._stop = threading.Event()
        self._process: SpawnProcess | None = None
        self._thread = threading.Thread(target=self._keep, name=name, daemon=True)
        self._thread.start()

    @property
    def pid(self) -> int | None:
        """Process id, None between two processes."""
        return self._process.pid if self._process is not None else None

    def stop(self) -> None:
        """End the process after its present slice, by force when it takes too long."""
        self._stop.set()
        self._thread.join(_STOP_SECONDS)
        process = self._process
        if process is not None and process.is_alive():
            process.kill()
            process.join()
        self._thread.join()

    def _keep(self) -> None:
        pause = _FIRST_PAUSE
        while not self._stop.is_set():
            ours, theirs = _SPAWN.Pipe()
            self._process = _SPAWN.Process(
                target=_child, args=(theirs, self.name, self._nice), name=self.name, daemon=True
            )
            self._process.start()
            theirs.close()
            served = serve(self._core, ours, name=self.name, stop=self._stop.is_set)
            ours.close()
            self._process.join()
            self._release()
            if self._stop.is_set():
                return
            logger.error(
                "measuring process %s ended with exit code %s after %d tasks; starting another",
                self.name, self._process.exitcode, served,
            )  # fmt: skip
            pause = _FIRST_PAUSE if served else min(_LONGEST_PAUSE, 2 * pause)
            self._stop.wait(pause)

    def _release(self) -> None:
        try:
            self._core.call(Tuner.release, self.name)
        except CoreUnavailableError as error:
            # Its leases are over in time, with or without this.
            logger.error("worker %s not released: %s", self.name, error)


def _child(pipe: Connection, name: str, nice: int) -> None:
    # Ctrl-C reaches the whole foreground group; the parent decides when a worker ends.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    core = PipeCore(pipe)
    measure_until(TaskClient(core, idle=True), name, nice, stop=lambda: core.closed)
