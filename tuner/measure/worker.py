"""Measuring: turn one task into one report, and the loop that a measuring process runs."""

from __future__ import annotations

import contextlib
import faulthandler
import logging
import time
from collections.abc import Callable, Iterator
from typing import Protocol

from pod_integrate.devices.base import Device
from pod_integrate.devices.registry import device_named
from pod_integrate.errors import ConfigInfeasibleError, PodAttentionError
from pod_integrate.terms.config import PodConfig
from tuner.measure.bench import Bench, MismatchError
from tuner.messages import Outcome, Pair, Report, Task, WorkerInfo
from tuner.settings import load

logger = logging.getLogger(__name__)

IDLE_SECONDS = 1.0
# A task that takes as many leases hangs; one of a slow build may take more than one.
HANG_LEASES = 3


class TaskSource(Protocol):
    """Where a worker gets tasks and leaves reports; calls raise when the tuner is away or fails."""

    def next_task(self, worker: WorkerInfo) -> Task | None:
        """What this worker should measure now, leased to it."""

    def report(self, report: Report) -> bool:
        """File the result of a task; False when its lease is not (any more) held."""


def measured_device() -> Device:
    """What a worker of this process measures on, loaded; see TunerSettings.worker_device.

    Before the first lease: a build may take longer than a lease lasts.
    """
    device = device_named(load().worker_device)
    device.load()
    return device


def describe(worker_id: str, device: Device, units: int | None = None) -> WorkerInfo:
    """This process as a worker that measures on `device`, with the build of the kernel there.

    units  threads of a CPU; default all its cores
    """
    key = device.key_of(units)
    return WorkerInfo(id=worker_id, device=str(key), build=device.kernel_build)


def measure(task: Task, worker: str, bench: Bench) -> Report:
    """Verify when asked to, then time pairs step by step until the time is over.

    Errors of the candidate become the report's outcome; bugs of ours become `failed`, with the
    traceback in the log, so that one bad task never ends a worker.
    """
    pairs: list[Pair] = []
    outcome: Outcome = "measured"
    reason = ""
    try:
        pairs = _measure(task, bench)
    except MismatchError as error:
        outcome, reason = "mismatch", str(error)
    except ConfigInfeasibleError as error:
        outcome, reason = "infeasible", str(error)
    except PodAttentionError as error:
        outcome, reason = "failed", f"{type(error).__name__}: {error}"
    except Exception as error:
        logger.exception("task %s of %s failed unexpectedly", task.phase, task.key)
        outcome, reason = "failed", f"{type(error).__name__}: {error}"
    return Report(task=task.id, worker=worker, outcome=outcome, reason=reason, pairs=pairs)


def _measure(task: Task, bench: Bench) -> list[Pair]:
    geometry, traced, _ = task.key.parsed()
    baseline, candidate = PodConfig.from_dict(task.baseline), PodConfig.from_dict(task.candidate)
    pairs: list[Pair] = []
    with bench.with_units(traced.units):
        if task.verify:
            bench.verify(candidate, geometry, task.batches[0], task.seed)
        deadline = time.monotonic() + task.seconds
        for lengths in task.batches:
            if pairs and time.monotonic() >= deadline:
                break
            # A step is measured in one go: it is one observation, and a half is none.
            pairs += bench.pairs(
                baseline, candidate, geometry, lengths,
                count=task.step_pairs, seconds=task.seconds, layers=task.layers,
            )  # fmt: skip
    return pairs


def run_loop(
    source: TaskSource,
    info: WorkerInfo,
    bench: Bench,
    *,
    stop: Callable[[], bool],
    limit_seconds: float | None = None,
) -> None:
    """Ask, measure, report until `stop()`; a tuner that is away or fails is asked again later.

    limit_seconds  a task that takes longer ends this process, with a traceback on stderr: a kernel
                   that hangs would hold the worker for ever
    """
    pause = IDLE_SECONDS
    while not stop():
        try:
            task = source.next_task(info)
            if task is not None:
                with _at_most(limit_seconds):
                    report = measure(task, info.id, bench)
                source.report(report)
                pause = IDLE_SECONDS
                continue
        except (ConnectionError, EOFError, TimeoutError) as error:
            logger.warning("tuner is away (%s); next try in %.0f s", error, pause)
            pause = min(30.0, 2 * pause)
        except Exception:
            # A bug of the tuner's: the next task may be without it, and no worker ends for it.
            logger.exception("the tuner failed; next try in %.0f s", pause)
            pause = min(30.0, 2 * pause)
        _sleep(pause, stop)


@contextlib.contextmanager
def _at_most(seconds: float | None) -> Iterator[None]:
    if seconds is None:
        yield
        return
    # Its watchdog thread needs no lock of Python's, which a hanging kernel may hold.
    faulthandler.dump_traceback_later(seconds, exit=True)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()


def _sleep(seconds: float, stop: Callable[[], bool]) -> None:
    until = time.monotonic() + seconds
    while not stop() and (left := until - time.monotonic()) > 0:
        time.sleep(min(0.1, left))
