"""Every way to reach the core brings the same calls, answers and errors: one suite for all."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Callable, Iterator
from multiprocessing import Pipe
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from support.waiting import until
from tuner_support import (
    KEY,
    SCOPE,
    STEPS,
    WORKER,
    RecordedBench,
    make_tuner,
    message,
    nothing_matters,
)

from pod_integrate.errors import ShapeError, TraceError
from tuner.core import Tuner
from tuner.host.client import BlockingCore, CoreUnavailableError, TaskClient
from tuner.host.pipe import PipeCore, serve
from tuner.host.thread import TunerThread
from tuner.measure.worker import run_loop
from tuner.messages import Report, StudyKey, Task, WorkerInfo
from tuner.settings import TunerSettings
from tuner.view import overview as view


class Awaited:
    """An AsyncCore as a BlockingCore."""

    def __init__(self, core: Any) -> None:
        self._core = core

    def call(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        return asyncio.run(self._core.ask(function, *args, **kwargs))


def thread(folder: Path) -> Iterator[BlockingCore]:
    core = TunerThread(lambda: make_tuner(folder))
    yield core
    core.close()


def thread_awaited(folder: Path) -> Iterator[BlockingCore]:
    core = TunerThread(lambda: make_tuner(folder))
    yield Awaited(core)
    core.close()


def pipe(folder: Path) -> Iterator[BlockingCore]:
    core, (ours, theirs) = TunerThread(lambda: make_tuner(folder)), Pipe()
    ended = threading.Event()
    server = threading.Thread(
        target=serve, args=(core, ours), kwargs={"name": "test", "stop": ended.is_set}
    )
    server.start()
    yield PipeCore(theirs)
    ended.set()
    server.join()
    core.close()


@pytest.fixture(scope="module")
def local_ray() -> Iterator[None]:
    """A cluster, which takes longer to start than all its tests run."""
    from tuner.host.service import prepare_ray

    settings = TunerSettings(workers=0)
    prepare_ray(settings)
    # It reads its environment at import.
    import ray

    from tuner.host import ray_service

    ray_service._start_ray(settings)
    # Processes of actors cannot import this file.
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    yield
    ray.shutdown()


def on_ray(folder: Path) -> Iterator[BlockingCore]:
    import ray

    from tuner.host import ray_actors

    # An actor ends with the last handle on it.
    actor = ray_actors.start_core(TunerSettings(data_dir=folder, seed=1, trials=12, workers=0))
    core = ray_actors.RayCore()
    assert asyncio.run(core.ask(Tuner.table, SCOPE)) is None
    yield core
    ray.kill(actor)
    until(lambda: not ray.util.list_named_actors(all_namespaces=True), 60)


# Ray's own modules warn of what they use.
ON_RAY = [pytest.mark.ray, pytest.mark.timeout(900), pytest.mark.filterwarnings("ignore")]


@pytest.fixture(
    params=[thread, thread_awaited, pipe, pytest.param(on_ray, marks=ON_RAY)],
    ids=lambda made: made.__name__,
)
def core(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[BlockingCore]:
    if request.param is on_ray:
        request.getfixturevalue("local_ray")
    yield from request.param(tmp_path)


def database_full(_tuner: Tuner) -> None:
    raise sa.exc.OperationalError("insert", {}, Exception("database or disk is full"))


def test_a_core_answers_what_its_functions_return(core: BlockingCore) -> None:
    assert core.call(Tuner.ingest, message()) == (STEPS, False)
    assert core.call(Tuner.ingest, message()) == (0, True)
    assert core.call(Tuner.table, SCOPE) is None
    assert core.call(view.overview).totals.records == STEPS
    assert core.call(view.trials, key=KEY).trials == []
    assert core.call(view.samples, SCOPE).buckets[0].bucket == KEY.bucket


def test_tasks_go_out_and_their_reports_come_back(core: BlockingCore) -> None:
    core.call(Tuner.ingest, message())
    source = TaskClient(core)
    task = source.next_task(WORKER)
    assert task is not None and task.key == StudyKey(*KEY)
    report = Report(task=task.id, worker=WORKER.id, outcome="failed", reason="x")
    assert source.report(report) and not source.report(report)
    core.call(Tuner.release, WORKER.id)
    assert core.call(view.overview).tuner.workers == []


def test_a_failing_database_is_an_unavailable_core_with_the_reason(core: BlockingCore) -> None:
    with pytest.raises(CoreUnavailableError, match="disk is full"):
        core.call(database_full)
    assert core.call(Tuner.table, SCOPE) is None


def wrong_trace(_tuner: Tuner) -> None:
    raise TraceError("attention_us is -1, want at least 0")


def wrong_shape(_tuner: Tuner) -> None:
    raise ShapeError("q_lens has 2 entries, kv_lens 3")


def a_bug(_tuner: Tuner) -> None:
    raise KeyError("bucket")


def test_what_a_function_raises_arrives_as_itself(core: BlockingCore) -> None:
    for failing, kind, text in (
        (wrong_trace, TraceError, "attention_us is -1, want at least 0"),
        (wrong_shape, ShapeError, "q_lens has 2 entries, kv_lens 3"),
        (a_bug, KeyError, "'bucket'"),
    ):
        with pytest.raises(kind) as raised:
            core.call(failing)
        assert type(raised.value) is kind and str(raised.value) == text
    assert core.call(Tuner.table, SCOPE) is None


class UnpickledError(Exception):
    """Made from two values, keeps one: pickle cannot make it again."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)


def odd(_tuner: Tuner) -> None:
    raise UnpickledError(3, "odd")


def test_an_error_that_pickle_loses_arrives_as_what_it_says(tmp_path: Path) -> None:
    for core in pipe(tmp_path):
        with pytest.raises(CoreUnavailableError, match="UnpickledError: odd"):
            core.call(odd)
        assert core.call(Tuner.table, SCOPE) is None


def test_a_worker_outlives_a_tuner_with_a_bug(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tuner.measure.worker.IDLE_SECONDS", 0.0)

    class Buggy:
        asked = 0

        def next_task(self, worker: WorkerInfo) -> Task | None:
            self.asked += 1
            if self.asked == 1:
                raise KeyError("bucket")
            return None

        def report(self, report: Report) -> bool:
            raise AssertionError(report)

    source = Buggy()
    caplog.set_level("ERROR")
    run_loop(source, WORKER, RecordedBench(nothing_matters), stop=lambda: source.asked == 2)
    assert "the tuner failed" in caplog.text


def test_a_worker_at_a_pipe_idles_while_its_core_is_away() -> None:
    ours, theirs = Pipe()
    ours.close()
    core = PipeCore(theirs)
    assert TaskClient(core, idle=True).next_task(WORKER) is None
    assert core.closed
    with pytest.raises(CoreUnavailableError):
        TaskClient(core).next_task(WORKER)


def a_lock(_tuner: Tuner) -> object:
    return threading.Lock()


def test_an_answer_that_cannot_travel_is_said_and_the_next_one_comes(tmp_path: Path) -> None:
    for core in pipe(tmp_path):
        with pytest.raises(CoreUnavailableError, match="cannot travel.*lock"):
            core.call(a_lock)
        assert core.call(Tuner.table, SCOPE) is None
