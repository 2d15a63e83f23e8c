"""Measuring processes of one machine: spawned, fed through a pipe, replaced when they die.

A candidate that crashes the kernel takes its process along and nothing else.
"""

from __future__ import annotations

import logging
import multiprocessing
import signal
import threading
from multiprocessing.connection import Connection
from typing import Any

import sqlalchemy as sa

from tuner.host.thread import TunerThread
from tuner.measure.polite import be_polite
from tuner.messages import Report, Task, WorkerInfo
from tuner.store.database import StorageError
from tuner.store.storage import reason

logger = logging.getLogger(__name__)

_SPAWN = multiprocessing.get_context("spawn")
_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 30.0
_STOP_SECONDS = 10.0


class WorkerProcess:
    """Keeps one measuring process alive and hands it the tuner's tasks, from a thread of ours."""

    def __init__(self, core: TunerThread, name: str, *, nice: int) -> None:
        self._core, self.name, self._nice = core, name, nice
        self._stop = threading.Event()
        self._process: Any = None
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
            served = self._serve(ours)
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

    def _serve(self, pipe: Connection) -> int:
        """Answer requests until either side ends; returns the reports taken."""
        served = 0
        try:
            while not self._stop.is_set():
                if not pipe.poll(0.1):
                    continue
                request = pipe.recv()
                pipe.send(self._answer(request))
                served += isinstance(request, Report)
        except (EOFError, OSError):
            logger.debug("pipe of %s closed", self.name)
        return served

    def _answer(self, request: WorkerInfo | Report) -> Task | bool | None:
        try:
            if isinstance(request, WorkerInfo):
                return self._core.next_task(request)
            return self._core.report(request)
        except (sa.exc.SQLAlchemyError, StorageError) as error:
            # Storage away: the child idles and asks again; a report is measured again.
            logger.error("worker %s turned away, the database failed: %s", self.name, reason(error))
            return None

    def _release(self) -> None:
        try:
            self._core.release(self.name)
        except (sa.exc.SQLAlchemyError, StorageError) as error:
            # Its leases are over in time, with or without this.
            logger.error(
                "worker %s not released, the database failed: %s", self.name, reason(error)
            )


class _PipeSource:
    """The child's side: a TaskSource over the pipe."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe
        self.closed = False

    def next_task(self, worker: WorkerInfo) -> Task | None:
        """Ask the parent for work."""
        task: Task | None = self._ask(worker)
        return task

    def report(self, report: Report) -> bool:
        """Hand a report to the parent."""
        return bool(self._ask(report))

    def _ask(self, request: WorkerInfo | Report) -> Any:
        try:
            self._pipe.send(request)
            return self._pipe.recv()
        except (EOFError, OSError):
            self.closed = True
            return None


def _child(pipe: Connection, name: str, nice: int) -> None:
    import torch

    from tuner.measure.bench import OpBench
    from tuner.measure.worker import HANG_LEASES, describe, load_kernel, measured_device, run_loop
    from tuner.settings import load

    # Ctrl-C reaches the whole foreground group; the parent decides when a worker ends.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    be_polite(nice)
    # The op brings its own threads; the reference's small products only get slower with two.
    torch.set_num_threads(1)
    device = measured_device()
    load_kernel(device)
    source = _PipeSource(pipe)
    run_loop(
        source, describe(name, device), OpBench(device),
        stop=lambda: source.closed, limit_seconds=HANG_LEASES * load().lease_seconds,
    )  # fmt: skip
