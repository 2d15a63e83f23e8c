"""Engines of one model, started side by side and ended together."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.gpu.engines.job import Run
from benchmarks.gpu.engines.serving_loads import (
    LOADS,
    SHAPES,
    engine_arguments,
    held,
    write_model,
)
from benchmarks.gpu.engines.serving_plan import Plan, Served
from benchmarks.gpu.engines.turns import FIRST_PORT, PORTS, Standing
from pod_integrate.devices.registry import device_named

if TYPE_CHECKING:
    from benchmarks.gpu.engines.serving_turns import Serving


def launched(serving: Serving, served: Served, plan: Plan) -> dict[str, Standing]:
    """Engines by backend that import SGLang, in all of their processes, and wait for `begin`.

    Importing takes most of a start and nothing of the device: it is done while others are measured.
    """
    workers: dict[str, Standing] = {}
    shape, options = SHAPES[served.model].beside(len(plan.engines)), serving.options
    model = serving.folder / served.name / "model"
    model.parent.mkdir(parents=True, exist_ok=True)
    write_model(model, shape)
    loads = {
        load: {"lengths": LOADS[load], "held": held(shape, LOADS[load])}
        for load in plan.loads(served)
    }
    logs = options.out / served.name
    logs.mkdir(parents=True, exist_ok=True)
    # Ports of two models' engines are apart, since both stand for a while.
    first = plan.served.index(served) * len(plan.engines)
    for place, engine in enumerate(plan.engines, first):
        folder = serving.folder / served.name / engine
        folder.mkdir(parents=True, exist_ok=True)
        workers[engine] = Standing(
            Run(engine, engine, mixed=True), folder, logs, module="serving_run",
            environment=serving.environment(engine),
        )  # fmt: skip
        arguments = engine_arguments(
            engine, model, shape, device=options.device, chunks=plan.chunks(engine),
            kv=served.kv, port=FIRST_PORT + place * PORTS,
        )  # fmt: skip
        workers[engine].begin({
            "engine": arguments, "loads": loads, "vocab": shape.vocab,
            "gate": str(_gate(serving, served)),
        })  # fmt: skip
    return workers


def begin(serving: Serving, served: Served) -> None:
    """Let all of its engines go on at once to the device."""
    _gate(serving, served).touch()


def _gate(serving: Serving, served: Served) -> Path:
    return serving.folder / served.name / "gate"


def build(serving: Serving, served: Served) -> None:
    """Compile what `pod` starts with, or wait until its engine has."""
    device = device_named(serving.options.device)
    geometry = SHAPES[served.model].geometry(served.kv_dtype(serving.options.device))
    device.load()
    device.build(geometry, device.default_config(geometry))


def ready(serving: Serving, served: Served, workers: dict[str, Standing]) -> dict[str, Standing]:
    """Those that came up in time; what did not is said in `failed`."""
    began = time.monotonic()
    until = began + min(serving.options.start, serving.seconds_left())
    up = {}
    for engine, worker in workers.items():
        try:
            worker.ready(max(1.0, until - time.monotonic()))
            serving.say(f"{served.name}, {engine}: up after {time.monotonic() - began:.0f} s")
            up[engine] = worker
        except RuntimeError as error:
            serving.failed(f"{served.name}, {engine}", error)
            worker.stop()
    return up


@contextlib.contextmanager
def standing(serving: Serving, served: Served, plan: Plan) -> Iterator[dict[str, Standing]]:
    """Engines of one model and cache by backend; those of the next one import meanwhile."""
    workers = serving.next_workers.pop(served, None) or launched(serving, served, plan)
    number = plan.served.index(served)
    try:
        if not serving.enough(serving.least_start):
            serving.left_out(served.name)
            yield {}
            return
        began = time.monotonic()
        begin(serving, served)
        if "pod" in workers:
            # What its engine waits for, while the engines start.
            build(serving, served)
        up = ready(serving, served, workers)
        serving.took(f"{served.name}: start", time.monotonic() - began)
        for later in plan.served[number + 1 : number + 2]:
            serving.next_workers[later] = launched(serving, later, plan)
        yield up
    finally:
        # All at once, then each.
        for worker in workers.values():
            worker.leave()
        for worker in workers.values():
            worker.stop()
